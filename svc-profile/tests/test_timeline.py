# SPDX-License-Identifier: Apache-2.0
"""What happened with a customer, of all kinds, in one list, through gRPC."""

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from chassis.clock import to_timestamp
from chassis.identity import IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.feedback.v1 import feedback_pb2 as feedback
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1 import consent_pb2 as pb_consent
from dangol.profile.v1 import identity_pb2
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from svc_profile.app import build
from svc_profile.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START = datetime(2026, 1, 1, tzinfo=UTC)
numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def user() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"u{next(numbers)}"


def minute(at: int) -> Any:
    return to_timestamp(START + timedelta(minutes=at))


def event(kind: str, *, at: int = 0, properties: Any = None, **fields: Any) -> Event:
    """Build an event `at` some minutes after the start."""
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=minute(at).ToMicroseconds(),
        received_time_us=minute(at).ToMicroseconds(),
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def write(service: RunningService, user: str, at: int, text: str = "called back") -> None:
    interaction = pb.Interaction(kind=pb.INTERACTION_KIND_CALL, text=text, interaction_time=minute(at))
    request = pb.CreateInteractionRequest(profile=f"user_id:{user}", interaction=interaction)
    await service.stub(AgentServiceStub).CreateInteraction(request)


async def say(service: RunningService, user: str, at: int, feedback_id: str, rating: int = 5) -> None:
    await service.deliver(
        feedback.FeedbackRecorded(
            feedback_id=feedback_id,
            fragment_id=KEY.resolve(f"user_id:{user}").bytes,
            kind=feedback.FEEDBACK_KIND_REVIEW,
            rating=rating,
            language="ko",
            sentiment=feedback.SENTIMENT_LABEL_POSITIVE,
            sentiment_probability=0.9,
            feedback_time=minute(at),
        )
    )


async def ask(service: RunningService, user: str, scopes: tuple[str, ...] = ("*",), **more: Any) -> Any:
    request = pb.ListTimelineRequest(profile=f"user_id:{user}", **more)
    return await service.stub(AgentServiceStub, scopes).ListTimeline(request)


def kinds(answer: Any) -> list[str]:
    return [pb.TimelineKind.Name(entry.kind).removeprefix("TIMELINE_KIND_") for entry in answer.entries]


async def test_everything_that_happened_stands_in_one_list(service: RunningService, user: str) -> None:
    """Newest first, with what each kind has to tell."""
    visitor = f"d-{user}"
    await collect(
        service,
        event("page", at=0, anonymous_id=visitor, name="home"),
        event("identify", at=10, anonymous_id=visitor, user_id=user),
        event("track", at=20, name="Order Completed", user_id=user, properties={"revenue": 12000}),
    )
    await write(service, user, at=30)
    await say(service, user, at=40, feedback_id=f"fbk_{user}")
    answer = await ask(service, user)
    assert kinds(answer) == ["FEEDBACK", "INTERACTION", "EVENT", "EVENT", "LINK", "EVENT"]
    said, called, order, login, link, page = answer.entries
    assert [e.time.ToMicroseconds() for e in answer.entries] == [
        minute(at).ToMicroseconds() for at in (40, 30, 20, 10, 10, 0)
    ]
    assert (said.feedback.feedback_id, said.feedback.rating, said.feedback.language) == (f"fbk_{user}", 5, "ko")
    assert called.interaction.text == "called back"
    assert (order.event.name, order.event.properties["revenue"]) == ("Order Completed", 12000)
    assert (login.event.name, page.event.name) == ("identify", "page")
    assert {link.link.identifier.value, link.link.linked_to.value} == {visitor, user}
    assert link.link.rule == "same_event"


async def test_pages_follow_each_other_without_a_gap(service: RunningService, user: str) -> None:
    """Also where many things of several kinds happened at the same microsecond."""
    visitor = f"d-{user}"
    await collect(
        service,
        event("identify", at=5, anonymous_id=visitor, user_id=user),
        *[event("track", at=5 * (n % 2), name=f"e{n}", user_id=user) for n in range(5)],
    )
    for n in range(3):
        await write(service, user, at=5, text=f"t{n}")
        await say(service, user, at=5 * (n % 2), feedback_id=f"fbk_{user}_{n}")
    whole = await ask(service, user)
    assert len(whole.entries) == 6 + 3 + 3 + 1
    for size in (1, 2, 5):
        pages: list[Any] = []
        token = ""
        while True:
            page = await ask(service, user, page_size=size, page_token=token)
            pages += page.entries
            token = page.next_page_token
            if not token:
                break
        assert pages == list(whole.entries)


