# SPDX-License-Identifier: Apache-2.0
"""The chassis as a service uses it: consume, announce, answer, on real engines."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar, cast
from uuid import UUID, uuid4

import grpc
import pytest
from chassis.bus import Bus, Outgoing
from chassis.calls import current_caller
from chassis.database import Database, Transaction
from chassis.errors import Invalid, NotFound
from chassis.rpc import Servicer
from chassis.service import Service
from chassis.settings import ServiceSettings
from chassis.streams import COLLECTED, RESOLVED, Delivery, Subscription
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch
from dangol.operations.v1 import operations_pb2 as operations
from dangol.operations.v1.operations_pb2_grpc import DeadLetterServiceStub, TraceServiceStub
from dangol.profile.v1 import identity_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import (
    ProfileServiceServicer,
    ProfileServiceStub,
    add_ProfileServiceServicer_to_server,
)
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from chassis import mapping


class Settings(ServiceSettings):
    service: ClassVar[str] = "sample"


class SampleRpc(ProfileServiceServicer):
    """Answers one profile, refuses the others in different ways."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetProfileResponse:
        if request.profile == "user_id:bug":
            raise KeyError("secret detail")
        if request.profile != "user_id:known":
            raise NotFound(f"no profile {request.profile}")
        async with self._database.snapshot() as tx:
            count = await tx.value("SELECT count(*) FROM fragment_profiles")
        profile = pb.Profile(profile_id="prf_1", event_counts={"x": count}, groups=[current_caller().name])
        profile.traits["name"] = "김단골"
        return pb.GetProfileResponse(profile=profile)


async def on_resolved(tx: Transaction, messages: Sequence[EventBatch]) -> None:
    """Map each event's fragment, announce the change; the name `poison` never works, `flaky` once."""
    events = [event for batch in messages for event in batch.events]
    traces.append(trace.get_current_span().get_span_context().trace_id)
    if any(event.name == "poison" for event in events):
        raise Invalid.field("name", "is poison")
    changed = await mapping.learn(
        tx,
        [UUID(bytes=event.fragment_id) for event in events],
        [UUID(bytes=event.profile_id) for event in events],
        [event.mapping_revision for event in events],
    )
    if changed:
        mappings = [identity_pb2.FragmentMapping(fragment_id=c.fragment_id.bytes) for c in changed]
        tx.publish(identity_pb2.FragmentsRemapped(mappings=mappings))


attempts: list[str] = []
traces: list[int] = []


async def on_conflict(tx: Transaction, deliveries: Sequence[Delivery[identity_pb2.ProfilesMerged]]) -> None:
    """Fail at the first delivery."""
    attempts.extend(f"{d.message_id}#{d.delivered_count}" for d in deliveries)
    if not any(d.redelivered for d in deliveries):
        raise RuntimeError("not yet")


at_work: list[int] = []
both_at_work = asyncio.Event()
lanes_of: list[set[int]] = []
most_of_one_lane: list[int] = []


