# SPDX-License-Identifier: Apache-2.0
"""How much svc-profile costs per event, beside a bare prototype on the same PostgreSQL.

The prototype does the least that a profile store can do: it dedupes message ids, folds counts and times per customer in
Python, and upserts them, in transactions of 1,000 events. It knows no identity, keeps no event and no trait. The
consumer's function runs on prepared messages, without NATS, in transactions of 4,000 events, as large as the service
makes them. Of both, four transactions run at a time, each with customers of its own, as in the consumer: Python works
on one, PostgreSQL on others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import psutil
import uvloop
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Database, Transaction
from chassis.engines import PostgresEngine, free_ports
from chassis.garbage import collect_less
from chassis.identity import IdentityKey
from chassis.migrations import migrate
from chassis.streams import Delivery
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer
from svc_profile.settings import Settings

from bench.report import put_table, table

MESSAGE_EVENTS = 125
MESSAGES = 32
PROTOTYPE_MESSAGES = 8
LANES = 4
SHARDS = 8
KEY = "00112233445566778899aabbccddeeff"
START_US = 1_763_000_000_000_000
PROPERTIES = json.dumps(
    {
        "product_id": "sku-17",
        "price": 12900.5,
        "quantity": 2,
        "category": "food",
        "name": "제주 감귤 5kg",
        "url": "https://shop.example/p/1",
    }
).encode()
CONTEXT = json.dumps(
    {"library": {"name": "analytics-python", "version": "2.4.0"}, "page": {"path": "/a"}, "locale": "ko-KR"}
).encode()
NAMES = ("Product Viewed", "Product Added", "Cart Viewed", "Product List Viewed")

Handle = Callable[[Transaction, Sequence[Delivery[EventBatch]]], Awaitable[None]]

_SEEN = """
INSERT INTO bare_seen SELECT unnest(CAST(:keys AS uuid[])) ON CONFLICT DO NOTHING RETURNING event_key
"""
_READ = (
    "SELECT id, CAST(counts AS text) FROM bare_profiles WHERE id = ANY (CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"
)
_UPSERT = """
INSERT INTO bare_profiles AS p
SELECT id, first_us, last_us, CAST(counts AS jsonb) FROM unnest(
    CAST(:ids AS uuid[]), CAST(:first AS bigint[]), CAST(:last AS bigint[]), CAST(:counts AS text[])
) AS g (id, first_us, last_us, counts)
ON CONFLICT (id) DO UPDATE SET first_us = least(p.first_us, excluded.first_us),
    last_us = greatest(p.last_us, excluded.last_us), counts = excluded.counts
