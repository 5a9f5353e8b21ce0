# SPDX-License-Identifier: Apache-2.0
"""One question to every service: all are asked, and the answers are one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from chassis.errors import Invalid, NotFound
from chassis.rpc import Servicer
from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1 import operations_pb2_grpc
from gateway.settings import SERVICES
from gateway.transcode.contract import Method
from gateway.transcode.gather import gather
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from .conftest import SECRET, RunningGateway, gateway_before

AUTH = {"authorization": f"Bearer {SECRET}"}


class _Tracing(operations_pb2_grpc.TraceServiceServicer, operations_pb2_grpc.DeadLetterServiceServicer):
    """One service: knows the event `known`, and of each event what it was told about it."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def TraceEvent(
        self, request: pb.TraceEventRequest, context: grpc.aio.ServicerContext
    ) -> pb.TraceEventResponse:
        if request.message_id == "bug" and self._name == "metrics":
            raise KeyError("secret detail")
        if request.message_id == "refused":
            raise Invalid.field("message_id", "must be known")
        if request.message_id == "unknown" or (request.message_id == "bug" and self._name != "profile"):
            raise NotFound("nothing is known of this event")
        answer = pb.TraceEventResponse()
        if self._name == "profile":
            answer.events.add(message_id=request.message_id, source="shop", fragment_id=b"f" * 16)
        heard = ",".join(f"{event.source}:{event.fragment_id.decode()}" for event in request.events)
        answer.steps.add(service=self._name, detail=heard, outcome="COUNTED")
        return answer

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListDeadLettersResponse:
        return pb.ListDeadLettersResponse(dead_letters=[pb.DeadLetter(consumer=self._name)])

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: grpc.aio.ServicerContext
    ) -> pb.ReplayDeadLettersResponse:
        return pb.ReplayDeadLettersResponse(replayed_count=len(request.dead_letter_ids))


def _operations(name: str) -> list[Servicer]:
    """The operations of one service."""
    tracing, package = _Tracing(name), "dangol.operations.v1"
    return [
        Servicer(f"{package}.TraceService", operations_pb2_grpc.add_TraceServiceServicer_to_server, tracing),
        Servicer(f"{package}.DeadLetterService", operations_pb2_grpc.add_DeadLetterServiceServicer_to_server, tracing),
    ]


def platform(nats_url: str, names: Sequence[str]) -> AbstractAsyncContextManager[RunningGateway]:
    """Serve a gateway in front of some services."""
    return gateway_before(nats_url, {name: _operations(name) for name in names})


async def ask(gateway: RunningGateway, path: str) -> Any:
    """Ask with the development key; returns status and body."""
    answer = await gateway.http.get(path, headers=AUTH)
    return answer.status_code, answer.json()


async def test_every_service_answers_in_the_order_of_the_platform(nats_url: str) -> None:
    """What the first service knows of an event is told to the others, and all the answers are one."""
    async with platform(nats_url, SERVICES) as gateway:
        status, traced = await ask(gateway, "/v1/events/known:trace")
        assert status == 200
        assert [step["service"] for step in traced["steps"]] == list(SERVICES)
        assert [step["detail"] for step in traced["steps"]] == ["", *["shop:" + "f" * 16] * 4]
        assert len(traced["events"]) == 1
        assert traced["unavailableServices"] == []


async def test_a_service_that_is_away_makes_the_answer_partial(nats_url: str) -> None:
    async with platform(nats_url, ("profile", "feedback")) as gateway:
        status, traced = await ask(gateway, "/v1/events/known:trace")
        assert status == 200
        assert [step["service"] for step in traced["steps"]] == ["profile", "feedback"]
        assert traced["unavailableServices"] == ["segmentation", "recommend", "metrics"]


async def test_without_the_first_service_the_others_still_say_what_they_can(nats_url: str) -> None:
    async with platform(nats_url, ("metrics",)) as gateway:
        status, traced = await ask(gateway, "/v1/events/known:trace")
        assert (status, [step["detail"] for step in traced["steps"]]) == (200, [""])
        assert "profile" in traced["unavailableServices"]


async def test_a_service_that_fails_is_missing_and_says_nothing_of_its_inside(nats_url: str) -> None:
    async with platform(nats_url, SERVICES) as gateway:
        status, traced = await ask(gateway, "/v1/events/bug:trace")
        assert (status, traced["unavailableServices"]) == (200, ["metrics"])
        assert "secret" not in str(traced)


