# SPDX-License-Identifier: Apache-2.0
"""How many events a second the whole platform takes and makes queryable, and what each process pays for one."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

from bench.platform.backlog import Backlog, backlog_of
from bench.platform.calls import Questions, seconds_until
from bench.platform.http import Connection
from bench.platform.load import Load
from bench.platform.running import Platform, cpu_by_database, cpu_seconds, running_platform
from bench.platform.setting import furnish
from bench.platform.workload import BATCH_EVENTS, Workload, http_post
from bench.report import percentile, put_table, table

NAME = "ingest"
GOAL, FLOOR = 15_000, 8_000
WARM_UP_SECONDS = 6.0
SEARCH_SECONDS = 25.0
MEASURED_SECONDS = float(os.environ.get("DANGOL_BENCH_SECONDS", "60"))
MOST_RATE = 60_000.0
KEPT_BACKLOG = 20_000
GROWTH_SECONDS = 3.0
CAUTION = 0.95
ATTEMPTS = 4
LOOK_SECONDS = 0.25
# Questions cost the platform something too, so they are few.
PROBE_SECONDS, PROBE_PAUSE_SECONDS = 3.0, 0.25


@dataclass(slots=True)
class Measured:
    """One measurement at one offered rate."""

    offered: float
    seconds: float = 0.0
    acknowledged: int = 0
    queryable: int = 0
    drain_seconds: float = 0.0
    backlogs: list[float] = field(default_factory=list)
    """Events that waited, looked at four times a second."""
    lags: list[float] = field(default_factory=list)
    """Seconds from the 200 of a probe until profile and metrics both answer for it."""
    batch_seconds: list[float] = field(default_factory=list)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    is_exact: bool = False

    @property
    def rate(self) -> float:
        """Events a second that became queryable."""
        return self.queryable / self.seconds

    @property
    def is_sustained(self) -> bool:
        """Whether the backlog at the end is no larger than what a few seconds bring."""
        third = len(self.backlogs) // 3
        first, last = self.backlogs[:third], self.backlogs[-third:]
        growth = sum(last) / len(last) - sum(first) / len(first)
        return growth < GROWTH_SECONDS * self.offered * 0.25 and self.drain_seconds < GROWTH_SECONDS


def main() -> None:
    """Measure and write the table."""
    with running_platform() as platform:
        measured = uvloop.run(_measure(platform))
    put_table(NAME, report(measured))
    print("\n".join(report(measured)))


async def _measure(platform: Platform) -> Measured:
    furnish(platform)
    workload = Workload()
    async with backlog_of(platform.nats_url) as backlog:
        rate = await _search(platform, workload, backlog)
        for _ in range(ATTEMPTS):
            print(f"measuring {rate:,.0f} events/s for {MEASURED_SECONDS:.0f} s", flush=True)
            measured = await _measure_at(platform, workload, backlog, rate)
            print(f"  queryable {measured.rate:,.0f}/s, drained in {measured.drain_seconds:.1f} s", flush=True)
            if measured.is_sustained:
                break
            rate = 0.9 * min(measured.rate, rate)
    return measured


async def _search(platform: Platform, workload: Workload, backlog: Backlog) -> float:
    """Offer as much as keeps the backlog about constant; what comes out in the second half is sustainable."""
    async with Load(platform.gateway_port, workload, rate=3_000) as load:
        await asyncio.sleep(WARM_UP_SECONDS)
        load.rate = 10_000.0
        marks: list[tuple[float, float]] = []
        begin = time.monotonic()
        while time.monotonic() - begin < SEARCH_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            waiting = await backlog.events(workload.sent * BATCH_EVENTS)
            marks.append((time.monotonic(), load.acknowledged - waiting))
            load.rate = min(MOST_RATE, max(1_000.0, load.rate * (1.04 if waiting < KEPT_BACKLOG else 0.92)))
    half = marks[len(marks) // 2 :]
    processed = (half[-1][1] - half[0][1]) / (half[-1][0] - half[0][0])
    print(f"search: {processed:,.0f} events/s come out while about {KEPT_BACKLOG:,} wait", flush=True)
    await _drained(backlog)
    return CAUTION * processed


async def _measure_at(platform: Platform, workload: Workload, backlog: Backlog, rate: float) -> Measured:
    measured = Measured(offered=rate)
    questions = Questions(platform.gateway_port)
    async with Load(platform.gateway_port, workload, rate) as load:
        await asyncio.sleep(WARM_UP_SECONDS)
        probing = asyncio.create_task(_probe(platform.gateway_port, measured.lags))
        before = _cpu(platform)
        begin, queryable, acknowledged = time.monotonic(), await questions.counted_events(), load.acknowledged
        load.latencies.clear()
        while time.monotonic() - begin < MEASURED_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            measured.backlogs.append(await backlog.events(workload.sent * BATCH_EVENTS))
        measured.queryable = await questions.counted_events() - queryable
        measured.seconds = time.monotonic() - begin
        measured.acknowledged = load.acknowledged - acknowledged
        measured.batch_seconds = list(load.latencies)
        measured.cpu_seconds = {name: used - before.get(name, 0.0) for name, used in _cpu(platform).items()}
        if probing.done():
            probing.result()
        probing.cancel()
        await load.finish()
    drained = await seconds_until(lambda: _has_counted(questions, workload), 120, 0.1)
    measured.drain_seconds = drained if drained is not None else 120.0
    measured.is_exact = drained is not None
    questions.close()
    return measured


async def _has_counted(questions: Questions, workload: Workload) -> bool:
    """Whether metrics answers for every event of the load, and for no more."""
    counted = await questions.counted_events(set(workload.counts))
    return counted == workload.sent * BATCH_EVENTS


async def _probe(port: int, lags: list[float]) -> None:
    """Send one event of a new customer now and then, and look when profile and metrics know it."""
    connection, questions = Connection(port), Questions(port)
    try:
        for number in range(10**6):
            user = f"probe-{os.getpid()}-{time.monotonic_ns()}-{number}"
            body = f'{{"userId":"{user}","event":"Probe Sent","messageId":"{user}"}}'
            await connection.exchange(http_post("/v1/track", body.encode()))
            lag = await seconds_until(lambda user=user: _is_queryable(questions, user), 60, PROBE_PAUSE_SECONDS)  # type: ignore[misc]
            lags.append(60.0 if lag is None else lag)
            await asyncio.sleep(PROBE_SECONDS)
    finally:
        connection.close()
        questions.close()


async def _is_queryable(questions: Questions, user: str) -> bool:
    reference = f"user_id:{user}"
    return bool(await questions.profile_counts(reference)) and await questions.has_event(reference)


async def _drained(backlog: Backlog) -> None:
    async def is_empty() -> bool:
        return not any((await backlog.messages()).values())

    await seconds_until(is_empty, 120, 0.1)


def _cpu(platform: Platform) -> dict[str, float]:
    processes = platform.processes()
    postgres = processes.pop("postgres")
    used = {name: cpu_seconds(family) for name, family in processes.items()}
    return {**used, **cpu_by_database(postgres), "load generator": time.process_time()}


def report(measured: Measured) -> list[str]:
    """Lay out what was measured."""
    facts: list[tuple[str, Any]] = [
        ("events queryable in profile and metrics, per second", measured.rate),
        ("goal / floor, per second", f"{GOAL:,} / {FLOOR:,}"),
        ("offered, per second", measured.offered),
        ("seconds", measured.seconds),
        ("acknowledged in that time", measured.acknowledged),
        ("events waiting, mean of the first / last third", _thirds(measured.backlogs)),
        ("until everything is counted exactly after the last 200, s", measured.drain_seconds),
        ("200 to queryable in profile and metrics, p50 / p95, s", _percentiles(measured.lags)),
        ("one batch of 100 until its 200, p50 / p95, s", _percentiles(measured.batch_seconds)),
    ]
    return [*table(["", "measured"], facts), "", *_cost_table(measured)]


def _cost_table(measured: Measured) -> list[str]:
    cost: Callable[[float], float] = lambda seconds: seconds / measured.queryable * 1e6  # noqa: E731
    total = sum(measured.cpu_seconds.values())
    costs = Counter(measured.cpu_seconds).most_common()
    rows = [(name, cost(seconds), f"{seconds / measured.seconds:.0%}") for name, seconds in costs]
    rows.append(("all", cost(total), f"{total / measured.seconds:.0%}"))
    return table(["process", "CPU µs per event", "of one core"], rows)


def _thirds(values: list[float]) -> str:
    third = max(1, len(values) // 3)
    return f"{sum(values[:third]) / third:,.0f} / {sum(values[-third:]) / third:,.0f}"


def _percentiles(values: list[float]) -> str:
    return f"{percentile(values, 0.5):.3f} / {percentile(values, 0.95):.3f}" if values else "none"


if __name__ == "__main__":
    main()
