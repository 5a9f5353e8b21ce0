# SPDX-License-Identifier: Apache-2.0
"""What segmentation costs per event and per evaluated profile, beside a bare upsert loop on the same PostgreSQL.

The consumer's function and the evaluation run on prepared messages, without NATS, in transactions of 2,000 events.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
import uvloop
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Database, Transaction
from chassis.engines import PostgresEngine, free_ports
from chassis.garbage import collect_less
from chassis.identity import Identifier, IdentityKey
from chassis.migrations import migrate
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from svc_segmentation.app import build
from svc_segmentation.domain.behaviour import event_key
from svc_segmentation.domain.functions import DAY_US
from svc_segmentation.domain.segments import Draft
from svc_segmentation.settings import Settings
from svc_segmentation.usecases.behaviour import Memory
from svc_segmentation.usecases.definitions import Definitions
from svc_segmentation.usecases.evaluation import evaluate_everybody, evaluate_waiting
from svc_segmentation.usecases.rulebook import Rulebook
from svc_segmentation.wire import EventReader

from bench.report import put_table, table

MESSAGE_EVENTS = 125
MESSAGES = 16
DAYS = 20
KEY = IdentityKey(bytes.fromhex("00112233445566778899aabbccddeeff"))
END = datetime(2026, 11, 22, tzinfo=UTC)
END_US = int(END.timestamp()) * 1_000_000
CONTEXT = json.dumps({"library": {"name": "analytics-python", "version": "2.4.0"}, "locale": "ko-KR"}).encode()
CITIES = ("Seoul", "Busan", "Incheon", "Daegu", "Jeju")

RULES = (
    "traits.city == 'Seoul' && count('Order Completed', days(30)) >= 2",
    "sum('Order Completed', 'revenue', days(90)) >= 500000",
    "last('Order Completed') < now - days(60)",
    "!has(traits.email)",
    "traits.plan in ['gold', 'platinum'] && sum('Order Completed', 'revenue') > 1000000",
    "count('Product Added', days(7)) > 0 && !(last('Order Completed') > last('Product Added'))",
    "traits.age >= 19 && traits.age < 30",
    "first('Order Completed') > now - days(14)",
    "segment('s0') && traits.plan == 'gold'",
    "traits.email.endsWith('@example.com') && count('Order Completed') == 1",
)

Handle = Callable[[Transaction, Sequence[EventBatch]], Awaitable[None]]

_FIRST_TIME = """
INSERT INTO inbox (consumer, message_id) SELECT 'bench', m FROM unnest(CAST(:ids AS text[])) AS g (m)
ON CONFLICT DO NOTHING RETURNING message_id
"""
_BARE = """
INSERT INTO bare_days AS d SELECT * FROM unnest(
    CAST(:fragments AS uuid[]), CAST(:keys AS bigint[]), CAST(:days AS integer[]), CAST(:counts AS bigint[])
) ON CONFLICT (fragment_id, event_key, day) DO UPDATE SET count = d.count + excluded.count
"""


@dataclass(frozen=True)
class Cost:
    """What one case took, in all."""

    count: int
    seconds: float
    python_s: float
    postgres_s: float

    @property
    def cpu_us(self) -> float:
        """CPU of both per piece."""
        return (self.python_s + self.postgres_s) / self.count * 1e6


class Meter:
    """Measures what this process and PostgreSQL use."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server

    async def cost(self, count: int, work: Callable[[], Awaitable[None]]) -> Cost:
        """Do some work once."""
        postgres, python, started = self._cpu(), time.process_time(), time.perf_counter()
        await work()
        seconds = time.perf_counter() - started
        return Cost(count, seconds, time.process_time() - python, self._cpu() - postgres)

    def _cpu(self) -> float:
        times = [process.cpu_times() for process in (self._server, *self._server.children(recursive=True))]
        return sum(t.user + t.system for t in times)


def history(customers: int, events: int, start_us: int, end_us: int) -> list[bytes]:
    """Draw resolved events of known customers between two moments, from a seed, packed in messages."""
    chance = random.Random(7)
    fragments = [KEY.fragment_id(Identifier("user_id", f"u{n}")).bytes for n in range(customers)]
    drawn = []
    for number in range(events):
        fragment = fragments[chance.randrange(customers)]
        time_us = start_us + (end_us - start_us) * number // events
        drawn.append(_event(chance, fragment, f"{start_us}-{number}", time_us))
    starts = range(0, events, MESSAGE_EVENTS)
    return [EventBatch(events=drawn[start : start + MESSAGE_EVENTS]).SerializeToString() for start in starts]


