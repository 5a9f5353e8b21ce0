# SPDX-License-Identifier: Apache-2.0
"""svc-profile's part of the truth call."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.identity import format_profile_id
from chassis.streams import Delivery
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType, RejectedEvent, RejectedEventBatch
from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub, TraceServiceStub
from dangol.profile.v1 import privacy_pb2
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from google.protobuf.json_format import MessageToDict
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer, event_key
from svc_profile.domain.fates import Fate
from svc_profile.settings import Settings
from svc_profile.store.events import EventStore

START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, personal_services=("profile",)) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"t{next(numbers)}"


def event(kind: str, *, at: int = 0, traits: Any = None, properties: Any = None, **fields: Any) -> Event:
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US + 1000,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "local-write", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def trace(service: RunningService, message_id: str, source: str = "", **stub: Any) -> pb.TraceEventResponse:
    request = pb.TraceEventRequest(message_id=message_id, source=source)
    answer: pb.TraceEventResponse = await service.stub(TraceServiceStub, **stub).TraceEvent(request)
    return answer


def told(answer: pb.TraceEventResponse) -> list[tuple[str, str]]:
    """Return phase and outcome of every step."""
    return [(pb.TracePhase.Name(step.phase).removeprefix("TRACE_PHASE_"), step.outcome) for step in answer.steps]


async def test_an_accepted_event_is_followed_to_the_traits_and_links_it_made(service: RunningService, tag: str) -> None:
    """Old and new value of each trait, in event time; the identifiers it ties together; whose it is now."""
    user, visitor = f"u-{tag}", f"d-{tag}"
    first = event("identify", user_id=user, traits={"city": "Busan", "plan": "free"})
    second = event("identify", at=1, user_id=user, anonymous_id=visitor, traits={"city": "Seoul", "plan": "free"})
    await collect(service, second, first)
    answer = await trace(service, second.message_id)
    assert told(answer) == [
        ("COLLECTED", "ACCEPTED"),
        ("IDENTITY", "LINKED"),
        ("TRAITS", "CHANGED"),
        ("TRAITS", "CONFIRMED"),
    ]
    assert {step.service for step in answer.steps} == {"profile"}
    (traced,) = answer.events
    assert (traced.source, traced.name) == ("local-write", "identify")
    assert traced.profile_id == format_profile_id(service.service.settings.identity().resolve(f"user_id:{user}"))
    link = answer.steps[1].link
    assert {link.namespace, link.linked_namespace, link.rule} == {"user_id", "anonymous_id", "same_event"}
    city = answer.steps[2].trait
    assert (city.name, city.old_value.string_value, city.new_value.string_value) == ("city", "Busan", "Seoul")
    assert answer.steps[2].detail == "it is the customer's value now"
    earlier = await trace(service, first.message_id)
    assert told(earlier) == [("COLLECTED", "ACCEPTED"), ("TRAITS", "CHANGED"), ("TRAITS", "CHANGED")]
    assert not earlier.steps[1].trait.HasField("old_value")
    assert earlier.steps[1].detail == "another event decides the value now"


async def test_the_same_message_id_of_two_sources_is_two_events(service: RunningService, tag: str) -> None:
    """Without a source every source that was ever heard of is tried."""
    web, app = (
        event("page", user_id=f"{source}-{tag}", source=source, message_id=f"same-{tag}")
        for source in ("local-write", "local-secret")
    )
    await collect(service, web, app)
    both = await trace(service, f"same-{tag}")
    assert [traced.source for traced in both.events] == ["local-secret", "local-write"]
    one = await trace(service, f"same-{tag}", "local-write")
    assert [traced.source for traced in one.events] == ["local-write"]


async def test_an_event_that_came_again_is_told_with_how_often(service: RunningService, tag: str) -> None:
    """Each message that brings it counts once, also when it is delivered twice; the event itself counts once."""
    visit = event("page", user_id=f"u-{tag}", anonymous_id=f"d-{tag}")
    late = event("page", user_id=f"u-{tag}", anonymous_id=f"d-{tag}", message_id=visit.message_id)
    late.received_time_us = visit.received_time_us + MINUTE_US
    other = event("page", user_id=f"u-{tag}")
    await collect(service, visit, other)
    assert told(await trace(service, visit.message_id)) == [("COLLECTED", "ACCEPTED"), ("IDENTITY", "LINKED")]
    first, second = EventBatch(events=[late, event("page", user_id=f"u-{tag}")]), EventBatch(events=[visit, visit])
    again = [
        Delivery(first, f"a-{tag}", "events.collected.1", 1, 1),
        Delivery(second, f"b-{tag}", "events.collected.1", 2, 1),
    ]
    for _ in range(2):
        async with service.database.transaction() as tx:
            await Collecting(Namer(service.service.settings.identity())).on_collected(tx, again)
    answer = await trace(service, visit.message_id)
    assert told(answer) == [("COLLECTED", "ACCEPTED"), ("COLLECTED", "REPEATED"), ("IDENTITY", "LINKED")]
    assert answer.steps[1].repetition.message_count == 2
    assert answer.steps[1].time.ToMicroseconds() == late.received_time_us
    assert answer.steps[0].time.ToMicroseconds() == visit.received_time_us
    assert told(await trace(service, other.message_id)) == [("COLLECTED", "ACCEPTED")]


async def test_an_event_twice_in_the_message_that_brought_it_is_a_repetition(service: RunningService, tag: str) -> None:
    twice = event("page", user_id=f"u-{tag}")
    await collect(service, twice, twice)
    answer = await trace(service, twice.message_id)
    assert [(step.outcome, step.repetition.message_count) for step in answer.steps] == [
        ("ACCEPTED", 0),
        ("REPEATED", 1),
    ]


async def test_a_rejected_event_is_told_with_its_reason(service: RunningService, tag: str) -> None:
    rejected = RejectedEvent(
        message_id=f"r-{tag}",
        source="shop",
        reason="EVENT_TOO_LARGE",
        detail="the event has 40000 bytes",
        position=3,
        received_time_us=START_US,
    )
    await service.deliver(RejectedEventBatch(events=[rejected]), subject="events.rejected")
    answer = await trace(service, f"r-{tag}")
    assert told(answer) == [("COLLECTED", "REJECTED")]
    assert (answer.steps[0].rejection.reason, answer.steps[0].rejection.position) == ("EVENT_TOO_LARGE", 3)
    assert answer.steps[0].source == "shop"


async def test_of_an_event_that_names_nobody_only_the_key_is_kept(service: RunningService, tag: str) -> None:
    nobodys = event("page", user_id="null")
    await collect(service, nobodys)
    answer = await trace(service, nobodys.message_id)
    assert told(answer) == [("COLLECTED", "REJECTED"), ("COLLECTED", "KEY_ONLY")]
    assert answer.steps[0].rejection.reason == "NO_USABLE_IDENTIFIER"
    assert not answer.events[0].fragment_id


async def test_why_an_event_is_not_kept_is_told(service: RunningService, tag: str) -> None:
    """Withheld for want of consent, or kept no longer."""
    stated = (Fate.WITHHELD, Fate.SUPPRESSED, Fate.EXPIRED)
    events = {fate: event("page", user_id=f"u-{tag}") for fate in stated}
    await collect(service, *events.values())
    async with service.database.transaction() as tx:
        for fate, each in events.items():
            await EventStore(tx).withhold([event_key(each.source, each.message_id)], fate)
    for fate, each in events.items():
        assert told(await trace(service, each.message_id)) == [("COLLECTED", fate.name)]


async def test_who_asks_about_an_event_is_in_the_access_log_of_its_customer(service: RunningService, tag: str) -> None:
    visit = event("page", user_id=f"u-{tag}")
    await collect(service, visit)
    await trace(service, visit.message_id)
    request = pb.ListAccessesRequest(profile=f"user_id:u-{tag}")
    (access,) = (await service.stub(AccessLogServiceStub).ListAccesses(request)).accesses
    assert (access.caller, access.method) == ("test", "dangol.operations.v1.TraceService.TraceEvent")


async def test_an_event_that_nobody_sent_is_not_found(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await trace(service, "never-sent")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_who_may_not_see_personal_data_is_told_the_path_without_it(service: RunningService, tag: str) -> None:
    """The steps stay, names and addresses are masked."""
    stated = event("identify", user_id=f"u-{tag}", traits={"email": f"{tag}@example.com", "city": "Seoul"})
    await collect(service, stated)
    answer = await trace(service, stated.message_id, scopes=["events.read"])
    assert ("TRAITS", "CHANGED") in told(answer)
    assert f"{tag}@" not in str(MessageToDict(answer))


async def test_an_event_of_somebody_who_refused_analytics_is_told_as_withheld(
    service: RunningService, tag: str
) -> None:
    """Neither what was sent nor whose it is can be told: only the key is kept."""
    refusal = {"consent": {"categoryPreferences": {"analytics": False}}}
    no = event("page", user_id=f"u-{tag}", context=json.dumps(refusal).encode())
    await collect(service, no)
    later = event("track", at=5, name="Product Viewed", user_id=f"u-{tag}", properties={"sku": "secret"})
    await collect(service, later)
    answer = await trace(service, later.message_id)
    assert told(answer) == [("COLLECTED", "WITHHELD")]
    assert not answer.events[0].fragment_id
    assert "secret" not in str(answer)


async def test_of_an_erased_customer_s_event_nothing_is_told_but_that(service: RunningService, tag: str) -> None:
    visit = event("page", user_id=f"u-{tag}")
    await collect(service, visit, visit)
    kind = privacy_pb2.DATA_REQUEST_KIND_ERASE
    privacy = service.stub(PrivacyServiceStub)
    filed = privacy_pb2.CreateDataRequestRequest(profile=f"user_id:u-{tag}", kind=kind)
    request_id = (await privacy.CreateDataRequest(filed)).data_request.data_request_id
    asking = privacy_pb2.GetDataRequestRequest(data_request_id=request_id)
    async with asyncio.timeout(60):
        while not (await privacy.GetDataRequest(asking)).data_request.HasField("done_time"):
            await asyncio.sleep(0.05)
    answer = await trace(service, visit.message_id)
    assert told(answer) == [("COLLECTED", "ERASED")]
    assert answer.events == [pb.TracedEvent(message_id=visit.message_id, source=visit.source)]
    assert not answer.steps[0].HasField("time")
