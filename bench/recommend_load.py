# SPDX-License-Identifier: Apache-2.0
"""What svc-recommend costs: CPU per event with everything that follows from it, and the time of one answer.

The consumer's function runs on prepared messages, without NATS, in transactions of about 1,500 events, and after every
7,500 events (half a second at 15,000 events/s) the neighbourhoods are refreshed as the job does. Two events of five
touch an item. Beside it, in the same run, a bare loop that decodes the same messages and counts per fragment.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import uvloop
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Database, Transaction
from chassis.engines import PostgresEngine, free_ports
from chassis.identity import Identifier, IdentityKey
from chassis.migrations import migrate
from chassis.service import Service
from dangol.events.v1.events_pb2 import EVENT_TYPE_PAGE, EVENT_TYPE_TRACK, Event, EventBatch
from dangol.recommend.v1 import recommend_pb2 as pb
from svc_recommend.app import build
from svc_recommend.settings import Settings
from svc_recommend.usecases.recommending import ShelfKeeper
from svc_recommend.usecases.refreshing import Refresher

from bench.report import percentile, put_table, table

NAME = "recommend-load"
KEY = "00112233445566778899aabbccddeeff"
START_US = 1_763_000_000_000_000
MESSAGE_EVENTS = 12
"""A batch of 100 events over 8 shards."""
MESSAGES = 128
REFRESH_EVENTS = 7_500
SPEED = 15_000
ITEMS = 2_000
NAMES = ("Product Viewed",) * 7 + ("Product Added",) * 2 + ("Order Completed",)

Handle = Callable[[Transaction, Sequence[EventBatch]], Awaitable[None]]

_COUNT = """
INSERT INTO bare_counts AS c SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS bigint[]))
ON CONFLICT (id) DO UPDATE SET count = c.count + excluded.count
"""


@dataclass
class Cpu:
    """Seconds of CPU."""

    python: float = 0.0
    postgres: float = 0.0


def events(count: int, customers: int, start: int) -> Iterator[Event]:
    """Draw events, from a seed: visitors who are known under two fragments, items of which few are popular."""
    chance = random.Random(start)
    key = IdentityKey(bytes.fromhex(KEY))
    fragments = [
        tuple(key.fragment_id(Identifier(space, str(who))).bytes for space in ("user_id", "anonymous_id"))
        for who in range(customers)
    ]
    for number in range(start, start + count):
        owner = fragments[chance.randrange(customers)]
        fragment = owner[chance.random() < 0.5]
        moment = START_US + number * 1_000_000 // SPEED
        touches = chance.random() < 0.4
        name = chance.choice(NAMES) if touches else "Home"
        yield Event(
            message_id=f"m{number}", type=EVENT_TYPE_TRACK if touches else EVENT_TYPE_PAGE, source="key_bench",
            name=name, time_us=moment, received_time_us=moment + 1, fragment_id=fragment, profile_id=owner[0],
            mapping_revision=1 if fragment != owner[0] else 0, properties=_properties(chance, name),
        )  # fmt: skip


def _properties(chance: random.Random, name: str) -> bytes:
    picked = [f"sku-{int(ITEMS * chance.random() ** 2.5)}" for _ in range(3)]
    if name == "Order Completed":
        return json.dumps({"revenue": 1, "products": [{"product_id": item, "quantity": 1} for item in picked]}).encode()
    return json.dumps({"product_id": picked[0], "price": 12900.5, "name": "제주 감귤 5kg", "category": "food"}).encode()


def messages(drawn: Sequence[Event]) -> list[bytes]:
    """Pack events as svc-profile does."""
    starts = range(0, len(drawn), MESSAGE_EVENTS)
    return [EventBatch(events=drawn[start : start + MESSAGE_EVENTS]).SerializeToString() for start in starts]


async def count_bare(tx: Transaction, batches: Sequence[EventBatch]) -> None:
    """Count per fragment: the least that any consumer of these messages does."""
    counts: dict[bytes, int] = {}
    for batch in batches:
        for event in batch.events:
            counts[event.fragment_id] = counts.get(event.fragment_id, 0) + 1
    ids = sorted(counts)
    await tx.execute(_COUNT, ids=[UUID(each) for each in ids], counts=[counts[each] for each in ids])


class Meter:
    """Adds up the CPU of this process and of PostgreSQL by what it was spent on."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self.spent: dict[str, Cpu] = {}

    async def on(self, name: str, work: Awaitable[None]) -> None:
        """Do a piece of work."""
        # Looking at PostgreSQL's processes costs CPU itself, so it stands outside.
        postgres, python = self._postgres(), time.process_time()
        await work
        python = time.process_time() - python
        cpu = self.spent.setdefault(name, Cpu())
        cpu.python += python
        cpu.postgres += self._postgres() - postgres

    def _postgres(self) -> float:
        own = self._server.cpu_times()
        total: float = own.user + own.system + own.children_user + own.children_system
        for child in self._server.children():
            # A worker of autovacuum may end at any moment; what it took is then its parent's.
            with suppress(psutil.NoSuchProcess):
                total += sum(child.cpu_times()[:2])
        return total


