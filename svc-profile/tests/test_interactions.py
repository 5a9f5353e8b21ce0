# SPDX-License-Identifier: Apache-2.0
"""Notes, tickets, calls: what staff keeps about customers, through gRPC."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from chassis.clock import to_timestamp
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from svc_profile.app import build
from svc_profile.settings import Settings

START_US = 1_760_000_000_000_000
numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
async def user(service: RunningService) -> str:
    """A customer of this test alone."""
    name = f"u{next(numbers)}"
    await visit(service, user_id=name)
    return name


async def visit(service: RunningService, **ids: Any) -> None:
    page = Event(type=EventType.EVENT_TYPE_PAGE, source="web", message_id=f"m{next(numbers)}", time_us=START_US, **ids)
    await service.deliver(EventBatch(events=[page]), subject="events.collected.1")


def stub(service: RunningService) -> Any:
    return service.stub(AgentServiceStub)


async def create(service: RunningService, reference: str, request_id: str = "", **fields: Any) -> pb.Interaction:
    interaction = pb.Interaction(**{"kind": pb.INTERACTION_KIND_NOTE, "text": "likes tangerines", **fields})
    answer = await stub(service).CreateInteraction(
        pb.CreateInteractionRequest(profile=reference, interaction=interaction, request_id=request_id)
    )
    created: pb.Interaction = answer.interaction
    return created


async def listed(service: RunningService, **choice: Any) -> list[str]:
    answer = await stub(service).ListInteractions(pb.ListInteractionsRequest(**choice))
    return [each.interaction_id for each in answer.interactions]


async def test_a_note_is_kept_with_who_wrote_it_and_when(service: RunningService, user: str) -> None:
    note = await create(service, f"user_id:{user}", subject="귤", outcome="informed")
    assert note.interaction_id.startswith("int_")
    assert (note.actor, note.updated_by) == ("test", "test")
    assert note.status == pb.INTERACTION_STATUS_CLOSED
    assert note.interaction_time == note.created_time == note.updated_time == note.closed_time
    answer = await stub(service).GetInteraction(pb.GetInteractionRequest(interaction_id=note.interaction_id))
    assert answer.interaction == note


async def test_a_ticket_begins_open_and_is_closed_with_an_outcome(service: RunningService, user: str) -> None:
    """Each step is announced, without the words."""
    ticket = await create(service, f"user_id:{user}", kind=pb.INTERACTION_KIND_TICKET, subject="late")
    assert ticket.status == pb.INTERACTION_STATUS_OPEN
    assert not ticket.HasField("closed_time")
    closing = pb.Interaction(
        interaction_id=ticket.interaction_id, status=pb.INTERACTION_STATUS_CLOSED, outcome="refunded", text="ignored"
    )
    answer = await stub(service).UpdateInteraction(
        pb.UpdateInteractionRequest(interaction=closing, update_mask=FieldMask(paths=["status", "outcome"]))
    )
    closed = answer.interaction
    assert (closed.status, closed.outcome, closed.text) == (
        pb.INTERACTION_STATUS_CLOSED, "refunded", "likes tangerines"
    )  # fmt: skip
    assert closed.closed_time == closed.updated_time
    await service.settled()
    told = [m for m in await service.published(pb.InteractionRecorded) if m.interaction_id == ticket.interaction_id]
    assert [(m.status, m.outcome) for m in told] == [
        (pb.INTERACTION_STATUS_OPEN, ""),
        (pb.INTERACTION_STATUS_CLOSED, "refunded"),
    ]


async def test_a_ticket_that_is_opened_again_is_not_closed(service: RunningService, user: str) -> None:
    ticket = await create(service, f"user_id:{user}", kind=pb.INTERACTION_KIND_TICKET)
    for status in (pb.INTERACTION_STATUS_CLOSED, pb.INTERACTION_STATUS_PENDING):
        change = pb.Interaction(interaction_id=ticket.interaction_id, status=status)
        answer = await stub(service).UpdateInteraction(pb.UpdateInteractionRequest(interaction=change))
    assert answer.interaction.status == pb.INTERACTION_STATUS_PENDING
    assert not answer.interaction.HasField("closed_time")


async def test_the_same_request_creates_one_interaction(service: RunningService, user: str) -> None:
    first = await create(service, f"user_id:{user}", request_id=f"r-{user}", text="one")
    again = await create(service, f"user_id:{user}", request_id=f"r-{user}", text="two")
    assert again == first
    assert await listed(service, profile=f"user_id:{user}") == [first.interaction_id]
    await visit(service, user_id=f"other-{user}")
    with pytest.raises(grpc.aio.AioRpcError, match="request_id: was used for another customer"):
        await create(service, f"user_id:other-{user}", request_id=f"r-{user}", text="two")


async def test_an_interaction_always_says_something(service: RunningService, user: str) -> None:
    """Neither creating nor changing leaves one without a word."""
    note = await create(service, f"user_id:{user}", text="likes tangerines")
    for text in ("", " \n\u3000"):
        with pytest.raises(grpc.aio.AioRpcError, match="needs a subject or a text"):
            await create(service, f"user_id:{user}", text=text)
        emptied = pb.UpdateInteractionRequest(
            interaction=pb.Interaction(interaction_id=note.interaction_id, text=text),
            update_mask=FieldMask(paths=["text"]),
        )
        with pytest.raises(grpc.aio.AioRpcError, match="needs a subject or a text"):
            await stub(service).UpdateInteraction(emptied)


async def test_a_list_is_newest_first_and_can_be_cut(service: RunningService, user: str) -> None:
    """By kind, status and staff; page after page without a gap."""
    made = [
        await create(
            service,
            f"user_id:{user}",
            kind=kind,
            interaction_time=to_timestamp(datetime(2026, 1, day, tzinfo=UTC)),
        )
        for day, kind in ((2, pb.INTERACTION_KIND_CALL), (3, pb.INTERACTION_KIND_TICKET), (1, pb.INTERACTION_KIND_CHAT))
    ]
    call, ticket, chat = (each.interaction_id for each in made)
    reference = f"user_id:{user}"
    assert await listed(service, profile=reference) == [ticket, call, chat]
    assert await listed(service, profile=reference, kinds=[pb.INTERACTION_KIND_CHAT, pb.INTERACTION_KIND_CALL]) == [
        call,
        chat,
    ]
    assert await listed(service, profile=reference, statuses=[pb.INTERACTION_STATUS_OPEN]) == [ticket]
    assert await listed(service, profile=reference, actor="nobody") == []
    assert ticket in await listed(service, statuses=[pb.INTERACTION_STATUS_OPEN], actor="test")
    pages, token = [], ""
    for _ in range(3):
        answer = await stub(service).ListInteractions(
            pb.ListInteractionsRequest(profile=reference, page_size=1, page_token=token)
        )
        pages += [each.interaction_id for each in answer.interactions]
        token = answer.next_page_token
    assert (pages, token) == ([ticket, call, chat], "")


async def test_interactions_follow_a_merge(service: RunningService, user: str) -> None:
    """What was written about the visitor is the customer's as soon as both are one."""
    visitor = f"d-{user}"
    await visit(service, anonymous_id=visitor)
    note = await create(service, f"anonymous_id:{visitor}")
    assert await listed(service, profile=f"user_id:{user}") == []
    await visit(service, anonymous_id=visitor, user_id=user)
    assert await listed(service, profile=f"user_id:{user}") == [note.interaction_id]
    answer = await stub(service).GetInteraction(pb.GetInteractionRequest(interaction_id=note.interaction_id))
    other = await create(service, f"user_id:{user}")
    assert answer.interaction.profile_id == other.profile_id


