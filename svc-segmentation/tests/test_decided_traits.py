# SPDX-License-Identifier: Apache-2.0
"""Traits about which svc-profile decides mean the same in rules as they do in profiles."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import msgspec
import pytest
from chassis.identity import Identifier, IdentityKey, format_profile_id
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1.identity_pb2 import FORGET_REASON_ERASED, FragmentsForgotten
from dangol.profile.v1.traits_pb2 import FragmentTraits, TraitsFolded
from dangol.segmentation.v1 import segmentation_pb2 as pb
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, evaluation_pause_ms=1) as service:
        yield service


def fragment(user: str) -> UUID:
    return KEY.fragment_id(Identifier("user_id", user))


async def state(service: RunningService, user: str, profile: str, at: int, traits: Mapping[str, Any]) -> None:
    """Let an identifier of a customer state traits."""
    event = Event(
        type=EventType.EVENT_TYPE_IDENTIFY,
        message_id=f"{user}-{at}",
        source="web",
        time_us=at,
        fragment_id=fragment(user).bytes,
        profile_id=fragment(profile).bytes,
        mapping_revision=1,
        traits=msgspec.json.encode(traits),
    )
    await service.deliver(EventBatch(events=[event]), subject="events.resolved.0")


async def decide(service: RunningService, user: str, revision: int, traits: Mapping[str, Any]) -> None:
    told = FragmentTraits(fragment_id=fragment(user).bytes, revision=revision, traits=msgspec.json.encode(dict(traits)))
    await service.deliver(TraitsFolded(fragments=[told]))


async def holds(service: RunningService, rule: str, profile: str) -> bool:
    preview = await service.stub(SegmentationServiceStub).PreviewSegment(
        pb.PreviewSegmentRequest(rule=rule, sample_size=100)
    )
    return format_profile_id(fragment(profile)) in preview.sample_profile_ids


async def test_the_greatest_order_wins_over_what_was_stated_last(service: RunningService) -> None:
    """Also over all identifiers of a customer; where nothing was decided, the latest statement counts."""
    await state(service, "a1", "a1", 5, {"plan": "tin", "city": "Seoul"})
    await state(service, "a2", "a1", 6, {"plan": "zinc"})
    await decide(service, "a1", 1, {"plan": ["gold", -1, "a"]})
    await decide(service, "a2", 2, {"plan": ["silver", -2, "b"]})
    assert await holds(service, "traits.plan == 'gold' && traits.city == 'Seoul'", "a1")
    await decide(service, "a1", 3, {"plan": None})
    assert await holds(service, "traits.plan == 'silver'", "a1")
    await decide(service, "a1", 4, {})
    await decide(service, "a2", 5, {})
    assert await holds(service, "traits.plan == 'zinc'", "a1")


async def test_sums_and_unions_are_added_up(service: RunningService) -> None:
    for number, (user, points, tags) in enumerate([("b1", 0.1, ["x", "y"]), ("b2", 0.2, ["z", "x"]), ("b3", 5, [1])]):
        await state(service, user, "b1", number, {"points": 99, "tags": "none"})
        decided = {"points": [points, number, "k", "SUM"], "tags": [tags, number, "k", "UNION"]}
        await decide(service, user, 10 + number, decided)
    assert await holds(service, "traits.points > 5.29 && traits.points < 5.31", "b1")
    assert await holds(service, "size(traits.tags) == 4 && 'z' in traits.tags && traits.tags[0] == 'x'", "b1")


async def test_an_older_decision_that_comes_late_changes_nothing(service: RunningService) -> None:
    await state(service, "c1", "c1", 1, {"plan": "tin"})
    await decide(service, "c1", 21, {"plan": ["gold", 1, "a"]})
    await decide(service, "c1", 20, {"plan": ["silver", 2, "b"]})
    assert await holds(service, "traits.plan == 'gold'", "c1")


async def test_a_decision_moves_a_customer_into_a_segment(service: RunningService) -> None:
    """Nobody has to wait for the next event."""
    stub = service.stub(SegmentationServiceStub)
    await state(service, "d1", "d1", 1, {"level": 1})
    await stub.CreateSegment(pb.CreateSegmentRequest(segment=pb.Segment(name="high", rule="traits.level > 5")))
    await decide(service, "d1", 30, {"level": [9, 1, "a"]})
    async with service.database.snapshot() as tx:
        while await tx.value("SELECT EXISTS (SELECT FROM changed_fragments)"):
            pass
    listed = await stub.ListProfileSegments(pb.ListProfileSegmentsRequest(profile="user_id:d1"))
    assert [segment.name for segment in listed.segments] == ["high"]


async def test_a_decision_does_not_bring_an_erased_customer_back(service: RunningService) -> None:
    await state(service, "e1", "e1", 1, {"plan": "tin"})
    forgotten = FragmentsForgotten(fragment_ids=[fragment("e1").bytes], reason=FORGET_REASON_ERASED)
    await service.deliver(forgotten)
    await decide(service, "e1", 40, {"plan": ["gold", 1, "a"]})
    async with service.database.snapshot() as tx:
        assert not await tx.value("SELECT count(*) FROM fragment_traits WHERE fragment_id = :id", id=fragment("e1"))
