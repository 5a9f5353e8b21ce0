# SPDX-License-Identifier: Apache-2.0
"""All that is known of a customer in one call, as far as a mask asks for it."""

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from chassis.clock import to_timestamp
from chassis.identity import IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import agent_pb2, consent_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from dangol.segmentation.v1 import segmentation_pb2 as segmentation
from google.protobuf.field_mask_pb2 import FieldMask
from svc_profile.app import build
from svc_profile.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000
numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def user() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"u{next(numbers)}"


def event(kind: str, *, at: int = 0, traits: Any = None, properties: Any = None, **fields: Any) -> Event:
    """Build an event `at` some minutes after the start."""
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def profile(service: RunningService, user: str, *paths: str, scopes: tuple[str, ...] = ("*",)) -> pb.Profile:
    request = pb.GetProfileRequest(profile=f"user_id:{user}", read_mask=FieldMask(paths=paths))
    answer: pb.GetProfileResponse = await service.stub(ProfileServiceStub, scopes).GetProfile(request)
    return answer.profile


def named(message: Any) -> set[str]:
    return {field.name for field, _ in message.ListFields()}


def change(user: str, segment: str, revision: int, *, member: bool = True, at: int = 0) -> Any:
    moment = to_timestamp(datetime.fromtimestamp(START_US / 1e6 + at * 60, UTC))
    return segmentation.MembershipChange(
        segment_id=f"seg_{segment}",
        segment_name=segment,
        profile_id=KEY.resolve(f"user_id:{user}").bytes,
        member=member,
        revision=revision,
        change_time=moment,
        rule_version=1,
    )


async def change_memberships(service: RunningService, *changes: Any) -> None:
    await service.deliver(segmentation.MembershipsChanged(changes=changes))


async def test_without_a_mask_the_answer_is_what_needs_no_asking(service: RunningService, user: str) -> None:
    await collect(service, event("identify", user_id=user, traits={"plan": "gold"}), event("page", user_id=user))
    await change_memberships(service, change(user, f"a-{user}", 1))
    plain = await profile(service, user)
    assert named(plain) == {
        "profile_id", "identifiers", "traits", "first_seen_time", "last_seen_time", "event_counts",
    }  # fmt: skip


async def test_a_mask_answers_what_it_names_and_nothing_else(service: RunningService, user: str) -> None:
    await collect(service, event("identify", user_id=user, traits={"plan": "gold"}))
    assert named(await profile(service, user, "traits")) == {"profile_id", "traits"}
    assert named(await profile(service, user, "recent_events")) == {"profile_id", "recent_events"}
    assert named(await profile(service, user, "profile_id")) == {"profile_id"}


async def test_a_star_answers_everything(service: RunningService, user: str) -> None:
    await collect(
        service,
        event("identify", user_id=user, traits={"plan": "gold"}),
        event("group", user_id=user, group_id="g1"),
        event("track", name="Order Completed", user_id=user, properties={"revenue": 10, "currency": "KRW"}),
    )
    await change_memberships(service, change(user, f"b-{user}", 1))
    await service.stub(AgentServiceStub).CreateInteraction(
        agent_pb2.CreateInteractionRequest(
            profile=f"user_id:{user}",
            interaction=agent_pb2.Interaction(kind=agent_pb2.INTERACTION_KIND_TICKET, subject="귤이 상했어요"),
        )
    )
    whole = await profile(service, user, "*")
    assert named(whole) >= {"traits", "groups", "revenue", "segments", "recent_events", "open_cases"}
    assert [(case.kind, case.subject, case.status) for case in whole.open_cases] == [
        ("ticket", "귤이 상했어요", "open")
    ]


@pytest.mark.parametrize("path", ["trait", "traits.city", "", "profileId"])
async def test_a_mask_that_names_no_field_is_refused(service: RunningService, user: str, path: str) -> None:
    await collect(service, event("page", user_id=user))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await profile(service, user, path)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"read_mask: {path} is no field of a profile" in (caught.value.details() or "")


