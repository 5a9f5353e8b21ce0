# SPDX-License-Identifier: Apache-2.0
"""The service through its door: events in by the stream, figures out by gRPC."""

import asyncio
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from random import Random
from typing import cast
from uuid import UUID, uuid4

import grpc
import pytest
from chassis.identity import Identifier, IdentityKey, format_profile_id
from chassis.testing import IDENTITY_KEY, RunningService
from dangol.events.v1.events_pb2 import EventBatch
from dangol.metrics.v1 import metrics_pb2 as pb
from dangol.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from dangol.operations.v1.operations_pb2 import ListAccessesRequest, TraceEventRequest
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub, TraceServiceStub
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from dangol.profile.v1.traits_pb2 import PersonalTraitsChanged
from dangol.segmentation.v1.segmentation_pb2 import MembershipChange, MembershipsChanged, SegmentDeleted, SegmentSaved
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chassis import dead_letters

from .histories import (
    CHECKOUT,
    COMPLETED,
    NAMES,
    PRODUCT_ADDED,
    PRODUCT_VIEWED,
    Happening,
    expected_kpis,
    expected_levels,
    moment,
    random_history,
)

SUBJECT = "events.resolved.0"
KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
DAY = "2026-11-10"


def fragment(user_id: str) -> UUID:
    """Return the fragment of a user id, as every service computes it."""
    return KEY.fragment_id(Identifier("user_id", user_id))


async def deliver(service: RunningService, *happenings: Happening, message_id: str | None = None) -> None:
    """Let events arrive as svc-profile sends them on."""
    batch = EventBatch(events=[happening.event() for happening in happenings])
    await service.deliver(batch, subject=SUBJECT, message_ids=[message_id] if message_id else None)


def change(segment: str, profile_id: UUID, *, member: bool = True, revision: int = 1) -> MembershipsChanged:
    """Return the news that a profile entered or left a segment."""
    changed = MembershipChange(
        segment_id=f"seg_{segment}", segment_name=segment, profile_id=profile_id.bytes, member=member, revision=revision
    )
    changed.change_time.FromMicroseconds(revision)
    return MembershipsChanged(changes=[changed])