async def test_decisions_about_who_is_who_and_consents_stand_there_too(service: RunningService, user: str) -> None:
    """And what staff wrote goes with the identifier that leaves."""
    other = f"{user}-work"
    await collect(service, event("page", at=0, user_id=user), event("page", at=1, user_id=other))
    await write(service, user, at=2, text="about the one")
    await write(service, other, at=3, text="about the other")
    identity = service.stub(IdentityServiceStub)
    await identity.MergeProfiles(
        identity_pb2.MergeProfilesRequest(profile=f"user_id:{user}", absorb=[f"user_id:{other}"], reason="same person")
    )
    answer = pb_consent.ConsentDecision(purpose_id="marketing_email", answer=pb_consent.CONSENT_ANSWER_DENIED)
    await service.stub(ConsentServiceStub).RecordConsent(
        pb_consent.RecordConsentRequest(profile=f"user_id:{user}", decisions=[answer], channel="call_centre")
    )
    merged = await ask(service, other)
    assert kinds(merged) == ["CONSENT", "DECISION", "INTERACTION", "INTERACTION", "EVENT", "EVENT"]
    said, decided = merged.entries[:2]
    assert (said.consent.purpose_id, said.consent.answer, said.consent.channel) == (
        "marketing_email", pb_consent.CONSENT_ANSWER_DENIED, "call_centre"
    )  # fmt: skip
    assert (decided.decision.decision, decided.decision.actor, decided.decision.reason) == (
        "merge", "test", "same person"
    )  # fmt: skip
    pages = [await ask(service, other, page_size=1)]
    while pages[-1].next_page_token:
        pages.append(await ask(service, other, page_size=1, page_token=pages[-1].next_page_token))
    assert [page.entries[0] for page in pages if page.entries] == list(merged.entries)
    await identity.SplitProfile(
        identity_pb2.SplitProfileRequest(
            profile=f"user_id:{user}", identifiers=[f"user_id:{other}"], reason="two after all"
        )
    )
    one, two = await ask(service, user), await ask(service, other)
    assert [e.interaction.text for e in one.entries if e.HasField("interaction")] == ["about the one"]
    assert [e.interaction.text for e in two.entries if e.HasField("interaction")] == ["about the other"]
    assert "DECISION" in kinds(one)
    assert "DECISION" in kinds(two)
    assert "CONSENT" not in kinds(two)


async def test_a_list_can_be_cut_by_kind_and_time(service: RunningService, user: str) -> None:
    await collect(service, *[event("page", at=at, user_id=user) for at in (0, 10, 20)])
    await write(service, user, at=10)
    assert kinds(await ask(service, user, kinds=[pb.TIMELINE_KIND_INTERACTION])) == ["INTERACTION"]
    assert kinds(await ask(service, user, kinds=[pb.TIMELINE_KIND_FEEDBACK, pb.TIMELINE_KIND_EVENT])) == ["EVENT"] * 3
    inside = await ask(service, user, start_time=minute(10), end_time=minute(20))
    assert kinds(inside) == ["EVENT", "INTERACTION"]
    assert {entry.time.ToMicroseconds() for entry in inside.entries} == {minute(10).ToMicroseconds()}
    first = await ask(service, user, start_time=minute(10), end_time=minute(20), page_size=1)
    rest = await ask(
        service, user, start_time=minute(10), end_time=minute(20), page_size=1, page_token=first.next_page_token
    )
    assert [*first.entries, *rest.entries] == list(inside.entries)
    assert not rest.next_page_token


async def test_a_role_without_the_right_sees_what_happened_but_not_the_words(
    service: RunningService, user: str
) -> None:
    await collect(
        service, event("track", name="Signed Up", user_id=user, properties={"email": "kim@example.com", "plan": "gold"})
    )
    await write(service, user, at=10, text="she moved to Busan")
    called, signed_up = (await ask(service, user, scopes=("agent.read",))).entries
    assert called.interaction.text == "***"
    assert dict(signed_up.event.properties) == {"email": "k***@e***.com", "plan": "gold"}


async def test_nobody_has_no_timeline(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(service, "never-seen")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("token", ["x", "eyJ0aW1lIjoxfQ", "eyJ0aW1lIjoxLCJraW5kIjoxLCJpZCI6Inp6In0"])
async def test_a_token_that_nobody_gave_out_is_refused(service: RunningService, user: str, token: str) -> None:
    await collect(service, event("page", user_id=user))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(service, user, page_token=token)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