def _event(chance: random.Random, fragment: bytes, message_id: str, time_us: int) -> Event:
    event = Event(
        message_id=message_id,
        source="key_bench",
        type=EventType.EVENT_TYPE_TRACK,
        user_id="u",
        time_us=time_us,
        context=CONTEXT,
        fragment_id=fragment,
        profile_id=fragment,
        mapping_revision=1,
    )
    draw = chance.random()
    product = {"product_id": "sku-17", "name": "제주 감귤 5kg", "category": "food", "url": "https://shop.example/p/1"}
    if draw < 0.50:
        event.name, properties = "Product Viewed", {**product, "price": 12900.5}
    elif draw < 0.65:
        event.name, properties = "Product Added", {**product, "price": 12900.5, "quantity": 2}
    elif draw < 0.95:
        event.type, properties = EventType.EVENT_TYPE_PAGE, {"path": "/a", "url": "https://shop.example/a"}
    elif draw < 0.98:
        event.name, properties = "Order Completed", {"order_id": message_id, "revenue": chance.randrange(200_000)}
    else:
        event.type, properties = EventType.EVENT_TYPE_IDENTIFY, {}
        traits = {"city": chance.choice(CITIES), "plan": "gold", "age": chance.randrange(80), "email": "a@example.com"}
        event.traits = json.dumps(traits).encode()
    event.properties = json.dumps(properties).encode() if properties else b""
    return event


async def handle_all(database: Database, handle: Handle, packed: Sequence[bytes], name: str) -> None:
    """Do what the chassis does with each micro-batch, except for NATS."""
    for start in range(0, len(packed), MESSAGES):
        messages = packed[start : start + MESSAGES]
        batches = [EventBatch.FromString(data) for data in messages]
        async with database.transaction() as tx:
            await tx.rows(_FIRST_TIME, ids=[f"{name}-{start + n}" for n in range(len(messages))])
            await handle(tx, batches)


async def count_bare(tx: Transaction, batches: Sequence[EventBatch]) -> None:
    """Count per fragment, event and day: the least that a segment over events needs."""
    counts: Counter[tuple[bytes, int, int]] = Counter()
    for batch in batches:
        for event in batch.events:
            counts[event.fragment_id, event_key(event.name or "page"), event.time_us // DAY_US] += 1
    keys = sorted(counts)
    await tx.execute(
        _BARE,
        fragments=[UUID(key[0]) for key in keys],
        keys=[key[1] for key in keys],
        days=[key[2] for key in keys],
        counts=[counts[key] for key in keys],
    )


class Bench:
    """The service's insides on a PostgreSQL of their own."""

    def __init__(self, database: Database, meter: Meter, settings: Settings) -> None:
        self._database = database
        self._meter = meter
        self._reader = EventReader(settings.summed_properties)
        self._rulebook = Rulebook()
        self._memory = Memory(self._rulebook)
        self._definitions = Definitions(self._rulebook, settings.summed_properties)

    async def _remember(self, tx: Transaction, batches: Sequence[EventBatch]) -> None:
        await self._memory.remember(tx, self._reader.read(batches))

    async def events(self, customers: int, events: int) -> list[list[object]]:
        """Return the cost of an event: bare, without a rule, with rules, and evaluated all the while."""
        await self._empty()
        before = history(customers, 20_000, END_US - DAYS * DAY_US, END_US - DAY_US)
        packed = history(customers, events, END_US - DAY_US, END_US)
        await handle_all(self._database, count_bare, before, "bare-before")
        await self._vacuum()
        bare = await self._meter.cost(
            events, lambda: handle_all(self._database, count_bare, packed, f"bare-{customers}")
        )
        rows = [self._event_row(f"{customers:,} customers, bare upserts", bare, bare)]
        for name, rules in (("no rule", 0), ("10 rules", 10)):
            await self._empty()
            await self._define(rules)
            await handle_all(self._database, self._remember, before, f"before-{customers}-{rules}")
            await self._evaluate()
            await self._vacuum()
            cost = await self._meter.cost(
                events, partial(handle_all, self._database, self._remember, packed, f"{customers}-{rules}")
            )
            rows.append(self._event_row(f"{customers:,} customers, {name}", cost, bare))
        changed = await self._waiting()
        rest = await self._meter.cost(max(changed, 1), self._evaluate)
        rows.append(self._event_row(f"… and {changed:,} evaluations", _both(cost, rest), bare))
        return rows

    def _event_row(self, name: str, cost: Cost, bare: Cost) -> list[object]:
        return [
            name,
            cost.count / cost.seconds,
            cost.python_s / cost.count * 1e6,
            cost.postgres_s / cost.count * 1e6,
            cost.cpu_us,
            cost.cpu_us / bare.cpu_us,
        ]

    async def evaluations(self, customers: int) -> list[list[object]]:
        """Return the cost of evaluating a profile, for different numbers of rules."""
        rows: list[list[object]] = []
        await self._empty()
        await handle_all(
            self._database, self._remember, history(customers, customers * 20, END_US - DAYS * DAY_US, END_US), "eval"
        )
        for rules in (1, 10, 50):
            await self._define(rules)
            await self._vacuum()
            first = await self._meter.cost(customers, self._evaluate_all)
            again = await self._meter.cost(customers, self._evaluate_all)
            segment = await self._add(f"new{rules}", RULES[0])
            whole = await self._meter.cost(
                customers,
                partial(evaluate_everybody, self._database, self._rulebook, segment, now=END, most=10_000),
            )
            rows.append(
                [rules, first.cpu_us, again.cpu_us, again.cpu_us / rules, again.count / again.seconds, whole.cpu_us]
            )
        return rows

    async def _define(self, rules: int) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                "TRUNCATE segments, memberships, membership_history, changed_fragments, due_profiles, outbox"
            )
            await tx.execute("UPDATE rule_set SET revision = revision + 1")
        for number in range(rules):
            rule = RULES[number % len(RULES)]
            # Beyond the first ten, other numbers make other rules.
            varied = rule.replace("days(", f"days({number // len(RULES)}1") if number >= len(RULES) else rule
            await self._add(f"s{number}", varied)

    async def _add(self, name: str, rule: str) -> str:
        async with self._database.transaction() as tx:
            draft = Draft(name=name, description="", rule=rule)
            return (await self._definitions.create(tx, draft, request_id="", now=END)).segment_id

    async def _evaluate_all(self) -> None:
        async with self._database.transaction() as tx:
            await tx.execute("INSERT INTO changed_fragments SELECT fragment_id FROM fragment_profiles")
        await self._evaluate()

    async def _evaluate(self) -> None:
        """Evaluate whoever waits, as the service does."""
        while True:
            async with self._database.transaction() as tx:
                if not await evaluate_waiting(tx, self._rulebook, now=END, most=2_000):
                    return

    async def _waiting(self) -> int:
        async with self._database.snapshot() as tx:
            return int(await tx.value("SELECT count(DISTINCT fragment_id) FROM changed_fragments"))

    async def _empty(self) -> None:
        self._memory = Memory(self._rulebook)
        async with self._database.transaction() as tx:
            await tx.execute("TRUNCATE inbox, fragment_profiles, event_days, fragment_traits, bare_days")
        await self._define(0)

    async def _vacuum(self) -> None:
        async with self._database.snapshot() as tx:
            await tx.execute("VACUUM ANALYZE event_days, fragment_profiles, fragment_traits, bare_days")