"""

# What pg_stat counts for the tables that hold the state of customers, not the events themselves.
_ROWS = """
SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables
WHERE relname IN ('fragments', 'links', 'fragment_profiles', 'bare_profiles')
"""


@dataclass(frozen=True)
class Cost:
    """What one case took."""

    events: int
    seconds: float
    python_us: float
    postgres_us: float
    rows: float
    """Rows of state written per event."""

    @property
    def per_second(self) -> float:
        """Events in a second."""
        return self.events / self.seconds


@dataclass(frozen=True)
class Case:
    """A kind of history: what is there before, and what is measured."""

    name: str
    before: list[Event]
    measured: list[Event]


def event(
    kind: str, number: int, *, user: str = "", visitor: str = "", traits: dict[str, object] | None = None
) -> Event:
    """Return one event as the gateway would have written it."""
    return Event(
        message_id=str(uuid.uuid4()),
        source="key_bench",
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        user_id=user,
        anonymous_id=visitor,
        name=NAMES[number % len(NAMES)] if kind == "track" else "",
        time_us=START_US + number * 1_000,
        received_time_us=START_US + number * 1_000 + 250_000,
        properties=PROPERTIES if kind != "identify" else b"",
        traits=json.dumps(traits).encode() if traits else b"",
        context=CONTEXT,
    )


def cases(events: int, customers: int) -> Iterator[Case]:
    """Draw the histories, from a seed."""
    chance = random.Random(7)
    known = [event("identify", n, user=f"u{n}", traits=traits_of(n)) for n in range(customers)]
    yield Case("known, one id", known, [_known(chance, customers, n, two=False) for n in range(events)])
    linked = [event("identify", n, user=f"u{n}", visitor=f"v{n}", traits=traits_of(n)) for n in range(customers)]
    yield Case("known, two ids", linked, [_known(chance, customers, n, two=True) for n in range(events)])
    yield Case("new, four events each", [], [_new(n) for n in range(events)])
    visitors = [event("page", n, visitor=f"v{n}") for n in range(events)]
    users = [event("track", n, user=f"u{n}") for n in range(events)]
    yield Case("each event merges two", visitors + users, [_merging(events + n, n) for n in range(events)])


def traits_of(number: int) -> dict[str, object]:
    """Return the traits of a customer."""
    return {"email": f"customer-{number}@example.com", "name": "김단골", "plan": "gold", "age": 34, "city": "Seoul"}


def _known(chance: random.Random, customers: int, number: int, *, two: bool) -> Event:
    who = chance.randrange(customers)
    return event("track", customers + number, user=f"u{who}", visitor=f"v{who}" if two else "")


def _new(number: int) -> Event:
    who, step = divmod(number, 4)
    if step < 2:
        return event("page", number, visitor=f"v{who}")
    if step == 2:
        return event("identify", number, user=f"u{who}", visitor=f"v{who}", traits=traits_of(who))
    return event("track", number, user=f"u{who}", visitor=f"v{who}")


def _merging(number: int, who: int) -> Event:
    return event("track", number, user=f"u{who}", visitor=f"v{who}")


class Packed(NamedTuple):
    """A message as the gateway would have published it."""

    start: int
    """How many events of its shard came before."""
    shard: int
    data: bytes


def packed(events: Sequence[Event]) -> list[Packed]:
    """Pack events as the gateway does, by the shard of their customer; the messages of the shards come by turns."""
    shards: list[list[Event]] = [[] for _ in range(SHARDS)]
    for each in events:
        shards[crc32((each.user_id or each.anonymous_id).encode()) % SHARDS].append(each)
    return sorted(
        Packed(start, shard, EventBatch(events=own[start : start + MESSAGE_EVENTS]).SerializeToString())
        for shard, own in enumerate(shards)
        for start in range(0, len(own), MESSAGE_EVENTS)
    )


def messages(events: Sequence[Event]) -> list[list[bytes]]:
    """Pack events; the messages of some shards lie in each lane."""
    lanes: list[list[bytes]] = [[] for _ in range(LANES)]
    for each in packed(events):
        lanes[each.shard % LANES].append(each.data)
    return lanes


async def handle_all(
    database: Database, handle: Handle, lanes: Sequence[Sequence[bytes]], messages_at_once: int
) -> None:
    """Do what the chassis does with micro-batches, except for NATS: one of each lane at a time."""

    async def work(lane: Sequence[bytes]) -> None:
        for start in range(0, len(lane), messages_at_once):
            deliveries = [
                Delivery(EventBatch.FromString(data), f"{id(lane)}-{start}-{n}", "events.collected.0", start + n, 1)
                for n, data in enumerate(lane[start : start + messages_at_once])
            ]
            async with database.transaction() as tx:
                await handle(tx, deliveries)
            tx.outgoing()

    async with asyncio.TaskGroup() as workers:
        for lane in lanes:
            workers.create_task(work(lane))


async def prototype(tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
    """Dedupe, fold, upsert, and hand on what was new."""
    by_key = {}
    for delivery in deliveries:
        for message in delivery.message.events:
            by_key[_id(f"{message.source}\x00{message.message_id}")] = message
    fresh = await tx.rows(_SEEN, keys=[UUID(key) for key in sorted(by_key)])
    folded = _fold(by_key[row[0].bytes] for row in fresh)
    ids = sorted(folded)
    known: Sequence[Any] = await tx.rows(_READ, ids=[UUID(who) for who in ids])
    for row in known:
        counts = folded[row[0].bytes][2]
        for name, count in json.loads(row[1]).items():
            counts[name] = counts.get(name, 0) + count
    await tx.execute(
        _UPSERT,
        ids=[UUID(who) for who in ids],
        first=[folded[who][0] for who in ids],
        last=[folded[who][1] for who in ids],
        counts=[json.dumps(folded[who][2]) for who in ids],
    )
    for delivery in deliveries:
        for message in delivery.message.events:
            message.fragment_id = b"0123456789abcdef"
        tx.publish_after_commit("events.resolved.0", delivery.message.SerializeToString, delivery.message_id)


def _fold(events: Iterable[Event]) -> dict[bytes, tuple[int, int, dict[str, int]]]:
    folded: dict[bytes, tuple[int, int, dict[str, int]]] = {}
    for message in events:
        who, time_us = _id(message.user_id or message.anonymous_id), message.time_us
        first, last, counts = folded.get(who) or (time_us, time_us, {})
        counts[message.name] = counts.get(message.name, 0) + 1
        folded[who] = min(first, time_us), max(last, time_us), counts
    return folded


def _id(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


async def measure(database: Database, server: psutil.Process, handle: Handle, at_once: int, case: Case) -> Cost:
    """Run one case on empty tables."""
    await _empty(database)
    await handle_all(database, handle, messages(case.before), at_once)
    async with database.snapshot() as tx:
        await tx.execute("VACUUM ANALYZE fragments, events")
    return await measure_on(database, server, handle, at_once, case.measured)


async def measure_on(
    database: Database, server: psutil.Process, handle: Handle, at_once: int, events: Sequence[Event]
) -> Cost:
    """Measure events on the tables as they are."""
    lanes = messages(events)
    # What was drawn is no part of the service: its collector must not walk over it again and again.
    collect_less()
    rows = await _rows_written(database)
    postgres, python, started = cpu_of(server), time.process_time(), time.perf_counter()
    await handle_all(database, handle, lanes, at_once)
    seconds = time.perf_counter() - started
    count = len(events)
    return Cost(
        count,
        seconds,
        (time.process_time() - python) / count * 1e6,
        (cpu_of(server) - postgres) / count * 1e6,
        (await _rows_written(database) - rows) / count,
    )


async def _rows_written(database: Database) -> int:
    async with database.snapshot() as tx:
        await tx.execute("SELECT pg_stat_force_next_flush()")
        await tx.execute("SELECT pg_stat_clear_snapshot()")
        return int(await tx.value(_ROWS))


async def _empty(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute(
            "TRUNCATE fragments, links, fragment_profiles, events, derived_fragments, outbox, bare_seen, bare_profiles"
        )


def cpu_of(server: psutil.Process) -> float:
    """Return the seconds of processor time that a process and what it started have taken so far."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(t.user + t.system for t in times)