class Bench:
    """The service without its doors to NATS and gRPC."""

    def __init__(self, service: Service, server: psutil.Process) -> None:
        self.database: Database = service.database
        self.handle = cast(Handle, service.subscriptions[0].handler)
        self.refresher = cast(Refresher, cast(Any, service.jobs[0].run).__self__)
        self.keeper = cast(ShelfKeeper, cast(Any, service.checks[0]).__self__)
        self.rpc: Any = service.servicers[0].implementation
        self.meter = Meter(server)

    async def furnish(self) -> None:
        """Fill the catalogue."""
        for start in range(0, ITEMS, 1000):
            items = [
                pb.Item(item_id=f"sku-{n}", title=f"제주 감귤 {n}호", categories=["food"], price=1000, currency="KRW")
                for n in range(start, min(start + 1000, ITEMS))
            ]
            await self.rpc.BatchUpsertItems(pb.BatchUpsertItemsRequest(items=items), None)

    async def tidy(self) -> None:
        """Let PostgreSQL do what autovacuum would."""
        async with self.database.snapshot() as tx:
            await tx.execute("VACUUM ANALYZE")

    async def run(self, packed: Sequence[bytes], name: str, handle: Handle, *, refresh: bool) -> None:
        """Handle messages as the chassis does, except for NATS and the inbox."""
        handled = 0
        for start in range(0, len(packed), MESSAGES):
            piece = packed[start : start + MESSAGES]
            await self.meter.on(name, self._transaction(piece, handle))
            handled += len(piece) * MESSAGE_EVENTS
            if refresh and handled >= REFRESH_EVENTS:
                handled -= REFRESH_EVENTS
                await self.meter.on("refresh neighbourhoods", self.refresher.run())
                await self.meter.on("keep the shelf", self.keeper.update())

    async def _transaction(self, piece: Sequence[bytes], handle: Handle) -> None:
        async with self.database.transaction() as tx:
            await handle(tx, [EventBatch.FromString(data) for data in piece])

    async def answers(self, users: Sequence[str]) -> list[float]:
        """Ask for recommendations; return the seconds that each took."""
        taken = []
        for user in users:
            begin = time.perf_counter()
            answer = await self.rpc.RecommendItems(pb.RecommendItemsRequest(profile=f"user_id:{user}"), None)
            answer.SerializeToString()
            taken.append(time.perf_counter() - begin)
        return taken


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    """Start PostgreSQL and put the service together."""
    folder = tempfile.TemporaryDirectory(prefix="dangol-bench-")
    with folder, PostgresEngine(Path(folder.name) / "postgres", free_ports(1)[0]) as engine:
        service = build(Settings(postgres_url=engine.url, identity_key=KEY, port=0, local=True))
        await migrate(service.database, service.migrations)
        async with service.database.transaction() as tx:
            await tx.execute("CREATE TABLE bare_counts (id uuid PRIMARY KEY, count bigint) WITH (fillfactor = 70)")
        try:
            yield Bench(service, psutil.Process(engine.pid))
        finally:
            await service.database.close()


async def measure(count: int, customers: int, requests: int) -> tuple[dict[str, Cpu], list[float], float]:
    """Return CPU by purpose, the seconds of answers, and the memory of this process."""
    before = messages(list(events(count, customers, 1)))
    measured = messages(list(events(count, customers, 1 + count)))
    async with running() as bench:
        await bench.furnish()
        await bench.run(before, "before", bench.handle, refresh=True)
        await bench.run(before, "before", count_bare, refresh=False)
        while bench.refresher.due_count:
            await bench.refresher.run()
        await bench.tidy()
        gc.collect()
        gc.freeze()
        bench.meter.spent.clear()
        await bench.run(measured, "bare loop", count_bare, refresh=False)
        await bench.run(measured, "learn from events", bench.handle, refresh=True)
        await bench.keeper.update()
        chance = random.Random(5)
        users = [str(chance.randrange(customers)) for _ in range(requests + 300)]
        seconds = await bench.answers(users)
        return bench.meter.spent, seconds[300:], psutil.Process().memory_info().rss / 2**20


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--print", action="store_true", help="only print")
    options = parser.parse_args()
    spent, seconds, memory = uvloop.run(measure(options.events, options.customers, options.requests))
    lines = report(spent, seconds, memory, options.events, options.customers)
    print("\n".join(lines))
    if not options.print:
        put_table(NAME, lines)


def report(spent: dict[str, Cpu], seconds: Sequence[float], memory: float, count: int, customers: int) -> list[str]:
    """Lay out what was measured."""
    bare = spent["bare loop"]
    own = [cpu for name, cpu in spent.items() if name != "bare loop"]
    spent = {**spent, "**all of svc-recommend**": Cpu(sum(c.python for c in own), sum(c.postgres for c in own))}
    rows: list[tuple[object, ...]] = [
        (
            name,
            cpu.python / count * 1e6,
            cpu.postgres / count * 1e6,
            (cpu.python + cpu.postgres) / count * 1e6,
            (cpu.python + cpu.postgres) / (bare.python + bare.postgres),
        )
        for name, cpu in spent.items()
    ]
    lines = table(["", "Python CPU µs/event", "PostgreSQL CPU µs/event", "CPU µs/event", "ratio to bare"], rows)
    p50, p99 = (percentile(seconds, share) * 1000 for share in (0.5, 0.99))
    return [
        *lines,
        "",
        f"{count:,} events of {customers:,} customers with two fragments each, {ITEMS:,} items. "
        "One answer of 20 items, without gRPC and HTTP, with its one read of PostgreSQL: "
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms "
        f"({len(seconds):,} answers, one at a time). Memory of the process: {memory:.0f} MiB.",
    ]


if __name__ == "__main__":
    main()