async def test_who_reads_a_contact_is_on_record_with_whose_it_is(service: RunningService, user: str) -> None:
    """Also where the request names the contact and not the customer."""
    note = await create(service, f"user_id:{user}")
    await stub(service).GetInteraction(pb.GetInteractionRequest(interaction_id=note.interaction_id))
    await listed(service, actor="test")
    request = operations_pb2.ListAccessesRequest(profile=f"user_id:{user}")
    answer = await service.stub(AccessLogServiceStub).ListAccesses(request)
    methods = [access.method.rpartition(".")[2].rpartition("/")[2] for access in answer.accesses]
    assert methods == ["ListInteractions", "GetInteraction", "CreateInteraction"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": 0}, "interaction.kind: is required"),
        ({"kind": 9}, "interaction.kind: 9 is not a value"),
        ({"text": ""}, "needs a subject or a text"),
        ({"outcome": "Not A Word"}, "interaction.outcome: must match"),
        ({"subject": "x" * 201}, "interaction.subject: has 201 characters"),
    ],
)
async def test_bad_input_names_the_field(service: RunningService, user: str, fields: Any, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(service, f"user_id:{user}", **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


@pytest.mark.parametrize(
    ("fields", "mask", "words"),
    [
        ({}, ["kind"], "update_mask: kind cannot be changed"),
        ({}, ["status"], "interaction.status: must be OPEN, PENDING or CLOSED"),
        ({}, ["interaction_time"], "interaction.interaction_time: cannot be taken away"),
    ],
)
async def test_a_change_that_cannot_be_names_the_field(
    service: RunningService, user: str, fields: Any, mask: list[str], words: str
) -> None:
    note = await create(service, f"user_id:{user}")
    request = pb.UpdateInteractionRequest(
        interaction=pb.Interaction(interaction_id=note.interaction_id, **fields), update_mask=FieldMask(paths=mask)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(service).UpdateInteraction(request)
    assert words in (caught.value.details() or "")


async def test_nobody_and_nothing_are_not_found(service: RunningService) -> None:
    for call in (
        create(service, "user_id:never-seen"),
        listed(service, profile="user_id:never-seen"),
        stub(service).GetInteraction(pb.GetInteractionRequest(interaction_id="int_none")),
        stub(service).UpdateInteraction(
            pb.UpdateInteractionRequest(interaction=pb.Interaction(interaction_id="int_none", text="x"))
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