async def prepare(database: Database) -> None:
    """Make the tables of the prototype."""
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE IF NOT EXISTS bare_seen (event_key uuid PRIMARY KEY)")
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS bare_profiles"
            " (id uuid PRIMARY KEY, first_us bigint, last_us bigint, counts jsonb) WITH (fillfactor = 70)"
        )


@asynccontextmanager
async def database_with_server() -> AsyncIterator[tuple[Database, psutil.Process]]:
    """Start an empty PostgreSQL with the tables of svc-profile and of the prototype."""
    folder = tempfile.TemporaryDirectory(prefix="dangol-bench-")
    with folder, PostgresEngine(Path(folder.name) / "postgres", free_ports(1)[0]) as engine:
        service = build(Settings(postgres_url=engine.url, identity_key=KEY, port=0, local=True))
        await migrate(service.database, service.migrations)
        await prepare(service.database)
        try:
            yield service.database, psutil.Process(engine.pid)
        finally:
            await service.database.close()


async def measure_all(events: int, customers: int) -> dict[str, Cost]:
    """Measure the bare loop and every case in turn."""
    collecting = Collecting(Namer(IdentityKey(bytes.fromhex(KEY))))
    costs = {}
    async with database_with_server() as (database, server):
        for number, case in enumerate(cases(events, customers)):
            if number == 0:
                costs["bare prototype, known"] = await measure(database, server, prototype, PROTOTYPE_MESSAGES, case)
            costs[case.name] = await measure(database, server, collecting.on_collected, MESSAGES, case)
    return costs


HEAD = (
    "history", "events/s", "Python CPU µs/event", "PostgreSQL CPU µs/event", "CPU µs/event", "ratio to bare",
    "rows of state per event",
)  # fmt: skip


def rows(costs: dict[str, Cost]) -> list[list[object]]:
    """Lay the costs out beside the bare loop."""
    bare = next(iter(costs.values()))
    return [
        [
            name,
            round(cost.per_second),
            cost.python_us,
            cost.postgres_us,
            cost.python_us + cost.postgres_us,
            (cost.python_us + cost.postgres_us) / (bare.python_us + bare.postgres_us),
            cost.rows,
        ]
        for name, cost in costs.items()
    ]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    costs = uvloop.run(measure_all(arguments.events, arguments.customers))
    lines = table(HEAD, rows(costs))
    print("\n".join(lines))
    if not arguments.dry:
        put_table("profile-fold", lines)


if __name__ == "__main__":
    main()
