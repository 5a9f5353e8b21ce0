# SPDX-License-Identifier: Apache-2.0
"""Which segments customers would be in if they were made of other fragments."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import grpc
import pytest
from chassis.identity import format_profile_id
from chassis.testing import Engines, running
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped, ProfilePlacement
from dangol.segmentation.v1 import segmentation_pb2 as pb
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

from .test_service import DAY, START, Clock, Shop, fragment, identify, prf, refused, track, violations

RULES = {
    "buyer": "count('Order Completed') >= 1",
    "once": "count('Order Completed') == 1",
    "regular": "segment('buyer') && count('Order Completed') >= 2",
    "seoul-regular": "segment('regular') && traits.city == 'Seoul'",
    "silent": "count('Order Completed') == 0",
}


@pytest.fixture
async def shop(engines: Engines) -> AsyncIterator[Shop]:
    clock = Clock()
    async with running(partial(build, clock=clock), Settings, engines, evaluation_pause_ms=1) as service:
        shop = Shop(service, clock)
        for name, rule in RULES.items():
            await shop.create(name, rule)
        yield shop


def placed(profile: str, *others: str) -> ProfilePlacement:
    """Make a customer of fragments."""
    fragments = [fragment(user).bytes for user in (profile, *others)]
    return ProfilePlacement(profile_id=prf(profile), fragment_ids=fragments)


async def preview(shop: Shop, *placements: ProfilePlacement) -> dict[str, list[str]]:
    """Return the names of the segments that customers would be in, by profile id."""
    answer = await _ask(shop, placements)
    return {profile.profile_id: [segment.name for segment in profile.segments] for profile in answer.profiles}


async def _ask(shop: Shop, placements: Sequence[ProfilePlacement]) -> pb.PreviewMembershipsResponse:
    answer: pb.PreviewMembershipsResponse = await shop.stub.PreviewMemberships(
        pb.PreviewMembershipsRequest(placements=placements)
    )
    return answer


async def everything(shop: Shop) -> list[list[Any]]:
    """Read all that a preview might have changed."""
    tables = "fragment_profiles", "memberships", "membership_history", "due_profiles", "changed_fragments", "outbox"
    async with shop.service.database.snapshot() as tx:
        return [list(await tx.rows(f"SELECT * FROM {table} AS t ORDER BY t")) for table in tables]


async def test_a_whole_is_judged_as_a_whole_and_nothing_changes(shop: Shop) -> None:
    """What is true of each part alone is not carried over, and what only both make true is found."""
    await shop.hear(
        track("ana", "Order Completed"), identify("ana", {"city": "Seoul"}), track("web", "Order Completed")
    )
    before, announced = await everything(shop), await shop.changes()
    assert await preview(shop, placed("ana"), placed("web")) == {
        prf("ana"): ["buyer", "once"],
        prf("web"): ["buyer", "once"],
    }
    assert await preview(shop, placed("web", "ana")) == {prf("web"): ["buyer", "regular", "seoul-regular"]}
    await shop.evaluated()
    assert (await everything(shop), await shop.changes()) == (before, announced)
    assert await shop.segments_of("ana") == ["buyer", "once"]


async def test_a_part_that_would_leave_is_judged_alone(shop: Shop) -> None:
    """Also a part of which nothing is known here: with others it brings nothing, alone it is a customer who is new."""
    await shop.hear(track("ana", "Order Completed"), track("web", "Order Completed", profile="ana"))
    assert await shop.segments_of("ana") == ["buyer", "regular"]
    assert await preview(shop, placed("ana", "mail"), placed("web")) == {
        prf("ana"): ["buyer", "once"],
        prf("web"): ["buyer", "once"],
    }
    assert await preview(shop, placed("ana", "web"), placed("mail")) == {
        prf("ana"): ["buyer", "regular"],
        prf("mail"): ["silent"],
    }
    assert await preview(shop, placed("web")) == {prf("web"): ["buyer", "once"]}
    assert await shop.segments_of("ana") == ["buyer", "regular"]


async def test_a_preview_says_what_the_merge_then_brings(shop: Shop) -> None:
    """The same names, and since when: as long as any part was in it, or not yet."""
    await shop.hear(track("ana", "Order Completed"))
    await shop.pass_time(DAY)
    await shop.hear(track("web", "Order Completed"))
    await shop.pass_time(DAY)
    [would] = (await _ask(shop, [placed("web", "ana")])).profiles
    since = {s.name: s.HasField("entered_time") and s.entered_time.ToDatetime(START.tzinfo) for s in would.segments}
    assert since == {"buyer": START, "regular": False}
    assert {segment.rule_version for segment in would.segments} == {1}
    mapping = FragmentMapping(fragment_id=fragment("ana").bytes, profile_id=fragment("web").bytes, revision=2)
    await shop.service.deliver(FragmentsRemapped(mappings=[mapping]))
    await shop.evaluated()
    assert await shop.segments_of("web") == list(since)


async def test_what_cannot_be_placed_is_refused_with_its_place(shop: Shop) -> None:
    await shop.hear(track("ana", "Order Completed"))
    short = ProfilePlacement(profile_id=prf("ana"), fragment_ids=[fragment("ana").bytes, b"short"])
    stranger = ProfilePlacement(profile_id=prf("ben"), fragment_ids=[fragment("ana").bytes])
    nobody = ProfilePlacement(profile_id="somebody", fragment_ids=[fragment("ana").bytes])
    many = ProfilePlacement(profile_id=prf("ana"), fragment_ids=[number.to_bytes(16) for number in range(100_001)])
    wrong: list[tuple[list[ProfilePlacement], str, str]] = [
        ([], "placements", "is required"),
        ([ProfilePlacement(profile_id=prf("ana"))], "placements[0].fragment_ids", "is required"),
        ([placed("ben"), short], "placements[1].fragment_ids[1]", "a fragment has 16 bytes"),
        ([placed("ana", "web", "ana")], "placements[0].fragment_ids[2]", "the fragment is given twice"),
        ([placed("ana"), placed("web", "ana")], "placements[1].fragment_ids[1]", "the fragment is given twice"),
        ([placed("ana"), placed("ana")], "placements[1].fragment_ids[0]", "the fragment is given twice"),
        ([stranger], "placements[0].profile_id", "must be one of the fragments: the one that names the customer"),
        ([many], "placements", "have more than 100000 fragments in all"),
        (
            [placed(f"user-{number}") for number in range(101)],
            "placements",
            "has 101 elements, at most 100 are allowed",
        ),
    ]
    for placements, field, rule in wrong:
        error = await refused(lambda placements=placements: _ask(shop, placements))  # type: ignore[misc]
        assert (error.code(), violations(error)) == (grpc.StatusCode.INVALID_ARGUMENT, {field: rule})
    error = await refused(lambda: _ask(shop, [nobody]))
    assert violations(error)["placements[0].profile_id"].startswith("a profile id is prf_ and 26 characters")
    error = await refused(lambda: _ask(shop, [placed("ben"), placed("cho")]))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "svc-segmentation has not heard of any of these fragments",
    )


async def test_only_who_may_decide_may_ask_and_the_access_log_names_the_customers(shop: Shop) -> None:
    await shop.hear(track("ana", "Order Completed"), track("web", "Order Completed"))
    reader = shop.service.stub(SegmentationServiceStub, ["segmentation.read", "segmentation.write"])
    request = pb.PreviewMembershipsRequest(placements=[placed("ana", "web")])
    error = await refused(lambda: reader.PreviewMemberships(request))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await shop.service.stub(SegmentationServiceStub, ["identity.write"]).PreviewMemberships(request)
    async with shop.service.database.snapshot() as tx:
        rows = await tx.rows(
            "SELECT fragment_id FROM access_log WHERE method LIKE '%PreviewMemberships' AND fragment_id IS NOT NULL"
        )
    assert {format_profile_id(row.fragment_id) for row in rows} == {prf("ana")}
