# SPDX-License-Identifier: Apache-2.0
"""svc-feedback through its stream door."""

from collections.abc import AsyncIterator
from uuid import uuid4

import grpc
import msgspec
import pytest
from chassis.identity import Identifier, IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.feedback.v1 import feedback_pb2 as pb
from dangol.feedback.v1.feedback_pb2_grpc import FeedbackServiceStub
from dangol.operations.v1.operations_pb2 import TracedEvent, TraceEventRequest
from dangol.operations.v1.operations_pb2_grpc import TraceServiceStub
from svc_feedback.app import build
from svc_feedback.settings import Settings

FRAGMENT = IdentityKey(bytes.fromhex(IDENTITY_KEY)).fragment_id(Identifier("user_id", "cho"))


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as started:
        yield started


def reviewed(
    message_id: str, item_id: str, text: str = "색이 예쁘고 튼튼해요", name: str = "Product Reviewed"
) -> Event:
    properties = {"product_id": item_id, "rating": 5, "review_body": "색이 예쁘고 튼튼해요"}
    return Event(
        message_id=message_id,
        source="web",
        type=EventType.EVENT_TYPE_TRACK,
        name=name,
        time_us=1_700_000_000_000_000,
        properties=msgspec.json.encode(properties),
        fragment_id=FRAGMENT.bytes,
        profile_id=FRAGMENT.bytes,
        mapping_revision=1,
    )


async def kept(service: RunningService, item_id: str) -> list[pb.Feedback]:
    answer = await service.stub(FeedbackServiceStub).ListFeedback(pb.ListFeedbackRequest(item_id=item_id))
    return list(answer.feedback)


async def test_keeps_the_reviews_among_the_events(service: RunningService) -> None:
    batch = EventBatch(events=[reviewed("m1", "a"), reviewed("m2", "a", name="Product Viewed")])
    await service.deliver(batch, subject="events.resolved.0")
    (review,) = await kept(service, "a")
    assert (review.rating, review.language, review.source) == (5, "ko", "web")
    assert review.sentiment.label == pb.SentimentLabel.SENTIMENT_LABEL_POSITIVE
    listed = await service.stub(FeedbackServiceStub).ListFeedback(pb.ListFeedbackRequest(profile="user_id:cho"))
    assert review in listed.feedback


async def test_keeps_and_announces_a_review_once_however_often_it_comes(service: RunningService) -> None:
    """The same message, and the same event in another message."""
    batch = EventBatch(events=[reviewed("m3", "b")])
    await service.deliver(batch, subject="events.resolved.0", message_ids=["one"])
    await service.deliver(batch, batch, subject="events.resolved.1", message_ids=[str(uuid4()), str(uuid4())])
    (review,) = await kept(service, "b")
    announced = [m.feedback_id for m in await service.published(pb.FeedbackRecorded)]
    assert announced.count(review.feedback_id) == 1


async def test_rubbish_in_a_review_does_no_harm(service: RunningService) -> None:
    """Properties that are no object, a text that is no text: the others in the batch are kept."""
    broken = reviewed("m4", "c")
    broken.properties = b"[1, 2"
    number = reviewed("m5", "c")
    number.properties = b'{"product_id": "c", "review_body": 5}'
    await service.deliver(EventBatch(events=[broken, number, reviewed("m6", "c")]), subject="events.resolved.0")
    assert [review.text for review in await kept(service, "c")] == ["색이 예쁘고 튼튼해요"]


async def test_the_truth_call_tells_what_was_understood(service: RunningService) -> None:
    """By source and message id; the same id of another source is another event."""
    await service.deliver(EventBatch(events=[reviewed("m7", "d")]), subject="events.resolved.0")
    stub = service.stub(TraceServiceStub)
    (step,) = (await stub.TraceEvent(TraceEventRequest(message_id="m7", source="web"))).steps
    assert (step.service, step.source, step.outcome) == ("feedback", "web", "ANALYSED")
    assert (step.feedback.language, step.feedback.sentiment) == ("ko", "POSITIVE")
    assert step.feedback.feedback_id == (await kept(service, "d"))[0].feedback_id
    known = TraceEventRequest(message_id="m7", events=[TracedEvent(source="web"), TracedEvent(source="app")])
    assert [each.source for each in (await stub.TraceEvent(known)).steps] == ["web"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.TraceEvent(TraceEventRequest(message_id="m7", source="app"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
