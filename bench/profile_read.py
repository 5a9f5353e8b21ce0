# SPDX-License-Identifier: Apache-2.0
"""How long svc-profile takes to answer about one of many customers, beside a bare gRPC server that reads one row.

The customers are collected by the service's own consumer: each has three identifiers, traits and six events; each is in
three segments, one of ten has an open ticket. Every call is made over gRPC from this process, in turns with the bare
read, so that both meet the same machine. What is measured includes the client, also the processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
import uvloop
from asyncpg.pgproto.pgproto import UUID
from chassis.client import CallerToken, channel
from chassis.database import Database
from chassis.garbage import collect_less
from chassis.identity import IdentityKey
from chassis.streams import Delivery
from chassis.testing import TOKEN_KEY
from chassis.tokens import TokenSigner
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import agent_pb2, profile_pb2
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer
from svc_profile.usecases.indexing import index_some

from bench.profile_fold import KEY, cpu_of
from bench.report import percentile, put_table, table
from bench.service import whole_service

NAME = "profile-read"
START_US = 1_763_000_000_000_000
EVENTS = 6
MESSAGE_EVENTS = 498
MESSAGES = 4
TURN = 100
"""Calls of one kind before the next kind has its turn."""
RATE = 100
"""Calls a second, when they come at random moments."""
SURNAMES = "김이박최정강조윤장임한오서신권황안송전홍"
SYLLABLES = "민서준하지우현도연수아은재윤호영진경성희단골나비"

_MEMBERSHIPS = """
INSERT INTO segment_memberships (profile_id, segment_id, member, revision, change_time_us, rule_version)
SELECT DISTINCT coalesce(m.profile_id, f.fragment_id), 'seg_' || s, true, 1, 1763000000000000, 1
FROM fragments f LEFT JOIN fragment_profiles m USING (fragment_id), generate_series(1, 3) AS s
"""
_SEGMENTS = """
INSERT INTO heard_segments SELECT 'seg_' || s, 'segment-' || s, 1, false FROM generate_series(1, 3) AS s
"""
_TICKETS = """
INSERT INTO interactions SELECT 'int_' || fragment_id, NULL, fragment_id, 2, 1, 'late', 'parcel', '', 'kim', 'kim',
    first_seen_us, first_seen_us, first_seen_us, NULL
