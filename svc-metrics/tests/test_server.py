# SPDX-License-Identifier: Apache-2.0
"""The same store on a server over HTTP (a double of the server; see `clickhouse_server`)."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from chassis.engines import free_ports
from chassis.errors import ResourceExhausted, Unavailable
from chassis.identity import FragmentId, ProfileId
from clickhouse_connect.driver.exceptions import DatabaseError
from svc_metrics import wire
from svc_metrics.domain import DayRange, FunnelQuestion, KpiSeries, Membership
from svc_metrics.store import ClickHouse, Embedded, Limits, Server
from svc_metrics.usecases import Stores, query_kpis

from .clickhouse_server import serving
from .histories import (
    COMPLETED,
    PRODUCT_ADDED,
    PRODUCT_VIEWED,
    batch_of,
    expected_kpis,
    expected_levels,
    moment,
    random_history,
)

LIMITS = Limits(queries=2, query_memory_bytes=100_000_000, query_seconds=1)


async def test_figures_over_http_equal_a_plain_computation(engine: Embedded, database: str) -> None:
    """Schema, inserts with a token, typed parameters, arrays and limits take the way over HTTP."""
    history = random_history(Random(5), count=400, customers=40, first="2026-11-01", last="2026-11-08")
    days = DayRange.of("2026-11-01", "2026-11-07", "Asia/Seoul", datetime(2026, 11, 22, tzinfo=UTC))
    profiles = sorted({h.fragment_id for h in history})[:15]
    with serving(engine.folder) as port:
        clickhouse = ClickHouse(Server(f"http://127.0.0.1:{port}"), database, LIMITS)
        await clickhouse.open()
        stores = Stores.on(clickhouse)
        for sequence in (1, 1, 2):
            delivery = batch_of((h.event() for h in history), sequence)
            await stores.events.append(
                wire.event_columns(wire.events_of([delivery])), token=wire.insert_token([delivery])
            )
        assert await clickhouse.rows("SELECT count() FROM events") == [(800,)]
        await stores.people.learn_memberships(
            [Membership("seg_1", "단골", ProfileId(profile), True, 1, 1) for profile in profiles]
        )
        series = await query_kpis(stores, days, segment="단골", currency="KRW")
        each, total = expected_kpis(
            history, {}, days=days.days(), zone="Asia/Seoul", currency="KRW", members=set(profiles)
        )
        assert series == KpiSeries(days, "KRW", each, total)
        steps = (PRODUCT_VIEWED, PRODUCT_ADDED, COMPLETED)
        levels = await stores.figures.funnel(FunnelQuestion(steps, timedelta(days=2), days), segment_id=None)
        wanted = [h for h in history if h.time_us < moment("2026-11-08T00:00:00+09:00")]
        assert levels == expected_levels(wanted, {}, steps, 172_800_000_000)
        ana = FragmentId(profiles[0])
        assert len(await stores.events.timeline([ana], before=None, limit=500)) == sum(
            h.fragment_id == ana for h in history
        )
        with pytest.raises(DatabaseError, match="READONLY"):
            await clickhouse.rows("INSERT INTO segments SELECT 'a', 'b', 0, 0")
        with pytest.raises(ResourceExhausted):
            await clickhouse.rows("SELECT uniqExact(number) FROM numbers(30000000)")
        await clickhouse.close()


async def test_a_server_that_is_away_is_waited_for(engine: Embedded, database: str) -> None:
    """At the start as long as it takes; later with an answer that tells the caller to come again."""
    (port,) = free_ports(1)
    clickhouse = ClickHouse(Server(f"http://127.0.0.1:{port}"), database, LIMITS)
    opening = asyncio.create_task(clickhouse.open())
    with pytest.raises(Unavailable):
        await clickhouse.check()
    with ExitStack() as first:
        first.enter_context(serving(engine.folder, port))
        await opening
        await clickhouse.check()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await clickhouse.rows("SELECT count() FROM events")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Stores.on(clickhouse).people.forget_segments([("seg_1", "x")])
    with serving(engine.folder, port):
        assert await clickhouse.rows("SELECT count() FROM events") == [(0,)]
        await Stores.on(clickhouse).people.forget_segments([("seg_1", "x")])
        await clickhouse.close()
