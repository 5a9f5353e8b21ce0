# SPDX-License-Identifier: Apache-2.0
"""The released, unmodified clients of Segment and RudderStack against the gateway: every case for each of the five."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from chassis.testing import Engines, RunningService, running
from dangol.events.v1 import events_pb2 as pb
from dangol.profile.v1.profile_pb2 import GetProfileRequest
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from svc_profile.app import build as build_profile
from svc_profile.settings import Settings as ProfileSettings

from .conftest import WRITE, RunningGateway, running_gateway
from .released import RELEASED, Released
from .wire import Wire, wire_to


@pytest.fixture(params=RELEASED, ids=lambda released: released.name)
def client(request: pytest.FixtureRequest) -> Released:
    """Return each of the five packages."""
    released: Released = request.param
    return released


@pytest.fixture
async def wire(gateway: RunningGateway) -> AsyncIterator[Wire]:
    """Stand between the client and the gateway."""
    async with wire_to(gateway.url) as started:
        yield started


@pytest.fixture(scope="module")
async def whole(engines: Engines) -> AsyncIterator[tuple[RunningGateway, RunningService]]:
    """Run a gateway and the service that keeps events, on the same streams."""
    shared: dict[str, Any] = {"stream_prefix": "once.", "event_shards": 2}
    async with (
        running(build_profile, ProfileSettings, engines, **shared) as profile,
        running_gateway(engines.nats_url, **shared, profile_address=profile.target) as gateway,
    ):
        yield gateway, profile


def counted(events: list[Any]) -> tuple[int, int]:
    """Return how many events there are, and how many different ones."""
    return len(events), len({event.message_id for event in events})


async def test_every_call_arrives_once_as_it_was_made(gateway: RunningGateway, wire: Wire, client: Released) -> None:
    """All six calls; Korean text and emoji, null members, a numeric id, an id of nobody known, alias."""
    assert await client.run(wire.url, WRITE, "everything") == []
    events = await gateway.collected()
    assert sorted(event.type for event in events) == [1, 2, 2, 3, 4, 5, 6]
    assert counted(events) == (7, 7)
    by_type = {event.type: event for event in events if event.name != "Viewed"}
    order = by_type[pb.EVENT_TYPE_TRACK]
    assert json.loads(by_type[pb.EVENT_TYPE_IDENTIFY].traits) == {"city": "서울", "emoji": "🍊", "none": None}
    assert (order.name, order.user_id) == ("주문 완료", "42")
    assert json.loads(order.properties) == {"revenue": 12900.5, "none": None}
    assert (by_type[pb.EVENT_TYPE_PAGE].name, by_type[pb.EVENT_TYPE_PAGE].category) == ("Home", "shop")
    assert by_type[pb.EVENT_TYPE_SCREEN].name == "Cart"
    assert by_type[pb.EVENT_TYPE_GROUP].group_id == "7"
    alias = by_type[pb.EVENT_TYPE_ALIAS]
    assert (alias.previous_id, alias.user_id) == ("visitor-1", "known-1")
    (viewed,) = (event for event in events if event.name == "Viewed")
    assert (viewed.anonymous_id, viewed.user_id) == ("visitor-1", "")
    assert all(event.message_id and event.sent_time_us and event.original_time_us for event in events)
    assert await gateway.rejected() == []


async def test_success_is_200_with_a_body_so_that_nobody_sends_twice(
    gateway: RunningGateway, wire: Wire, client: Released
) -> None:
    """204 would make three of the five send everything again, ten times."""
    assert await client.run(wire.url, WRITE, "many") == []
    assert set(wire.statuses) == {200}
    assert all(json.loads(exchange.answer)["success"] is True for exchange in wire.exchanges)
    assert sum(len(exchange.sent["batch"]) for exchange in wire.exchanges) == 501
    assert counted(await gateway.collected()) == (501, 501)


async def test_a_body_is_read_compressed_or_not(gateway: RunningGateway, wire: Wire, client: Released) -> None:
    """As the client does it by itself, and the other way where it has a choice."""
    assert await client.run(wire.url, WRITE, "large") == []
    assert {exchange.is_gzip for exchange in wire.exchanges} == {client.gzip is True}
    if client.gzip is not None:
        wire.exchanges.clear()
        assert await client.run(wire.url, WRITE, "large", gzip=not client.gzip) == []
        assert {exchange.is_gzip for exchange in wire.exchanges} == {not client.gzip}
    assert {event.name for event in await gateway.collected()} == {"Small"}


async def test_the_key_is_found_where_the_client_puts_it(gateway: RunningGateway, wire: Wire, client: Released) -> None:
    """The widely pinned Python client sends its key in the body alone."""
    assert await client.run(wire.url, WRITE, "order:customer-1") == []
    for exchange in wire.exchanges:
        assert ("authorization" in exchange.headers) is client.has_key_in_header
        assert exchange.sent.get("writeKey") in ((WRITE, None) if client.has_key_in_header else (WRITE,))
    assert counted(await gateway.collected()) == (2, 2)


async def test_an_unknown_key_is_told_once_and_not_tried_again(
    gateway: RunningGateway, wire: Wire, client: Released
) -> None:
    assert await client.run(wire.url, "unknown", "large") != []
    assert set(wire.statuses) == {401}
    assert json.loads(wire.exchanges[0].answer).keys() == {"code", "message"}
    tried = [event["messageId"] for exchange in wire.exchanges for event in exchange.sent["batch"]]
    assert len(tried) == len(set(tried))
    assert await gateway.collected() == []


async def test_a_client_that_is_too_fast_is_told_when_to_come_back_and_loses_nothing(
    gateway: RunningGateway, wire: Wire, client: Released
) -> None:
    assert await client.run(wire.url, "paced-key", "paced") == []
    assert counted(await gateway.collected()) == (3, 3)
    assert set(wire.statuses) == {200, 429}
    for refused, following in pairwise(wire.exchanges):
        if refused.status == 429:
            assert 1 <= refused.retry_after <= 300
            if client.heeds_retry_after:
                assert following.began - refused.began >= refused.retry_after


async def test_answers_that_are_lost_leave_each_event_in_the_store_exactly_once(
    whole: tuple[RunningGateway, RunningService], client: Released
) -> None:
    """The gateway has stored the events, the client hears 503 twice, and sends them again until it hears 200."""
    gateway, profile = whole
    customer = f"customer-of-{client.name}"
    async with wire_to(gateway.url, losses=2) as wire:
        assert await client.run(wire.url, WRITE, f"order:{customer}") == []
    await profile.settled()
    assert len(wire.exchanges) > 2
    copies = [event for event in await gateway.collected() if event.user_id == customer]
    assert counted(copies) == (len(copies), 2)
    assert len(copies) > 2
    stub = profile.stub(ProfileServiceStub)
    answer = await stub.GetProfile(GetProfileRequest(profile=f"user_id:{customer}"))
    assert dict(answer.profile.event_counts) == {"identify": 1, "Order Completed": 1}


async def test_an_event_of_33_kb_costs_only_itself(gateway: RunningGateway, wire: Wire, client: Released) -> None:
    """Some releases drop it themselves, others send it."""
    assert await client.run(wire.url, WRITE, "large") == []
    assert [event.name for event in await gateway.collected()] == ["Small"]
    assert {event.reason for event in await gateway.rejected()} <= {"EVENT_TOO_LARGE"}
    assert set(wire.statuses) == {200}


async def test_2501_events_lose_at_most_the_last_one_and_are_not_sent_again(
    gateway: RunningGateway, wire: Wire, client: Released
) -> None:
    """A client that can sends them as one batch; the others cut it where their own limits are."""
    assert await client.run(wire.url, WRITE, "too_many", **client.one_batch) == []
    taken, refused = await gateway.collected(), await gateway.rejected()
    longest = max(len(exchange.sent["batch"]) for exchange in wire.exchanges)
    assert counted([*taken, *refused]) == (2501, 2501)
    assert [event.reason for event in refused] == ["BATCH_TOO_LONG"] * (longest - 2500 if longest > 2500 else 0)
    assert set(wire.statuses) == {200}


@pytest.mark.parametrize("name", ["segment-python-2.4.0", "rudder-python-2.1.9"])
async def test_not_a_number_does_not_cost_the_batch(gateway: RunningGateway, name: str) -> None:
    """Python writes NaN where JSON has none."""
    (released,) = (one for one in RELEASED if one.name == name)
    assert await released.run(gateway.url, WRITE, "not_a_number") == []
    (event,) = await gateway.collected()
    assert json.loads(event.properties) == {"x": None, "y": 1}