def _both(events: Cost, rest: Cost) -> Cost:
    return Cost(
        events.count,
        events.seconds + rest.seconds,
        events.python_s + rest.python_s,
        events.postgres_s + rest.postgres_s,
    )


@asynccontextmanager
async def _bench() -> AsyncIterator[Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="dangol-bench-") as folder,
        PostgresEngine(Path(folder) / "postgres", free_ports(1)[0]) as engine,
    ):
        settings = Settings(postgres_url=engine.url, identity_key="00" * 16, port=0, local=True)
        service = build(settings)
        await migrate(service.database, service.migrations)
        async with service.database.transaction() as tx:
            await tx.execute(
                "CREATE TABLE bare_days (fragment_id uuid, event_key bigint, day integer, count bigint,"
                " PRIMARY KEY (fragment_id, event_key, day)) WITH (fillfactor = 85)"
            )
        try:
            yield Bench(service.database, Meter(psutil.Process(engine.pid)), settings)
        finally:
            await service.database.close()


async def measure(events: int, customers: Sequence[int], profiles: int) -> list[str]:
    """Measure everything, and lay it out."""
    per_event: list[list[object]] = []
    async with _bench() as bench:
        for count in customers:
            per_event += await bench.events(count, events)
        per_profile = await bench.evaluations(profiles)
    return [
        f"Per event, {events:,} events of one day (30 % page views, 3 % orders, 2 % identify):",
        "",
        *table(("case", "events/s", "Python CPU µs", "PostgreSQL CPU µs", "CPU µs/event", "ratio to bare"), per_event),
        "",
        f"Per evaluated profile, CPU µs ({profiles:,} profiles of 20 events; first all enter what they fit in, then"
        " nothing changes; the last column asks all of them one new rule):",
        "",
        *table(("rules", "first", "again", "again, per rule", "again, profiles/s", "one new rule"), per_profile),
    ]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--customers", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--profiles", type=int, default=20_000)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    collect_less()
    lines = uvloop.run(measure(arguments.events, arguments.customers, arguments.profiles))
    print("\n".join(lines))
    if not arguments.dry:
        put_table("segmentation-load", lines)


if __name__ == "__main__":
    main()
