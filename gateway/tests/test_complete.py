# SPDX-License-Identifier: Apache-2.0
"""An answer of one service, completed by what another one knows about it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from chassis.errors import Invalid
from chassis.rpc import Servicer
from dangol.profile.v1 import identity_pb2, identity_pb2_grpc, profile_pb2
from dangol.segmentation.v1 import segmentation_pb2, segmentation_pb2_grpc
from gateway.transcode import contract

from .conftest import SECRET, RunningGateway, gateway_before

AUTH = {"authorization": f"Bearer {SECRET}"}
UNION, TRUE = ["one", "two"], ["whole"]


class _Identity(identity_pb2_grpc.IdentityServiceServicer):
    """Would make two customers of anybody, `a` and `b`, both in the segments of the parts."""

    async def MergeProfiles(
        self, request: identity_pb2.MergeProfilesRequest, context: grpc.aio.ServicerContext
    ) -> identity_pb2.MergeProfilesResponse:
        segments = [profile_pb2.SegmentMembership(name=name) for name in UNION]
        after = [profile_pb2.Profile(profile_id=name, segments=segments, groups=["kept"]) for name in ("a", "b")]
        placed = [identity_pb2.ProfilePlacement(profile_id=name, fragment_ids=[name.encode() * 16]) for name in "ab"]
        return identity_pb2.MergeProfilesResponse(
            change=identity_pb2.IdentityChange(after=after), placements=placed if request.dry_run else ()
        )


class _Segmentation(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Knows of `b`; of nobody else does it say anything."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self._error = error

    async def PreviewMemberships(
        self, request: segmentation_pb2.PreviewMembershipsRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.PreviewMembershipsResponse:
        self.asked.append(request)
        if self._error is not None:
            raise self._error
        segments = [profile_pb2.SegmentMembership(name=name) for name in TRUE]
        found = [segmentation_pb2.PreviewedProfile(profile_id=name, segments=segments) for name in ("c", "b")]
        return segmentation_pb2.PreviewMembershipsResponse(profiles=found)


def platform(nats_url: str, segmentation: _Segmentation | None) -> AbstractAsyncContextManager[RunningGateway]:
    """Serve a gateway before svc-profile and, perhaps, svc-segmentation."""
    identity = Servicer(
        "dangol.profile.v1.IdentityService", identity_pb2_grpc.add_IdentityServiceServicer_to_server, _Identity()
    )
    services = {"profile": [identity]}
    if segmentation is not None:
        add = segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server
        services["segmentation"] = [Servicer("dangol.segmentation.v1.SegmentationService", add, segmentation)]
    return gateway_before(nats_url, services)


async def merge(gateway: RunningGateway, *, dry_run: bool = True) -> dict[str, Any]:
    body = {"absorb": ["user_id:b"], "reason": "tried out", "dryRun": dry_run}
    answer = await gateway.http.post("/v1/profiles/user_id:a:merge", headers=AUTH, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def segments(answer: dict[str, Any]) -> list[list[str]]:
    return [[segment["name"] for segment in profile["segments"]] for profile in answer["change"]["after"]]


async def test_what_the_other_service_says_replaces_what_was_guessed(nats_url: str) -> None:
    """By key, and nothing else of the element; what is only for the other service is not in the answer."""
    other = _Segmentation()
    async with platform(nats_url, other) as gateway:
        answer = await merge(gateway)
    assert segments(answer) == [UNION, TRUE]
    assert [profile["groups"] for profile in answer["change"]["after"]] == [["kept"], ["kept"]]
    assert (answer["placements"], answer["unavailableServices"]) == ([], [])
    assert [placement.fragment_ids for placement in other.asked[0].placements] == [[b"a" * 16], [b"b" * 16]]


async def test_nobody_is_asked_about_an_answer_that_hands_nothing_on(nats_url: str) -> None:
    other = _Segmentation()
    async with platform(nats_url, other) as gateway:
        answer = await merge(gateway, dry_run=False)
    assert (segments(answer), answer["unavailableServices"], other.asked) == ([UNION, UNION], [], [])


@pytest.mark.parametrize("error", [None, Invalid("too many"), KeyError("secret detail")])
async def test_an_answer_stands_without_what_completes_it_and_says_so(nats_url: str, error: Exception | None) -> None:
    """Whether nothing listens, or the other service refuses, or fails."""
    async with platform(nats_url, _Segmentation(error) if error else None) as gateway:
        answer = await merge(gateway)
    assert (segments(answer), answer["unavailableServices"]) == ([UNION, UNION], ["segmentation"])
    assert (answer["placements"], "secret" in str(answer)) == ([], False)


def test_who_completes_an_answer_needs_no_further_scope() -> None:
    """So that whoever may ask the question gets all of the answer."""
    completed = [method for method in contract.load().methods if method.completion is not None]
    assert {method.name for method in completed} == {"MergeProfiles", "SplitProfile", "ResolveIdentityConflict"}
    for method in completed:
        assert method.completion is not None
        assert method.completion.method.scope == method.scope