async def refusal(call: Callable[[], grpc.aio.UnaryUnaryCall]) -> tuple[grpc.StatusCode, list[tuple[str, str]]]:
    """Return the status and the field violations that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call()
    bad = error_details_pb2.BadRequest()
    status = rpc_status.from_call(cast(grpc.Call, refused.value))
    for detail in status.details if status else ():
        detail.Unpack(bad)
    return refused.value.code(), [(v.field, v.description) for v in bad.field_violations]


async def test_what_comes_in_by_the_stream_goes_out_as_figures(service: RunningService) -> None:
    """Key figures and a funnel over a random history equal a plain computation of the same."""
    random = Random(11)
    history = random_history(random, count=400, customers=30, first="2026-11-09", last="2026-11-13")
    for start in range(0, 400, 50):
        await deliver(service, *history[start : start + 60])
    stub = service.stub(MetricsServiceStub)
    answer = await stub.QueryKpis(
        pb.QueryKpisRequest(start_date="2026-11-09", end_date="2026-11-12", time_zone="Asia/Seoul", currency="KRW")
    )
    days = [date(2026, 11, day) for day in range(9, 13)]
    each, total = expected_kpis(history, {}, days=days, zone="Asia/Seoul", currency="KRW")
    assert [day.date for day in answer.days] == [str(day) for day in days]
    for found, wanted in zip([*answer.days, answer.total], [*each, total], strict=True):
        assert (found.active_customers, found.events, found.orders, found.buyers) == (
            wanted.active_customers, wanted.events, wanted.orders, wanted.buyers,
        )  # fmt: skip
        assert found.revenue == pytest.approx(float(wanted.revenue))
        assert found.conversion == pytest.approx(wanted.conversion)
        assert found.average_order_value == pytest.approx(wanted.average_order_value)
    assert (answer.currency, answer.time_zone) == ("KRW", "Asia/Seoul")

    steps = [PRODUCT_VIEWED, PRODUCT_ADDED, COMPLETED]
    funnel = await stub.QueryFunnel(
        pb.QueryFunnelRequest(
            steps=[pb.FunnelStep(event=step) for step in steps], window_seconds=86_400,
            start_date="2026-11-08", end_date="2026-11-14",
        )
    )  # fmt: skip
    levels = expected_levels(history, {}, steps, 86_400_000_000)
    reached = [sum(n for level, n in levels.items() if level >= k) for k in (1, 2, 3)]
    assert [step.customers for step in funnel.steps] == reached
    assert [step.event for step in funnel.steps] == steps
    assert not funnel.steps[0].HasField("step_conversion")
    assert funnel.steps[2].total_conversion == pytest.approx(reached[2] / reached[0])


async def test_a_day_without_orders_has_no_average(service: RunningService) -> None:
    """Absent is not zero."""
    await deliver(service, Happening(uuid4(), moment(DAY), "page", "m1"))
    answer = await service.stub(MetricsServiceStub).QueryKpis(
        pb.QueryKpisRequest(start_date=DAY, end_date="2026-11-11")
    )
    quiet, busy = answer.days[1], answer.days[0]
    assert (busy.events, busy.conversion, busy.HasField("average_order_value")) == (1, 0.0, False)
    assert (quiet.events, quiet.HasField("conversion")) == (0, False)


async def test_a_segment_is_asked_for_by_name_until_it_is_deleted(service: RunningService) -> None:
    """Memberships are heard in any order; a name that nobody has is an answer of its own."""
    ana, bora = fragment("ana"), fragment("bora")
    await deliver(
        service,
        Happening(ana, moment(DAY), PRODUCT_VIEWED, "m1"),
        Happening(ana, moment(DAY) + 5, CHECKOUT, "m2"),
        Happening(bora, moment(DAY), PRODUCT_VIEWED, "m3"),
    )
    await service.deliver(
        change("loyal", bora, member=False, revision=2), change("loyal", bora, revision=1), change("loyal", ana)
    )
    stub = service.stub(MetricsServiceStub)
    kpis = pb.QueryKpisRequest(start_date=DAY, end_date=DAY, segment="loyal")
    steps = [pb.FunnelStep(event=PRODUCT_VIEWED), pb.FunnelStep(event=CHECKOUT)]
    funnel = pb.QueryFunnelRequest(steps=steps, start_date=DAY, end_date=DAY, segment="loyal")
    assert (await stub.QueryKpis(kpis)).total.active_customers == 1
    assert [step.customers for step in (await stub.QueryFunnel(funnel)).steps] == [1, 1]
    await service.deliver(SegmentDeleted(segment_id="seg_loyal", name="loyal"))
    assert (await refusal(lambda: stub.QueryKpis(kpis)))[0] == grpc.StatusCode.NOT_FOUND
    assert (await refusal(lambda: stub.QueryFunnel(funnel)))[0] == grpc.StatusCode.NOT_FOUND


async def test_a_segment_that_nobody_is_in_is_known_by_its_latest_name(service: RunningService) -> None:
    """Zero customers are an answer; whatever the order in which its names are heard, the latest holds."""
    for name, second in (("renamed", 2), ("first", 1)):
        await service.deliver(
            SegmentSaved(segment_id="seg_empty", name=name, rule_version=1, saved_time=Timestamp(seconds=second))
        )
    stub = service.stub(MetricsServiceStub)
    answer = await stub.QueryKpis(pb.QueryKpisRequest(start_date=DAY, end_date=DAY, segment="renamed"))
    assert answer.total.active_customers == 0
    old = pb.QueryKpisRequest(start_date=DAY, end_date=DAY, segment="first")
    assert (await refusal(lambda: stub.QueryKpis(old)))[0] == grpc.StatusCode.NOT_FOUND


async def test_two_customers_who_turn_out_to_be_one_count_once(service: RunningService) -> None:
    """A merge changes distinct counts and the timeline at once, the past included; a split changes them back."""
    web, app = fragment("web"), fragment("app")
    await deliver(service, Happening(web, moment(DAY), "page", "m1"), Happening(app, moment(DAY) + 7, COMPLETED, "m2"))
    stub = service.stub(MetricsServiceStub)

    async def active() -> int:
        answer = await stub.QueryKpis(pb.QueryKpisRequest(start_date=DAY, end_date=DAY))
        return int(answer.total.active_customers)

    assert await active() == 2
    mapping = FragmentMapping(fragment_id=app.bytes, profile_id=web.bytes, revision=2)
    await service.deliver(FragmentsRemapped(mappings=[mapping]))
    assert await active() == 1
    for reference in ("user_id:app", "user_id:web", format_profile_id(app), format_profile_id(web)):
        timeline = await stub.ListProfileEvents(pb.ListProfileEventsRequest(profile=reference))
        assert timeline.profile_id == format_profile_id(web)
        assert [event.message_id for event in timeline.events] == ["m2", "m1"]
    back = FragmentMapping(fragment_id=app.bytes, profile_id=app.bytes, revision=3)
    await service.deliver(FragmentsRemapped(mappings=[back]))
    assert await active() == 2


async def test_a_resolved_event_says_whose_it_is(service: RunningService) -> None:
    """The mapping that comes with an event counts without any other news."""
    web, app = fragment("web"), fragment("app")
    first = Happening(web, moment(DAY), "page", "m1").event()
    second = Happening(app, moment(DAY) + 9, "page", "m2").event(profile_id=web, revision=2)
    await service.deliver(EventBatch(events=[first, second]), subject=SUBJECT)
    answer = await service.stub(MetricsServiceStub).QueryKpis(pb.QueryKpisRequest(start_date=DAY, end_date=DAY))
    assert (answer.total.active_customers, answer.total.events) == (1, 2)


async def test_a_timeline_shows_what_the_client_sent(service: RunningService) -> None:
    """Types, names, times to the microsecond and properties, newest first, page by page."""
    ana = fragment("ana")
    at = moment("2026-11-10T03:00:00.123456")
    viewed = Happening(ana, at, PRODUCT_ADDED, "m1", properties={"상품": "신발", "price": 12000, "tags": ["a", None]})
    later = [Happening(ana, at + n, "page", f"m{n}") for n in range(2, 7)]
    await deliver(service, viewed, *later)
    stub = service.stub(MetricsServiceStub)
    seen: list[pb.ProfileEvent] = []
    request = pb.ListProfileEventsRequest(profile="user_id:ana", page_size=4)
    while True:
        page = await stub.ListProfileEvents(request)
        seen += page.events
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [event.message_id for event in seen] == ["m6", "m5", "m4", "m3", "m2", "m1"]
    last = seen[-1]
    assert (last.type, last.name) == ("track", PRODUCT_ADDED)
    assert (seen[0].type, seen[0].name) == ("page", "")
    assert last.event_time.ToMicroseconds() == at
    assert last.received_time.ToMicroseconds() == at + 1_000_000
    assert json_format.MessageToDict(last.properties) == {"상품": "신발", "price": 12000, "tags": ["a", None]}


async def test_a_timeline_masks_what_the_company_defined_as_personal(service: RunningService) -> None:
    """For callers who may not see what is personal; the highest revision holds, whatever comes after it."""
    viewed = Happening(
        fragment("ana"), moment(DAY), PRODUCT_ADDED, "m1", properties={"shoe_size": "비밀", "price": 12000}
    )
    await deliver(service, viewed)
    await service.deliver(PersonalTraitsChanged(names=["shoeSize"], revision=2))
    await service.deliver(PersonalTraitsChanged(names=[], revision=1))
    request = pb.ListProfileEventsRequest(profile="user_id:ana")

    async def seen(*scopes: str) -> object:
        (event,) = (await service.stub(MetricsServiceStub, scopes).ListProfileEvents(request)).events
        return json_format.MessageToDict(event.properties)

    deadline = time.monotonic() + 10
    while await seen("metrics.read") != {"shoe_size": "***", "price": 12000}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await seen("metrics.read", "metrics.pii") == {"shoe_size": "비밀", "price": 12000}


async def test_names_come_with_volumes(service: RunningService) -> None:
    """Most frequent first, Korean names included, as many as asked for."""
    at = moment(DAY)
    history = [Happening(uuid4(), at + n, NAMES[n % 4], f"m{n}") for n in range(10)]
    await deliver(service, *history)
    stub = service.stub(MetricsServiceStub)
    answer = await stub.ListEventNames(pb.ListEventNamesRequest())
    assert [(n.name, n.count) for n in answer.event_names] == [
        (PRODUCT_VIEWED, 3), (PRODUCT_ADDED, 3), (CHECKOUT, 2), (COMPLETED, 2)
    ]  # fmt: skip
    assert answer.event_names[0].first_seen_time.ToMicroseconds() == at
    assert answer.event_names[0].last_seen_time.ToMicroseconds() == at + 8
    assert len((await stub.ListEventNames(pb.ListEventNamesRequest(page_size=1))).event_names) == 1


async def test_a_redelivered_and_a_repeated_event_count_once(service: RunningService) -> None:
    """The same message again, the same events in another message, and twice in one message."""
    history = [Happening(fragment("ana"), moment(DAY) + n, COMPLETED, f"m{n}") for n in range(20)]
    await deliver(service, *history, *history[:5], message_id="first")
    await deliver(service, *history[10:])
    await deliver(service, *history[:15])
    stub = service.stub(MetricsServiceStub)
    total = (await stub.QueryKpis(pb.QueryKpisRequest(start_date=DAY, end_date=DAY))).total
    assert (total.events, total.orders, total.buyers) == (20, 20, 1)
    timeline = await stub.ListProfileEvents(pb.ListProfileEventsRequest(profile="user_id:ana"))
    assert len(timeline.events) == 20


async def test_a_message_that_cannot_be_counted_is_buried_alone(service: RunningService) -> None:
    """Events that nobody resolved do not hold up the others."""
    bad = Happening(uuid4(), moment(DAY), "page", "bad").event()
    bad.fragment_id = b""
    good = Happening(uuid4(), moment(DAY), "page", "good").event()
    await service.bus.publish(SUBJECT, EventBatch(events=[bad]).SerializeToString(), message_id="bad")
    await service.deliver(EventBatch(events=[good]), subject=SUBJECT)
    answer = await service.stub(MetricsServiceStub).QueryKpis(pb.QueryKpisRequest(start_date=DAY, end_date=DAY))
    assert answer.total.events == 1
    letters = await dead_letters.list_dead_letters(service.bus, consumer="metrics-events-resolved", after=0, limit=10)
    assert [letter.message_id for letter in letters] == ["bad"]


@pytest.mark.parametrize(
    ("request_fields", "field", "words"),
    [
        ({"start_date": "yesterday"}, "start_date", "must match"),
        ({"start_date": "2026-02-30", "end_date": "2026-03-01"}, "start_date", "calendar"),
        ({"start_date": "2026-03-02", "end_date": "2026-03-01"}, "start_date", "not be after"),
        ({"start_date": "2020-01-01", "end_date": "2026-03-01"}, "start_date", "at most 731"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "IANA"),
        ({"currency": "won"}, "currency", "must match"),
    ],
)
async def test_a_bad_question_is_told_which_field_and_rule(
    service_for_questions: RunningService, request_fields: dict[str, str], field: str, words: str
) -> None:
    """INVALID_ARGUMENT with the violation, for key figures."""
    stub = service_for_questions.stub(MetricsServiceStub)
    code, violations = await refusal(lambda: stub.QueryKpis(pb.QueryKpisRequest(**request_fields)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert violations[0][0] == field
    assert words in violations[0][1]


async def test_a_bad_funnel_or_reference_is_refused(service_for_questions: RunningService) -> None:
    """One step, no name, a wrong token, a reference that is none, and one that names nobody."""
    stub = service_for_questions.stub(MetricsServiceStub)
    one = pb.QueryFunnelRequest(steps=[pb.FunnelStep(event="a")])
    assert (await refusal(lambda: stub.QueryFunnel(one)))[1] == [("steps", "must be 2 to 20 steps")]
    unnamed = pb.QueryFunnelRequest(steps=[pb.FunnelStep(event="a"), pb.FunnelStep()])
    assert (await refusal(lambda: stub.QueryFunnel(unnamed)))[1][0][0] == "steps[1].event"
    token = pb.ListProfileEventsRequest(profile="user_id:ana", page_token="x")
    assert (await refusal(lambda: stub.ListProfileEvents(token)))[1][0][0] == "page_token"
    no_reference = pb.ListProfileEventsRequest(profile="ana")
    assert (await refusal(lambda: stub.ListProfileEvents(no_reference)))[1][0][0] == "profile"
    nobody = pb.ListProfileEventsRequest(profile="user_id:nobody")
    assert (await refusal(lambda: stub.ListProfileEvents(nobody)))[0] == grpc.StatusCode.NOT_FOUND


async def test_figures_need_the_scope(service_for_questions: RunningService) -> None:
    """A caller who may read profiles may not read figures."""
    stub = service_for_questions.stub(MetricsServiceStub, scopes=["profile.read"])
    code, _ = await refusal(lambda: stub.QueryKpis(pb.QueryKpisRequest()))
    assert code == grpc.StatusCode.PERMISSION_DENIED


async def test_the_truth_call_finds_the_row_of_an_event(service: RunningService) -> None:
    """Where svc-profile says that it is; and by the id alone, when svc-profile does not know it any more."""
    ana, time_us = fragment("truth-ana"), moment(f"{DAY} 10:00")
    order = Happening(ana, time_us, COMPLETED, "truth-1", amount=Decimal(29000))
    same_id = Happening(fragment("truth-ben"), time_us, PRODUCT_VIEWED, "truth-1", source="key_app")
    await deliver(service, order, same_id)
    stub = service.stub(TraceServiceStub)
    known = TraceEventRequest(message_id="truth-1")
    known.events.add(source=order.source, fragment_id=ana.bytes).event_time.FromMicroseconds(time_us)
    (step,) = (await stub.TraceEvent(known)).steps
    assert (step.service, step.source, step.outcome) == ("metrics", order.source, "COUNTED")
    assert (step.row.counted_name, step.row.revenue, step.row.currency) == (COMPLETED, 29000, "KRW")
    assert step.time.ToMicroseconds() == time_us + 1_000_000
    alone = (await stub.TraceEvent(TraceEventRequest(message_id="truth-1"))).steps
    assert [each.source for each in alone] == ["key_app", order.source]
    (app,) = (await stub.TraceEvent(TraceEventRequest(message_id="truth-1", source="key_app"))).steps
    assert (app.row.counted_name, app.row.currency) == (PRODUCT_VIEWED, "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.TraceEvent(TraceEventRequest(message_id="truth-2"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_access_log_is_asked_for_a_customer_under_all_names(service: RunningService) -> None:
    """Also for what was read under a name that turned out later to be the customer's."""
    for user in ("kim", "lee"):
        await deliver(service, Happening(fragment(user), moment(DAY), CHECKOUT, f"m-{user}"))
        request = pb.ListProfileEventsRequest(profile=f"user_id:{user}")
        await service.stub(MetricsServiceStub).ListProfileEvents(request)
    log, asked = service.stub(AccessLogServiceStub), ListAccessesRequest(profile="user_id:kim")
    before = [access.profile_id for access in (await log.ListAccesses(asked)).accesses]
    assert before == [format_profile_id(fragment("kim"))]
    mappings = [
        FragmentMapping(fragment_id=fragment(user).bytes, profile_id=fragment("kim").bytes, revision=1)
        for user in ("kim", "lee")
    ]
    await service.deliver(FragmentsRemapped(mappings=mappings))
    after = [access.profile_id for access in (await log.ListAccesses(asked)).accesses]
    assert after == [format_profile_id(fragment(user)) for user in ("lee", "kim")]
