# SPDX-License-Identifier: Apache-2.0
"""How much svc-profile's fold costs per event, beside a bare loop that only dedupes and counts on the same PostgreSQL.

The consumer's function runs on prepared messages, without NATS, in transactions of about 2,000 events.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

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

MESSAGE_EVENTS = 125
MESSAGES = 16
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

_COUNT = """
INSERT INTO bare_counts AS c
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS bigint[]), CAST(:last AS bigint[]))
ON CONFLICT (id) DO UPDATE SET count = c.count + excluded.count, last_us = greatest(c.last_us, excluded.last_us)
"""
_SEEN = """
INSERT INTO bare_seen SELECT unnest(CAST(:keys AS uuid[])) ON CONFLICT DO NOTHING RETURNING event_key
"""


@dataclass(frozen=True)
class Cost:
    """What one case took."""

    events: int
    seconds: float
    python_us: float
    postgres_us: float

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
    known = [event("identify", n, user=f"u{n}", traits=_traits(n)) for n in range(customers)]
    yield Case("known, one id", known, [_known(chance, customers, n, two=False) for n in range(events)])
    linked = [event("identify", n, user=f"u{n}", visitor=f"v{n}", traits=_traits(n)) for n in range(customers)]
    yield Case("known, two ids", linked, [_known(chance, customers, n, two=True) for n in range(events)])
    yield Case("new, four events each", [], [_new(n) for n in range(events)])
    visitors = [event("page", n, visitor=f"v{n}") for n in range(events)]
    users = [event("track", n, user=f"u{n}") for n in range(events)]
    yield Case("each event merges two", visitors + users, [_merging(events + n, n) for n in range(events)])


def _traits(number: int) -> dict[str, object]:
    return {"email": f"customer-{number}@example.com", "name": "김단골", "plan": "gold", "age": 34, "city": "Seoul"}


def _known(chance: random.Random, customers: int, number: int, *, two: bool) -> Event:
    who = chance.randrange(customers)
    return event("track", customers + number, user=f"u{who}", visitor=f"v{who}" if two else "")


def _new(number: int) -> Event:
    who, step = divmod(number, 4)
    if step < 2:
        return event("page", number, visitor=f"v{who}")
    if step == 2:
        return event("identify", number, user=f"u{who}", visitor=f"v{who}", traits=_traits(who))
    return event("track", number, user=f"u{who}", visitor=f"v{who}")


def _merging(number: int, who: int) -> Event:
    return event("track", number, user=f"u{who}", visitor=f"v{who}")


def messages(events: Sequence[Event]) -> list[bytes]:
    """Pack events as the gateway does."""
    starts = range(0, len(events), MESSAGE_EVENTS)
    return [EventBatch(events=events[start : start + MESSAGE_EVENTS]).SerializeToString() for start in starts]


async def handle_all(database: Database, handle: Handle, packed: Sequence[bytes]) -> None:
    """Do what the chassis does with each micro-batch, except for NATS."""
    for start in range(0, len(packed), MESSAGES):
        deliveries = [
            Delivery(EventBatch.FromString(data), f"{id(packed)}-{start}-{n}", "events.collected.0", start + n, 1)
            for n, data in enumerate(packed[start : start + MESSAGES])
        ]
        async with database.transaction() as tx:
            await handle(tx, deliveries)


async def count_bare(tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
    """Dedupe and count per user id: the least that any consumer of these messages does."""
    by_key = {}
    for delivery in deliveries:
        for message in delivery.message.events:
            key = blake2b(f"{message.source}\x00{message.message_id}".encode(), digest_size=16).digest()
            by_key[key] = message
    fresh = await tx.rows(_SEEN, keys=[UUID(key) for key in sorted(by_key)])
    counts: dict[bytes, list[int]] = {}
    for row in fresh:
        message = by_key[row[0].bytes]
        who = blake2b(message.user_id.encode(), digest_size=16).digest()
        seen = counts.setdefault(who, [0, 0])
        seen[0] += 1
        seen[1] = max(seen[1], message.time_us)
    ids = sorted(counts)
    await tx.execute(
        _COUNT,
        ids=[UUID(who) for who in ids],
        counts=[counts[who][0] for who in ids],
        last=[counts[who][1] for who in ids],
    )
    for delivery in deliveries:
        for message in delivery.message.events:
            message.fragment_id = b"0123456789abcdef"
        tx.publish_after_commit("events.resolved.0", delivery.message.SerializeToString(), delivery.message_id)


async def measure(database: Database, server: psutil.Process, handle: Handle, case: Case) -> Cost:
    """Run one case on empty tables."""
    await _empty(database)
    await handle_all(database, handle, messages(case.before))
    packed = messages(case.measured)
    # What was drawn is no part of the service: its collector must not walk over it again and again.
    collect_less()
    async with database.snapshot() as tx:
        await tx.execute("VACUUM ANALYZE fragments, events")
    postgres, python, started = _cpu(server), time.process_time(), time.perf_counter()
    await handle_all(database, handle, packed)
    seconds = time.perf_counter() - started
    count = len(case.measured)
    return Cost(count, seconds, (time.process_time() - python) / count * 1e6, (_cpu(server) - postgres) / count * 1e6)


async def _empty(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("TRUNCATE fragments, links, fragment_profiles, events, outbox, bare_seen, bare_counts")


def _cpu(server: psutil.Process) -> float:
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(t.user + t.system for t in times)


@asynccontextmanager
async def _database() -> AsyncIterator[tuple[Database, psutil.Process]]:
    folder = tempfile.TemporaryDirectory(prefix="dangol-bench-")
    with folder, PostgresEngine(Path(folder.name) / "postgres", free_ports(1)[0]) as engine:
        service = build(Settings(postgres_url=engine.url, identity_key=KEY, port=0, local=True))
        await migrate(service.database, service.migrations)
        async with service.database.transaction() as tx:
            await tx.execute("CREATE TABLE bare_seen (event_key uuid PRIMARY KEY)")
            await tx.execute("CREATE TABLE bare_counts (id uuid PRIMARY KEY, count bigint, last_us bigint)")
        try:
            yield service.database, psutil.Process(engine.pid)
        finally:
            await service.database.close()


async def measure_all(events: int, customers: int) -> dict[str, Cost]:
    """Measure the bare loop and every case in turn."""
    collecting = Collecting(Namer(IdentityKey(bytes.fromhex(KEY))))
    costs = {}
    async with _database() as (database, server):
        for number, case in enumerate(cases(events, customers)):
            if number == 0:
                costs["bare loop, known"] = await measure(database, server, count_bare, case)
            costs[case.name] = await measure(database, server, collecting.on_collected, case)
    return costs


HEAD = ("history", "events/s", "Python CPU µs/event", "PostgreSQL CPU µs/event", "CPU µs/event", "ratio to bare")


def rows(costs: dict[str, Cost]) -> list[list[object]]:
    """Lay the costs out beside the bare loop."""
    bare = next(iter(costs.values()))
    return [
        [
            name,
            round(cost.per_second),
            round(cost.python_us, 1),
            round(cost.postgres_us, 1),
            round(cost.python_us + cost.postgres_us, 1),
            round((cost.python_us + cost.postgres_us) / (bare.python_us + bare.postgres_us), 2),
        ]
        for name, cost in costs.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--customers", type=int, default=10_000)
    arguments = parser.parse_args()
    for row in (HEAD, *rows(uvloop.run(measure_all(arguments.events, arguments.customers)))):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