FROM fragments WHERE namespace = 'user_id' AND hashtext(value) % 10 = 0
"""

Call = Callable[[int], Awaitable[Any]]


@dataclass(frozen=True)
class Customer:
    """One of the customers, drawn from a seed."""

    number: int

    @property
    def name(self) -> str:
        """A Korean name."""
        chance = random.Random(self.number)
        return chance.choice(SURNAMES) + "".join(chance.sample(SYLLABLES, 2))

    @property
    def phone(self) -> str:
        """A number that nobody else has."""
        return f"010-{self.number // 10_000 + 1000:04d}-{self.number % 10_000:04d}"

    def events(self) -> Iterator[Event]:
        """What the customer did."""
        user, visitor = f"u{self.number}", f"v{self.number}"
        traits = {
            "email": f"customer-{self.number}@example.com",
            "name": self.name,
            "phone": self.phone,
            "plan": "gold",
        }
        yield self._event(0, "page", anonymous_id=visitor, name="home")
        yield self._event(1, "identify", anonymous_id=visitor, user_id=user, traits=json.dumps(traits).encode())
        for step in (2, 3, 4):
            yield self._event(step, "track", user_id=user, name="Product Viewed", properties=b'{"product_id":"sku-17"}')
        order = json.dumps({"order_id": f"ORD-{self.number:08d}", "revenue": 12900, "currency": "KRW"}).encode()
        yield self._event(5, "track", user_id=user, name="Order Completed", properties=order)

    def _event(self, step: int, kind: str, **fields: Any) -> Event:
        time_us = START_US + (self.number * EVENTS + step) * 1_000
        return Event(
            message_id=f"m{self.number}-{step}",
            source="bench",
            type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
            time_us=time_us,
            received_time_us=time_us,
            **fields,
        )


async def load(database: Database, customers: int) -> None:
    """Collect what all customers did, index them, and let the other services have spoken."""
    learn = Collecting(Namer(IdentityKey(bytes.fromhex(KEY)))).learn
    at_once = MESSAGE_EVENTS // EVENTS
    for first in range(0, customers, at_once * MESSAGES):
        deliveries = []
        for start in range(first, min(first + at_once * MESSAGES, customers), at_once):
            events = [e for n in range(start, min(start + at_once, customers)) for e in Customer(n).events()]
            deliveries.append(Delivery(EventBatch(events=events), f"load-{start}", "events.collected.0", start, 1))
        async with database.transaction() as tx:
            await learn(tx, deliveries)
        if first % (at_once * MESSAGES * 50) == 0:
            print(f"  {first:,} of {customers:,} customers", flush=True)
    async with database.transaction() as tx:
        for statement in (_MEMBERSHIPS, _SEGMENTS, _TICKETS):
            await tx.execute(statement)
    more = True
    while more:
        async with database.transaction() as tx:
            more = await index_some(tx, 5_000)
    async with database.snapshot() as tx:
        await tx.execute("VACUUM ANALYZE")


class BareRead:
    """A gRPC server that reads one row by its key, and does nothing else."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key
        self._server = grpc.aio.server()

    async def start(self) -> int:
        """Listen; returns the port."""
        handler = grpc.unary_unary_rpc_method_handler(
            self._read, profile_pb2.GetProfileRequest.FromString, profile_pb2.GetProfileResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Bare", {"Read": handler})])
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Close."""
        await self._server.stop(0)

    async def _read(self, request: profile_pb2.GetProfileRequest, _: Any) -> profile_pb2.GetProfileResponse:
        fragment = self._key.resolve(request.profile).bytes
        async with self._database.snapshot() as tx:
            row = await tx.row(
                "SELECT namespace, value, CAST(traits AS text) AS traits FROM fragments WHERE fragment_id = :fragment",
                fragment=UUID(fragment),
            )
        identifier = profile_pb2.Identifier(namespace=row.namespace, value=row.value) if row else None
        return profile_pb2.GetProfileResponse(
            profile=profile_pb2.Profile(identifiers=[identifier] if identifier else [])
        )


def calls(opened: grpc.aio.Channel, bare: grpc.aio.Channel) -> dict[str, Call]:
    """What is measured: each takes the number of a customer."""
    read = bare.unary_unary(
        "/bench.Bare/Read",
        profile_pb2.GetProfileRequest.SerializeToString,
        profile_pb2.GetProfileResponse.FromString,
    )
    get, agent = ProfileServiceStub(opened).GetProfile, AgentServiceStub(opened)

    def masked(*paths: str) -> Call:
        mask = FieldMask(paths=paths)
        return lambda n: get(profile_pb2.GetProfileRequest(profile=f"user_id:u{n}", read_mask=mask))

    def found(query: Callable[[Customer], str]) -> Call:
        return lambda n: agent.SearchProfiles(agent_pb2.SearchProfilesRequest(query=query(Customer(n))))

    return {
        "bare read of one row": lambda n: read(profile_pb2.GetProfileRequest(profile=f"user_id:u{n}")),
        "GetProfile": masked(),
        "GetProfile, traits and segments": masked("traits", "segments"),
        "GetProfile, everything": masked("*"),
        "ListTimeline": lambda n: agent.ListTimeline(agent_pb2.ListTimelineRequest(profile=f"user_id:u{n}")),
        "search: whole name": found(lambda c: c.name),
        "search: first consonants": found(lambda c: "".join(_initial(s) for s in c.name)),
        "search: part of an address": found(lambda c: f"r-{c.number}@ex"),
        "search: last digits of a phone": found(lambda c: c.phone[-4:]),
        "search: order number": found(lambda c: f"ORD-{c.number:08d}"),
    }


def _initial(syllable: str) -> str:
    return "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"[(ord(syllable) - 0xAC00) // 588]


@dataclass
class Cost:
    """What the calls of one kind took."""

    seconds: list[float] = field(default_factory=list)
    python_s: float = 0.0
    postgres_s: float = 0.0

    def ms_of_cpu(self) -> tuple[float, float]:
        """Processor time of a call: in this process, client included, and in PostgreSQL."""
        count = len(self.seconds) / 1e3
        return round(self.python_s / count, 2), round(self.postgres_s / count, 2)


async def measure(
    known: dict[str, Call], postgres: psutil.Process, customers: int, rounds: int, at_once: int
) -> dict[str, Cost]:
    """Call all in turns, some calls at a time."""
    chance, costs = random.Random(11), {name: Cost() for name in known}
    for turn in range(rounds + 1):
        for name, call in known.items():
            if turn <= 1:
                # The first turn opens connections and lets PostgreSQL plan; it does not count.
                costs[name] = Cost()
            cost, asked = costs[name], iter([chance.randrange(customers) for _ in range(TURN)])
            python_s, postgres_s = time.process_time(), cpu_of(postgres)
            await asyncio.gather(*[_ask(call, asked, cost.seconds) for _ in range(at_once)])
            cost.python_s += time.process_time() - python_s
            cost.postgres_s += cpu_of(postgres) - postgres_s
    return costs


async def measure_steady(
    known: dict[str, Call], postgres: psutil.Process, customers: int, calls: int
) -> dict[str, Cost]:
    """Call at random moments, `RATE` times a second, whether earlier calls were answered or not."""
    chance, costs = random.Random(13), {}
    for name, call in known.items():
        cost, python_s, postgres_s = Cost(), time.process_time(), cpu_of(postgres)
        moment = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                moment += chance.expovariate(RATE)
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
                group.create_task(_ask(call, iter([chance.randrange(customers)]), cost.seconds, due=moment))
        cost.python_s = time.process_time() - python_s
        cost.postgres_s = cpu_of(postgres) - postgres_s
        costs[name] = cost
    return costs


async def _ask(call: Call, asked: Iterator[int], seconds: list[float], *, due: float | None = None) -> None:
    for number in asked:
        started = due or time.perf_counter()
        await call(number)
        seconds.append(time.perf_counter() - started)


def rows(measured: dict[str, dict[str, Cost]]) -> list[list[object]]:
    """Lay the times out beside those of the bare read."""
    laid: list[list[object]] = []
    for at_once, costs in measured.items():
        bare = percentile(next(iter(costs.values())).seconds, 0.5)
        for name, cost in costs.items():
            p50, p99 = percentile(cost.seconds, 0.5), percentile(cost.seconds, 0.99)
            times = round(p50 * 1e3, 2), round(p99 * 1e3, 2), round(p50 / bare, 2)
            laid.append([name, at_once, *times, *cost.ms_of_cpu()])
    return laid


async def measure_all(customers: int, rounds: int) -> tuple[dict[str, dict[str, Cost]], list[list[object]]]:
    """Load, then measure one and eight calls at a time, and calls that come when they like."""
    async with whole_service(["rpc"]) as running:
        service, postgres = running.service, running.postgres
        await running.runner.start()
        await load(service.database, customers)
        sizes = await _sizes(service.database, customers)
        bare = BareRead(service.database, IdentityKey(bytes.fromhex(KEY)))
        port = await bare.start()
        token = CallerToken(TokenSigner(TOKEN_KEY), "bench", ["*"])
        collect_less()
        async with (
            channel(f"127.0.0.1:{running.runner.rpc.port}", [token]) as opened,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as plain,
        ):
            known = calls(opened, plain)
            measured = {str(n): await measure(known, postgres, customers, rounds, n) for n in (1, 8)}
            # So many searches a second would fill both processors, and measure the queue before them.
            reads = {name: call for name, call in known.items() if not name.startswith("search")}
            measured[f"{RATE}/s"] = await measure_steady(reads, postgres, customers, rounds * TURN)
        await bare.stop()
        return measured, sizes


async def _sizes(database: Database, customers: int) -> list[list[object]]:
    sql = """
    SELECT count(*) AS entries, pg_total_relation_size('search_entries') AS total,
        (SELECT pg_relation_size('search_entries_grams')) AS gin
    FROM search_entries
    """
    async with database.snapshot() as tx:
        row = await tx.row(sql)
    if row is None:
        return []
    return [
        ["entries of the search index per customer", round(row.entries / customers, 1)],
        ["bytes of the search index per customer", round(row.total / customers)],
        ["of these in the GIN index", round(row.gin / customers)],
    ]


HEAD = ("call", "at once", "p50, ms", "p99, ms", "ratio to bare, p50", "CPU ms here", "CPU ms in PostgreSQL")


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--print", action="store_true", help="leave bench/README.md as it is")
    options = parser.parse_args()
    measured, sizes = uvloop.run(measure_all(options.customers, options.rounds))
    note = f"{options.customers:,} customers, {options.rounds * TURN:,} calls of each kind."
    lines: Sequence[str] = [
        *table(HEAD, rows(measured)), "", *table(("the search index", "measured"), sizes), "", note
    ]  # fmt: skip
    print(*lines, sep="\n")
    if not options.print:
        put_table(NAME, lines)


if __name__ == "__main__":
    main()