async def test_what_nobody_knows_is_not_found_only_when_everybody_was_asked(nats_url: str) -> None:
    async with platform(nats_url, SERVICES) as gateway:
        assert (await ask(gateway, "/v1/events/unknown:trace"))[0] == 404
    async with platform(nats_url, SERVICES[:3]) as gateway:
        status, problem = await ask(gateway, "/v1/events/unknown:trace")
        assert (status, problem["code"]) == (503, "UNAVAILABLE")


async def test_a_request_that_one_service_refuses_is_refused(nats_url: str) -> None:
    async with platform(nats_url, SERVICES) as gateway:
        status, problem = await ask(gateway, "/v1/events/refused:trace")
        assert (status, problem["violations"][0]["field"]) == (400, "messageId")


async def test_dead_letters_are_listed_once_by_whichever_service_can_be_reached(nats_url: str) -> None:
    """They are in one stream, so that asking everybody would list each of them five times."""
    async with platform(nats_url, SERVICES) as gateway:
        assert [letter["consumer"] for letter in (await ask(gateway, "/v1/dead-letters"))[1]["deadLetters"]] == [
            "profile"
        ]
    async with platform(nats_url, ("feedback", "metrics")) as gateway:
        assert [letter["consumer"] for letter in (await ask(gateway, "/v1/dead-letters"))[1]["deadLetters"]] == [
            "feedback"
        ]


def _listing() -> Method:
    """Make the contract of a gathered list, which the platform has none of yet."""
    file = descriptor_pb2.FileDescriptorProto(name="gathered_list.proto", package="dangol.operations.v1test")
    types = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="ListThingsRequest")
    request.field.add(name="page_token", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    answer = file.message_type.add(name="ListThingsResponse")
    answer.field.add(name="things", number=1, type=types.TYPE_STRING, label=types.LABEL_REPEATED)
    answer.field.add(name="next_page_token", number=2, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    answer.field.add(name="unavailable_services", number=3, type=types.TYPE_STRING, label=types.LABEL_REPEATED)
    answer.field.add(name="title", number=4, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    service = file.service.add(name="ThingService")
    service.method.add(
        name="ListThings",
        input_type=".dangol.operations.v1test.ListThingsRequest",
        output_type=".dangol.operations.v1test.ListThingsResponse",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindServiceByName("dangol.operations.v1test.ThingService")
    return Method(found.methods[0], (), "things.read", False, is_gathered=True)


class _Lists:
    """Things of several services, two to a page."""

    def __init__(self, things: dict[str, list[str]]) -> None:
        self._things = things
        self.away: set[str] = set()

    async def ask(self, name: str, request: Any) -> Any:
        if name in self.away:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        start = int(request.page_token or 0)
        page = self._things[name][start : start + 2]
        more = start + 2 < len(self._things[name])
        answer: Any = GetMessageClass(LISTING.descriptor.output_type)()
        answer.things.extend(page)
        answer.title = f"things of {name}"
        answer.next_page_token = str(start + 2) if more else ""
        return answer


LISTING = _listing()


async def _all_pages(lists: _Lists, names: Sequence[str]) -> tuple[list[list[str]], list[Any]]:
    request: Any = LISTING.request_class()
    pages, answers = [], []
    while True:
        answer: Any = await gather(LISTING, request, names, lists.ask)
        answers.append(answer)
        pages.append(list(answer.things))
        if not answer.next_page_token:
            return pages, answers
        request.page_token = answer.next_page_token


async def test_pages_of_a_gathered_list_go_on_in_each_service_where_it_stopped() -> None:
    lists = _Lists({"a": ["a1", "a2", "a3", "a4", "a5"], "b": ["b1"], "c": ["c1", "c2", "c3"]})
    pages, answers = await _all_pages(lists, ("a", "b", "c"))
    assert pages == [["a1", "a2", "b1", "c1", "c2"], ["a3", "a4", "c3"], ["a5"]]
    assert answers[0].title == "things of a"


async def test_a_list_ends_though_a_service_stays_away() -> None:
    """Who is away is asked again on each page, and never keeps a list from ending."""
    lists = _Lists({"a": ["a1", "a2", "a3"], "b": ["b1"]})
    lists.away = {"b"}
    pages, answers = await _all_pages(lists, ("a", "b"))
    assert pages == [["a1", "a2"], ["a3"]]
    assert [list(answer.unavailable_services) for answer in answers] == [["b"], ["b"]]


@pytest.mark.parametrize("token", ["bm90aGluZw", "eyJ6IjogIjEifQ", "eyJhIjogMX0"])
async def test_a_page_token_that_nobody_gave_out_is_refused(token: str) -> None:
    request: Any = LISTING.request_class()
    request.page_token = token
    with pytest.raises(Invalid):
        await gather(LISTING, request, ("a", "b"), _Lists({"a": [], "b": []}).ask)
