# SPDX-License-Identifier: Apache-2.0
"""What counting an event costs svc-metrics, beside a bare clickhouse-connect Arrow insert, and how fast figures come.

Both sides insert the same events into the same table definition of the same embedded engine in the same process; the
bare side starts from finished Arrow columns and gives no token. The service's side starts from the bytes of the stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from random import Random
from uuid import UUID

import pyarrow as pa
from chassis.identity import FragmentId, ProfileId
from chassis.streams import RESOLVED, Delivery
from dangol.events.v1.events_pb2 import EventBatch, EventType
from svc_metrics import usecases, wire
from svc_metrics.consumers import Hearing
from svc_metrics.domain import DayRange, FunnelQuestion, Mapping, Membership
from svc_metrics.store import ClickHouse, Embedded, Limits, schema
from svc_metrics.usecases import Stores

from bench.report import percentile, put_table, table

MESSAGE_EVENTS = 100
DAYS = 60
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = ("Product Viewed",) * 10 + ("page",) * 12 + ("Product Added",) * 3 + ("Checkout Started", "Order Completed")
SEGMENT = "loyal"


@dataclass(frozen=True)
class Cost:
    """What one event costs, of this process's CPU and of the clock."""

    cpu_us: float
    wall_us: float


def messages(random: Random, count: int, customers: int, days: int) -> list[bytes]:
    """Return messages of the stream, about 570 bytes an event, with events of the last days."""
    return [_message(random, number * MESSAGE_EVENTS, customers, days) for number in range(count // MESSAGE_EVENTS)]


def fragment_of(number: int) -> UUID:
    """Return the fragment of a customer."""
    return UUID(bytes=blake2b(str(number).encode(), digest_size=16).digest())


def _message(random: Random, first: int, customers: int, days: int) -> bytes:
    batch = EventBatch()
    start = int((NOW - timedelta(days=days)).timestamp() * 1e6)
    for number in range(first, first + MESSAGE_EVENTS):
        customer = random.randrange(customers)
        fragment = fragment_of(customer).bytes
        name = random.choice(NAMES)
        properties = {
            "product_id": f"sku-{random.randrange(5000)}",
            "category": "신발",
            "price": 12900,
            "name": "제주 감귤 5kg",
        }
        if name == "Order Completed":
            properties |= {"revenue": random.randrange(1000, 200_000), "currency": "KRW", "order_id": f"o{number}"}
        page = name == "page"
        at = start + random.randrange(days * 86_400_000_000)
        batch.events.add(
            message_id=f"{random.getrandbits(128):032x}",
            type=EventType.EVENT_TYPE_PAGE if page else EventType.EVENT_TYPE_TRACK,
            source="local-write",
            user_id=f"customer-{customer:06d}",
            name="" if page else name,
            time_us=at,
            received_time_us=at + 400,
            properties=json.dumps(properties, ensure_ascii=False).encode(),
            context=b'{"library":{"name":"analytics-python","version":"2.4.0"},"page":{"path":"/a"},"locale":"ko-KR"}',
            fragment_id=fragment,
            profile_id=fragment,
            mapping_revision=1,
        )
    return batch.SerializeToString()


async def timed(events: int, work: Callable[[], Awaitable[None]]) -> Cost:
    """Run work over so many events and return the cost of each."""
    cpu, started = time.process_time(), time.perf_counter()
    await work()
    return Cost((time.process_time() - cpu) / events * 1e6, (time.perf_counter() - started) / events * 1e6)


async def measure_ingest(
    clickhouse: ClickHouse, payloads: Sequence[bytes], batch_events: int
) -> tuple[Cost, Cost, Cost]:
    """Insert all payloads in batches of a size; return the cost of the service, of its way to columns, and bare."""
    hearing = Hearing(Stores.on(clickhouse), timedelta(0))
    size = batch_events // MESSAGE_EVENTS
    batches = [payloads[start : start + size] for start in range(0, len(payloads), size)]
    columns: list[pa.Table] = []
    events = len(payloads) * MESSAGE_EVENTS

    async def the_services_way() -> None:
        for number, batch in enumerate(batches):
            await hearing.on_events_resolved(_deliveries(batch, f"{batch_events}-{number}"))

    async def to_columns() -> None:
        columns.extend(wire.event_columns(wire.events_of(_deliveries(batch, ""))) for batch in batches)

    async def bare() -> None:
        for each in columns:
            await clickhouse.insert("bare_events", each)

    service = await timed(events, the_services_way)
    return service, await timed(events, to_columns), await timed(events, bare)


def _deliveries(batch: Sequence[bytes], name: str) -> list[Delivery[EventBatch]]:
    return [
        Delivery(EventBatch.FromString(payload), f"{name}-{number}", RESOLVED, number + 1, 1)
        for number, payload in enumerate(batch)
    ]


async def measure_queries(stores: Stores, customers: int, rounds: int) -> list[tuple[str, float, float]]:
    """Return name, median and worst time in ms of each question."""
    month = DayRange.of("2026-10-24", "2026-11-22", "Asia/Seoul", NOW)
    funnel = FunnelQuestion(("Product Viewed", "Product Added", "Order Completed"), timedelta(days=7), month)
    ana = FragmentId(fragment_of(customers // 2))
    questions: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("KPIs, 30 days", lambda: usecases.query_kpis(stores, month, segment="", currency="KRW")),
        ("KPIs, 30 days, one segment", lambda: usecases.query_kpis(stores, month, segment=SEGMENT, currency="KRW")),
        ("funnel of 3 steps, 30 days", lambda: usecases.query_funnel(stores, funnel, segment="")),
        (
            "timeline of one customer, 100 events",
            lambda: usecases.list_profile_events(stores, ana, before=None, limit=100),
        ),
        ("event names", lambda: usecases.list_event_names(stores, 100)),
    ]
    found = []
    for name, ask in questions:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - started) * 1e3)
        found.append((name, percentile(times, 0.5), max(times)))
    return found


async def let_people_be_known(stores: Stores, customers: int) -> None:
    """Let a third of the fragments belong to others and a fifth of the profiles be in a segment."""
    moved = [Mapping(FragmentId(fragment_of(n)), ProfileId(fragment_of(n - 1)), 2) for n in range(1, customers, 3)]
    await stores.people.learn_mappings(moved)
    members = [
        Membership(f"seg_{SEGMENT}", SEGMENT, ProfileId(fragment_of(n)), True, 1, 1) for n in range(0, customers, 5)
    ]
    await stores.people.learn_memberships(members)


async def run(events: int, customers: int, rounds: int) -> None:
    """Measure and write the tables."""
    random = Random(1)
    # Events of a few days of one month, as they flow in: each month of a batch would be a part of its own.
    payloads = messages(random, 40_000, customers, 10)
    with tempfile.TemporaryDirectory(prefix="dangol-bench-") as folder:
        engine = Embedded(Path(folder), 3 * 2**29, 2**26)
        clickhouse = ClickHouse(engine, "bench", Limits(2, 2**30, 60))
        await clickhouse.open()
        session = engine.connect("bench", {})
        session.command(schema.STEPS[0][0].replace("events", "bare_events", 1))
        await measure_ingest(clickhouse, payloads[:20], 1_000)
        rows: list[list[object]] = []
        for batch_events in (1_000, 10_000):
            service, columns, bare = await measure_ingest(clickhouse, payloads, batch_events)
            ratio = service.cpu_us / bare.cpu_us
            rows.append(
                [f"{batch_events:,}", columns.cpu_us, service.cpu_us, bare.cpu_us, ratio, service.wall_us, bare.wall_us]
            )
        session.command("TRUNCATE TABLE events")
        session.command("DROP TABLE bare_events SYNC")
        stores = Stores.on(clickhouse)
        await fill(stores, random, events, customers)
        await let_people_be_known(stores, customers)
        (parts,) = session.query("SELECT count() FROM system.parts WHERE active AND table = 'events'").result_rows[0]
        as_they_come = await measure_queries(stores, customers, rounds)
        session.command("OPTIMIZE TABLE events FINAL")
        merged = await measure_queries(stores, customers, rounds)
        session.close()
        await clickhouse.close()
    head = [
        "events per insert",
        "to columns, CPU µs",
        "service, CPU µs",
        "bare, CPU µs",
        "ratio",
        "service, µs",
        "bare, µs",
    ]
    title = (
        f"{events:,} events of {customers:,} customers in {DAYS} days; {parts} parts as they come, then one per month"
    )
    put_table(
        "metrics-ingest",
        [
            "Per event:",
            "",
            *table(head, rows),
            "",
            f"Milliseconds per question over {title}:",
            "",
            *table(
                ["question", "p50, as they come", "worst", "p50, merged", "worst "],
                [
                    [name, p50, worst, *after[1:]]
                    for (name, p50, worst), after in zip(as_they_come, merged, strict=True)
                ],
            ),
        ],
    )
    for row in (*rows, *as_they_come, *merged):
        print(*(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row), sep="  ")


async def fill(stores: Stores, random: Random, events: int, customers: int) -> None:
    """Put in so many events."""
    hearing = Hearing(stores, timedelta(0))
    for start in range(0, events, 20_000):
        batch = messages(random, min(20_000, events - start), customers, DAYS)
        await hearing.on_events_resolved(_deliveries(batch, f"fill-{start}"))


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="bench.metrics_ingest")
    parser.add_argument("--events", type=int, default=1_000_000, help="events that questions are asked over")
    parser.add_argument("--customers", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    asyncio.run(run(options.events, options.customers, options.rounds))


if __name__ == "__main__":
    main()
