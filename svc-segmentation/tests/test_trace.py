# SPDX-License-Identifier: Apache-2.0
"""svc-segmentation's part of the truth call: what changed shortly after an event."""

from datetime import timedelta
from typing import Any

import grpc
import pytest
from chassis.clock import to_timestamp
from dangol.events.v1.events_pb2 import Event
from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import TraceServiceStub

from .test_service import START, Shop, fragment, shop, track

__all__ = ["shop"]


def about(*events: Event, received: Any = START) -> pb.TraceEventRequest:
    """Ask as the gateway does, with what svc-profile knows of the events."""
    request = pb.TraceEventRequest(message_id=events[0].message_id)
    for event in events:
        traced = request.events.add(message_id=event.message_id, source=event.source, fragment_id=event.fragment_id)
        traced.received_time.CopyFrom(to_timestamp(received))
    return request


async def steps(shop: Shop, request: pb.TraceEventRequest) -> list[tuple[str, str, str]]:
    answer = await shop.service.stub(TraceServiceStub).TraceEvent(request)
    return [(step.source, step.outcome, step.segment.name) for step in answer.steps]


async def test_the_segments_that_an_event_may_have_changed_are_told(shop: Shop) -> None:
    """Those of its customer, of the minute after it was received, in the order in which they changed."""
    await shop.create("visitors", "count('Visited') >= 1")
    await shop.create("newcomers", "count('Visited') < 2 && count('Visited') > 0")
    first, other = track("ana", "Visited"), track("ben", "Visited")
    await shop.hear(first, other)
    assert sorted(await steps(shop, about(first))) == [
        (first.source, "ENTERED", "newcomers"),
        (first.source, "ENTERED", "visitors"),
    ]
    shop.clock.now += timedelta(minutes=2)
    second = track("ana", "Visited")
    await shop.hear(second)
    assert await steps(shop, about(second, received=shop.clock.now)) == [(second.source, "LEFT", "newcomers")]


async def test_of_an_event_that_changed_nothing_nothing_is_known(shop: Shop) -> None:
    """Too long ago, of somebody else, or not known to svc-profile."""
    await shop.create("visitors", "count('Visited') >= 1")
    visit = track("ana", "Visited")
    await shop.hear(visit)
    stranger = Event(message_id="m", source="web", fragment_id=fragment("nobody").bytes)
    for request in (
        about(visit, received=START - timedelta(minutes=2)),
        about(stranger),
        pb.TraceEventRequest(message_id=visit.message_id),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await steps(shop, request)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