@pytest.mark.parametrize("paths", [(), ("segments",), ("recent_events", "open_cases"), ("*",)])
async def test_nobody_is_not_found_whatever_is_asked(service: RunningService, paths: tuple[str, ...]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await profile(service, "nobody", *paths)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_recent_events_are_the_last_ones_newest_first(service: RunningService, user: str) -> None:
    """Twenty of them, with what the client sent, from every identifier of the customer."""
    visitor = f"d-{user}"
    await collect(service, *[event("page", at=n, anonymous_id=visitor, name=f"p{n}") for n in range(15)])
    await collect(
        service,
        event("identify", at=20, anonymous_id=visitor, user_id=user, traits={"name": "김단골"}),
        *[event("track", at=30 + n, name="Product Viewed", user_id=user, properties={"n": n}) for n in range(10)],
    )
    events = (await profile(service, user, "recent_events")).recent_events
    assert [each.name for each in events] == ["Product Viewed"] * 10 + ["identify"] + ["page"] * 9
    assert [each.properties["n"] for each in events[:10]] == list(range(9, -1, -1))
    assert events[10].traits["name"] == "김단골"
    assert events[0].event_time.ToMicroseconds() == START_US + 39 * MINUTE_US


async def test_the_highest_revision_of_a_membership_holds(service: RunningService, user: str) -> None:
    """Whatever comes first, and however often."""
    await collect(service, event("page", user_id=user))
    left = change(user, f"left-{user}", 7, member=False, at=3)
    stayed = change(user, f"stayed-{user}", 9, at=2)
    await change_memberships(service, left, change(user, f"stayed-{user}", 8, member=False, at=1))
    await change_memberships(service, change(user, f"left-{user}", 6, at=1), stayed, stayed)
    segments = (await profile(service, user, "segments")).segments
    assert [(each.segment_id, each.name, each.rule_version) for each in segments] == [
        (f"seg_stayed-{user}", f"stayed-{user}", 1)
    ]
    assert segments[0].entered_time.ToMicroseconds() == START_US + 2 * MINUTE_US


async def test_a_segment_has_the_name_that_was_saved_last(service: RunningService, user: str) -> None:
    await collect(service, event("page", user_id=user))
    saved = [
        segmentation.SegmentSaved(
            segment_id=f"seg_n-{user}",
            name=name,
            rule_version=1,
            saved_time=to_timestamp(datetime(2026, 1, day, tzinfo=UTC)),
        )
        for day, name in ((3, "new"), (2, "old"))
    ]
    await service.deliver(saved[0])
    await service.deliver(saved[1])
    await change_memberships(service, change(user, f"n-{user}", 1))
    assert [each.name for each in (await profile(service, user, "segments")).segments] == ["new"]


async def test_a_deleted_segment_has_no_members_even_if_one_is_heard_of_later(
    service: RunningService, user: str
) -> None:
    await collect(service, event("page", user_id=user))
    await change_memberships(service, change(user, f"gone-{user}", 1))
    await service.deliver(segmentation.SegmentDeleted(segment_id=f"seg_gone-{user}", name=f"gone-{user}"))
    await change_memberships(service, change(user, f"gone-{user}", 2))
    assert not (await profile(service, user, "segments")).segments


async def test_a_stage_is_the_one_of_the_highest_revision(service: RunningService, user: str) -> None:
    """By track; who has left a track stands nowhere in it."""
    await collect(service, event("page", user_id=user))
    fragment = KEY.resolve(f"user_id:{user}").bytes
    for track, old, new, revision in (
        ("lifecycle", "active", "at_risk", 5),
        ("lifecycle", "new", "active", 4),
        ("onboarding", "", "invited", 1),
        ("onboarding", "invited", "", 2),
    ):
        await service.deliver(
            segmentation.StageChanged(
                profile_id=fragment,
                track=track,
                old_stage=old,
                new_stage=new,
                revision=revision,
                change_time=to_timestamp(datetime(2026, 1, revision, tzinfo=UTC)),
                evidence="no order for 60 days",
            )
        )
    stages = (await profile(service, user, "stages")).stages
    assert [(s.track, s.previous_stage, s.stage, s.evidence) for s in stages] == [
        ("lifecycle", "active", "at_risk", "no order for 60 days")
    ]
    assert stages[0].entered_time.ToDatetime(UTC) == datetime(2026, 1, 5, tzinfo=UTC)


async def test_consents_are_what_holds_for_each_purpose_now(service: RunningService, user: str) -> None:
    """What was said, and what holds without an answer."""
    await collect(service, event("page", user_id=user))
    await service.stub(ConsentServiceStub).RecordConsent(
        consent_pb2.RecordConsentRequest(
            profile=f"user_id:{user}",
            decisions=[
                consent_pb2.ConsentDecision(
                    purpose_id="marketing_email", answer=consent_pb2.CONSENT_ANSWER_GRANTED, notice_version=1
                ),
                consent_pb2.ConsentDecision(
                    purpose_id="personalization", answer=consent_pb2.CONSENT_ANSWER_DENIED, notice_version=1
                ),
            ],
        )
    )
    consents = {each.purpose_id: each for each in (await profile(service, user, "consents")).consents}
    assert consents["marketing_email"].granted
    assert consents["marketing_email"].HasField("expire_time")
    assert not consents["personalization"].granted
    assert consents["personalization"].HasField("answered_time")
    assert consents["analytics"].granted
    assert not consents["analytics"].HasField("answered_time")


async def test_an_agent_without_the_right_sees_masked_values(service: RunningService, user: str) -> None:
    """In traits, identifiers, events and cases alike."""
    await collect(
        service,
        event(
            "identify",
            user_id=user,
            traits={"name": "김단골", "email": f"{user}@example.com", "phone": "010-1234-5678", "plan": "gold"},
        ),
        event("track", at=1, name="Looked", user_id=user, properties={"email": "kim@example.com", "name": "귤"}),
    )
    masked = await profile(service, user, "*", scopes=("profile.read",))
    assert dict(masked.traits) == {"name": "김**", "email": "u***@e***.com", "phone": "*******5678", "plan": "gold"}
    assert {(i.namespace, i.value) for i in masked.identifiers} == {
        ("user_id", user),
        ("email", "u***@e***.com"),
        ("phone", "+82******5678"),
    }
    assert dict(masked.recent_events[0].properties) == {"email": "k***@e***.com", "name": "귤"}
    seen = await profile(service, user, "traits", scopes=("profile.read", "profile.pii"))
    assert seen.traits["name"] == "김단골"
