# SPDX-License-Identifier: Apache-2.0
"""svc-recommend's part of the truth call: the interactions that an event adds to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc
import pytest
from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import TraceServiceStub
from google.protobuf.json_format import ParseDict

if TYPE_CHECKING:
    from dangol.events.v1.events_pb2 import Event

    from .conftest import Shop


def about(event: Event) -> pb.TraceEventRequest:
    """Ask as the gateway does, with what svc-profile knows of the event."""
    request = pb.TraceEventRequest(message_id=event.message_id)
    traced = request.events.add(source=event.source, name=event.name, fragment_id=event.fragment_id)
    ParseDict(json.loads(event.properties), traced.properties)
    return request


async def test_every_item_of_an_order_is_told_with_what_it_adds(shop: Shop) -> None:
    order = shop.event("ana", "Order Completed", "a", "b")
    await shop.happen(order)
    answer = await shop.service.stub(TraceServiceStub).TraceEvent(about(order))
    facts = {(step.interaction.item_id, step.interaction.kind, step.interaction.weight) for step in answer.steps}
    assert facts == {("a", "BOUGHT", 5), ("b", "BOUGHT", 5)}
    assert {(step.service, step.source, step.outcome) for step in answer.steps} == {("recommend", "web", "FED")}


async def test_an_event_that_was_not_heard_feeds_nothing(shop: Shop) -> None:
    """Nor does one of a name that says nothing about items."""
    await shop.happen(shop.event("ana", "Product Viewed", "a"))
    for event in (shop.event("ben", "Product Viewed", "a"), shop.event("ana", "Searched", "a")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shop.service.stub(TraceServiceStub).TraceEvent(about(event))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
