# SPDX-License-Identifier: Apache-2.0
"""Retention: figures stay when events become nobody's, and go when events are destroyed."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from chassis.clock import now, to_us
from chassis.retention.enforcing import Retention
from chassis.retention.heard import begin, read_rules
from chassis.retention.rules import dues_of
from chassis.testing import RunningService
from dangol.events.v1.events_pb2 import EventBatch
from dangol.metrics.v1 import metrics_pb2
from dangol.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from dangol.operations.v1 import retention_pb2 as report_pb
from dangol.operations.v1.retention_pb2_grpc import RetentionReportServiceStub
from dangol.profile.v1 import retention_pb2 as pb
from dangol.profile.v1.consent_pb2 import ConsentsChanged
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from svc_metrics.store import PersonalColumns, RetainedColumns
from svc_metrics.store.retained import given_for

from .histories import COMPLETED, PRODUCT_VIEWED, random_history

START, END = "2020-10-30T00:00", "2020-11-03T20:00"
PAST_ALL = 400


async def filled(service: RunningService) -> list[UUID]:
    """Let customers do things over the turn of a month, two of them under two names."""
    history = random_history(Random(7), count=300, customers=6, first=START, last=END)
    await service.deliver(EventBatch(events=[each.event() for each in history]), subject="events.resolved.0")
    fragments = sorted({each.fragment_id for each in history})
    moved = FragmentMapping(fragment_id=fragments[0].bytes, profile_id=fragments[1].bytes, revision=9)
    await service.deliver(FragmentsRemapped(mappings=[moved]))
    return fragments


async def rules(service: RunningService, revision: int, *given: tuple[str, str, int, int]) -> None:
    """Let svc-profile say which rules there are: event, purpose, days, action."""
    told = [
        pb.RetentionRule(rule_id=f"r{number}", event=event, purpose_id=purpose, days=days, action=action)  # type: ignore[arg-type]
        for number, (event, purpose, days, action) in enumerate(given)
    ]
    await service.deliver(pb.RetentionRulesChanged(retention_rules=told, revision=revision))


async def enforce(service: RunningService) -> None:
    """Let the clock strike."""
    await Retention(service.database, service.service.retained).run()


async def figures(service: RunningService) -> Sequence[Any]:
    """Return the key figures of each day."""
    request = metrics_pb2.QueryKpisRequest(start_date="2020-10-29", end_date="2020-11-05", currency="KRW")
    answer = await service.stub(MetricsServiceStub).QueryKpis(request)
    return list(answer.days)


async def rows(service: RunningService, sql: str, **given: Any) -> list[tuple[Any, ...]]:
    """Ask ClickHouse."""
    (store,) = [each for each in service.service.personal if isinstance(each, PersonalColumns)]
    return await store._clickhouse.rows(sql, **given)


async def test_figures_of_each_day_are_the_same_when_the_events_are_nobodys(service: RunningService) -> None:
    """And nothing of a customer is left: no fragment, no id of an order or a message, no properties."""
    fragments = await filled(service)
    before = await figures(service)
    assert sum(day.orders for day in before) > 10
    await rules(service, 1, ("*", "", PAST_ALL, pb.RETENTION_ACTION_ANONYMISE))
    stub = service.stub(RetentionReportServiceStub)
    preview = await stub.PreviewRetention(report_pb.PreviewRetentionRequest())
    assert [(each.service, each.rule_id, each.due_count) for each in preview.previews] == [("metrics", "r0", 300)]
    await enforce(service)
    assert await figures(service) == before
    left = "SELECT count() FROM events WHERE fragment_id IN {f:Array(UUID)} OR NOT anonymous"
    assert await rows(service, left, f=fragments) == [(0,)]
    texts = "SELECT countIf(message_id LIKE 'm%'), countIf(order_key LIKE 'oo%'), countIf(properties != '') FROM events"
    assert await rows(service, texts) == [(0, 0, 0)]
    (run,) = (await stub.ListRetentionRuns(report_pb.ListRetentionRunsRequest())).runs
    assert (run.touched_count, run.HasField("end_time")) == (300, True)
    await enforce(service)
    (again,) = (await stub.ListRetentionRuns(report_pb.ListRetentionRunsRequest())).runs
    assert (again.touched_count, again.total_count) == (0, 300)


async def test_a_run_that_died_between_its_two_steps_counts_nobody_twice(service: RunningService) -> None:
    """The salt of the run outlives the process, so what is done again is the same."""
    await filled(service)
    before = await figures(service)
    await rules(service, 1, ("*", "", PAST_ALL, pb.RETENTION_ACTION_ANONYMISE))
    async with service.database.transaction() as tx:
        (due,) = dues_of(await read_rules(tx), to_us(now()))
        _, salt = await begin(tx, due, "events")
        given = await given_for(tx, replace(due, salt=salt))
    for month in (202010, 202011):
        (store,) = service.service.retained
        assert isinstance(store, RetainedColumns)
        await store.leave({**given, "month": month})
    assert await figures(service) != before
    await enforce(service)
    assert await figures(service) == before


async def test_destroyed_events_are_gone_and_those_with_a_rule_of_their_own_stay(service: RunningService) -> None:
    """`*` is every name without one."""
    await filled(service)
    await rules(
        service,
        1,
        ("*", "", PAST_ALL, pb.RETENTION_ACTION_DESTROY),
        (COMPLETED, "", 36_500, pb.RETENTION_ACTION_DESTROY),
    )
    await enforce(service)
    assert await rows(service, "SELECT DISTINCT counted_name FROM events") == [(COMPLETED,)]


async def test_a_rule_of_a_purpose_is_about_those_who_have_not_granted_it(service: RunningService) -> None:
    """Of a purpose that is granted unless refused, and of one that is refused unless granted."""
    fragments = await filled(service)
    told = ConsentsChanged(
        fragment_ids=[fragments[2].bytes],
        refused_purpose_ids=["analytics"],
        granted_purpose_ids=["third_party"],
        revision=1,
    )
    await service.deliver(told)
    await rules(
        service,
        1,
        ("*", "analytics", PAST_ALL, pb.RETENTION_ACTION_DESTROY),
        (PRODUCT_VIEWED, "third_party", PAST_ALL, pb.RETENTION_ACTION_DESTROY),
    )
    await enforce(service)
    assert await rows(service, "SELECT count() FROM events WHERE fragment_id = {f:UUID}", f=fragments[2]) == [(0,)]
    ((others, views),) = await rows(
        service, "SELECT count(), countIf(counted_name = {v:String}) FROM events", v=PRODUCT_VIEWED
    )
    assert others > 100
    assert views == 0