async def on_collected(tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
    """Note the lanes of the messages, and wait for the other lane to be at work."""
    lanes = {int(each.subject.rpartition(".")[2]) % 2 for each in deliveries}
    lanes_of.append(lanes)
    at_work.extend(lanes)
    most_of_one_lane.append(max(map(at_work.count, lanes)))
    if {*at_work} == {0, 1}:
        both_at_work.set()
    await asyncio.wait_for(both_at_work.wait(), 20)
    for lane in lanes:
        at_work.remove(lane)


def build(settings: Settings) -> Service:
    database = Database(settings)
    return Service(
        settings=settings,
        bus=Bus(settings, "sample"),
        database=database,
        migrations=Path("none"),
        servicers=[
            Servicer("dangol.profile.v1.ProfileService", add_ProfileServiceServicer_to_server, SampleRpc(database))
        ],
        subscriptions=[
            Subscription(EventBatch, on_resolved, subject=RESOLVED),
            Subscription(identity_pb2.ProfilesMerged, on_conflict, inbox=False),
            Subscription(EventBatch, on_collected, subject=COLLECTED, at_once=2, inbox=False),
        ],
    )


# A process has one tracer provider; `chassis.telemetry.configure` sets it in a real one.
trace.set_tracer_provider(TracerProvider())


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as sample:
        yield sample


def batch(*names: str, fragment: UUID | None = None, revision: int = 1) -> EventBatch:
    fragment = fragment or uuid4()
    return EventBatch(
        events=[
            Event(name=name, fragment_id=fragment.bytes, profile_id=fragment.bytes, mapping_revision=revision)
            for name in names
        ]
    )


async def test_handles_a_message_once_however_often_it_comes(service: RunningService) -> None:
    """The inbox skips a message id that was handled before, even when the broker has forgotten it."""
    fragment = uuid4()
    before = len(await service.published(identity_pb2.FragmentsRemapped))
    await service.deliver(batch("a", fragment=fragment), subject="events.resolved.0", message_ids=["once"])
    # Another subject makes another broker key; the id is the same.
    async with service.database.snapshot() as tx:
        assert await tx.value("SELECT count(*) FROM inbox WHERE message_id = 'once'") == 1
        assert await mapping.profile_of(tx, fragment) == fragment
    assert len(await service.published(identity_pb2.FragmentsRemapped)) == before + 1


async def test_handles_each_shard_in_one_lane_and_lanes_at_once(service: RunningService) -> None:
    """Two transactions are open at the same time, and never two with messages of one shard."""
    data = batch("a").SerializeToString()
    await service.bus.publish_all(
        [Outgoing(f"events.collected.{number % 8}", data, f"lanes-{number}") for number in range(64)]
    )
    await service.settled()
    assert both_at_work.is_set()
    assert {frozenset(lanes) for lanes in lanes_of} == {frozenset({0}), frozenset({1})}
    assert set(most_of_one_lane) == {1}


async def test_buries_poison_and_handles_its_neighbours(service: RunningService) -> None:
    """One message that never works neither blocks nor loses those that came with it."""
    good = [uuid4(), uuid4()]
    await service.deliver(
        batch("a", fragment=good[0]), batch("poison"), batch("b", fragment=good[1]), subject="events.resolved.1"
    )
    async with service.database.snapshot() as tx:
        assert [await mapping.profile_of(tx, fragment) for fragment in good] == good
    stub = service.stub(DeadLetterServiceStub)
    answer = await stub.ListDeadLetters(operations.ListDeadLettersRequest(consumer="sample-events-resolved"))
    assert [letter.error for letter in answer.dead_letters] == ["Invalid: name: is poison"]
    assert answer.dead_letters[0].subject == "events.resolved.1"
    ids = [letter.dead_letter_id for letter in answer.dead_letters]
    replayed = await stub.ReplayDeadLetters(operations.ReplayDeadLettersRequest(dead_letter_ids=ids))
    assert replayed.replayed_count == 1
    await service.settled()
    again = await stub.ListDeadLetters(operations.ListDeadLettersRequest())
    assert [letter.dead_letter_id > ids[0] for letter in again.dead_letters] == [True]


async def test_the_truth_call_finds_an_event_among_the_dead_letters(service: RunningService) -> None:
    """Whatever the service knows of the event itself; one that nobody has heard of is not found."""
    fragment = uuid4().bytes
    lost = Event(name="poison", message_id="lost", source="web", fragment_id=fragment, profile_id=fragment)
    await service.deliver(EventBatch(events=[lost]), subject="events.resolved.1")
    stub = service.stub(TraceServiceStub)
    answer = await stub.TraceEvent(operations.TraceEventRequest(message_id="lost"))
    (step,) = answer.steps
    assert (step.service, step.source, step.outcome) == ("sample", "web", "DEAD_LETTERED")
    assert step.dead_letter.consumer == "sample-events-resolved"
    assert step.dead_letter.error == "Invalid: name: is poison"
    for unknown in (
        operations.TraceEventRequest(message_id="lost", source="app"),
        operations.TraceEventRequest(message_id="never"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.TraceEvent(unknown)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_discarded_dead_letter_is_gone(service: RunningService) -> None:
    """One that is not there leaves the others alone."""
    await service.deliver(batch("poison"), subject="events.resolved.1")
    stub = service.stub(DeadLetterServiceStub)
    listing = operations.ListDeadLettersRequest(consumer="sample-events-resolved")
    ids = [letter.dead_letter_id for letter in (await stub.ListDeadLetters(listing)).dead_letters]
    for unknown in (999_999, 0, -1):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.DiscardDeadLetters(operations.DiscardDeadLettersRequest(dead_letter_ids=[*ids, unknown]))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert len((await stub.ListDeadLetters(listing)).dead_letters) == len(ids)
    discarded = await stub.DiscardDeadLetters(operations.DiscardDeadLettersRequest(dead_letter_ids=ids))
    assert discarded.discarded_count == len(ids) > 0
    assert not (await stub.ListDeadLetters(listing)).dead_letters


async def test_tries_again_what_failed(service: RunningService) -> None:
    """An unforeseen error leads to another delivery."""
    await service.deliver(identity_pb2.ProfilesMerged(profile_id="prf_x"), message_ids=["flaky"])
    assert attempts == ["flaky#1", "flaky#2"]


async def test_buries_what_cannot_be_decoded(service: RunningService) -> None:
    """Rubbish on a subject ends among the dead letters."""
    await service.bus.publish("events.resolved.0", b"\xff\xff rubbish", message_id="rubbish")
    await service.settled()
    answer = await service.stub(DeadLetterServiceStub).ListDeadLetters(operations.ListDeadLettersRequest())
    assert "rubbish" in [letter.message_id for letter in answer.dead_letters]


async def test_answers_a_caller_with_the_scope(service: RunningService) -> None:
    """And what answers knows who is asking."""
    answer = await service.stub(ProfileServiceStub, ["profile.read"]).GetProfile(
        pb.GetProfileRequest(profile="user_id:known")
    )
    assert answer.profile.profile_id == "prf_1"
    assert list(answer.profile.groups) == ["test"]


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        (["profile.read"], "김**"),
        (["profile.read", "feedback.pii"], "김**"),
        (["profile.read", "profile.pii"], "김단골"),
        (["profile.*"], "김단골"),
        (["*"], "김단골"),
    ],
)
async def test_masks_personal_data_for_whoever_may_not_see_it(
    service: RunningService, scopes: list[str], name: str
) -> None:
    answer = await service.stub(ProfileServiceStub, scopes).GetProfile(pb.GetProfileRequest(profile="user_id:known"))
    assert answer.profile.traits["name"] == name


@pytest.mark.parametrize(
    ("scopes", "profile", "code", "words"),
    [
        (["metrics.read"], "user_id:known", grpc.StatusCode.PERMISSION_DENIED, "profile.read"),
        (["profile.read"], "user_id:x", grpc.StatusCode.NOT_FOUND, "no profile user_id:x"),
        (["profile.read"], "", grpc.StatusCode.INVALID_ARGUMENT, "profile: is required"),
        (["profile.read"], "x" * 2000, grpc.StatusCode.INVALID_ARGUMENT, "at most 1024"),
        (["profile.read"], "user_id:bug", grpc.StatusCode.INTERNAL, "internal error"),
    ],
)
async def test_says_what_is_wrong(
    service: RunningService, scopes: list[str], profile: str, code: grpc.StatusCode, words: str
) -> None:
    """Each error has its code and its words, and a bug shows nothing of itself."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub(ProfileServiceStub, scopes).GetProfile(pb.GetProfileRequest(profile=profile))
    assert caught.value.code() == code
    assert words in (caught.value.details() or "")
    assert "secret detail" not in str(caught.value)


async def test_names_field_and_rule_in_the_details(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest())
    status = rpc_status.from_call(cast(grpc.Call, caught.value))
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert [(v.field, v.description) for v in bad_request.field_violations] == [("profile", "is required")]


async def test_a_trace_goes_on_through_the_streams(service: RunningService) -> None:
    """Who publishes inside a trace finds the consumer's work, and what it announces, in the same one."""
    with trace.get_tracer("test").start_as_current_span("request") as span:
        trace_id = span.get_span_context().trace_id
        await service.deliver(batch("traced"), subject="events.resolved.0")
    assert traces[-1] == trace_id
    raw = await service.bus.jetstream.get_last_msg(
        service.bus.stream("DOMAIN"), service.bus.subject("dangol.profile.v1.FragmentsRemapped")
    )
    assert trace.format_trace_id(trace_id) in (raw.headers or {})["traceparent"]


@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer nonsense", "Basic abc"])
async def test_refuses_a_caller_nobody_knows(service: RunningService, header: str) -> None:
    async with grpc.aio.insecure_channel(service.target) as plain:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ProfileServiceStub(plain).GetProfile(
                pb.GetProfileRequest(profile="user_id:known"), metadata=[("authorization", header)]
            )
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_takes_the_development_key_in_local_mode(service: RunningService) -> None:
    """A gRPC client needs no token tool to try things out."""
    async with grpc.aio.insecure_channel(service.target) as plain:
        answer = await ProfileServiceStub(plain).GetProfile(
            pb.GetProfileRequest(profile="user_id:known"),
            metadata=[("authorization", "Bearer dk_secret_local")],
        )
    assert answer.profile.profile_id == "prf_1"
