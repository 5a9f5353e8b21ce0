# SPDX-License-Identifier: Apache-2.0
"""The gate of consent and the access log, as a service has them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from chassis.bus import Bus
from chassis.clock import now, to_timestamp
from chassis.consent import GRANTED, PERSONALIZATION, Use, impersonal, refused
from chassis.database import Database
from chassis.errors import PermissionDenied
from chassis.gate import Gate
from chassis.identity import FragmentId, IdentityKey, format_profile_id
from chassis.rpc import Servicer
from chassis.service import Service
from chassis.settings import ServiceSettings
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from chassis.tokens import Caller
from dangol.operations.v1 import operations_pb2 as operations
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.options.v1 import options_pb2
from dangol.profile.v1.consent_pb2 import ConsentsChanged, PurposeSaved
from dangol.recommend.v1 import recommend_pb2 as pb
from dangol.recommend.v1.recommend_pb2_grpc import (
    RecommendServiceServicer,
    RecommendServiceStub,
    add_RecommendServiceServicer_to_server,
)
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

# A process has one tracer provider; `chassis.telemetry.configure` sets it in a real one.
if not isinstance(trace.get_tracer_provider(), TracerProvider):
    trace.set_tracer_provider(TracerProvider())

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
_revisions = itertools.count(1)


class Settings(ServiceSettings):
    service: ClassVar[str] = "gated"


class SampleRpc(RecommendServiceServicer):
    """Answers with something of the customer, unless it must not."""

    async def RecommendItems(
        self, request: pb.RecommendItemsRequest, context: grpc.aio.ServicerContext
    ) -> pb.RecommendItemsResponse:
        return pb.RecommendItemsResponse(personalized=not impersonal())


def build(settings: Settings) -> Service:
    return Service(
        settings=settings,
        bus=Bus(settings, "gated"),
        database=Database(settings),
        migrations=Path("none"),
        servicers=[
            Servicer("dangol.recommend.v1.RecommendService", add_RecommendServiceServicer_to_server, SampleRpc())
        ],
    )


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as sample:
        yield sample


def fragment(name: str) -> FragmentId:
    return KEY.resolve(f"user_id:{name}")


def consents(
    name: str, *, granted: Sequence[str] = (), refused: Sequence[str] = (), restricted: bool = False, revision: int = 0
) -> ConsentsChanged:
    """Return what svc-profile says of a customer with one identifier."""
    return ConsentsChanged(
        profile_id=fragment(name).bytes,
        fragment_ids=[fragment(name).bytes],
        granted_purpose_ids=granted,
        refused_purpose_ids=refused,
        restricted=restricted,
        revision=revision or next(_revisions),
    )


async def is_personal(service: RunningService, name: str) -> bool:
    answer = await service.stub(RecommendServiceStub).RecommendItems(
        pb.RecommendItemsRequest(profile=f"user_id:{name}")
    )
    return bool(answer.personalized)


async def accesses(service: RunningService, **wanted: Any) -> list[operations.Access]:
    answer = await service.stub(AccessLogServiceStub).ListAccesses(operations.ListAccessesRequest(**wanted))
    return list(answer.accesses)


async def test_a_customer_who_said_nothing_has_the_default(service: RunningService) -> None:
    assert await is_personal(service, "silent")


async def test_a_refused_purpose_gets_an_answer_with_nothing_of_the_customer(service: RunningService) -> None:
    """And a grant that comes later opens the gate again."""
    await service.deliver(consents("ana", refused=["personalization"]))
    assert not await is_personal(service, "ana")
    await service.deliver(consents("ana", granted=["personalization"]))
    assert await is_personal(service, "ana")


async def test_restricted_processing_blocks_what_the_customer_granted(service: RunningService) -> None:
    await service.deliver(consents("bo", granted=["personalization"], restricted=True))
    assert not await is_personal(service, "bo")


async def test_the_highest_revision_wins_whatever_comes_last(service: RunningService) -> None:
    await service.deliver(consents("chris", refused=["personalization"], revision=9))
    await service.deliver(consents("chris", revision=8))
    assert not await is_personal(service, "chris")


async def test_a_default_can_be_turned_around(service: RunningService) -> None:
    """A company that asks first: only who granted gets a personal answer."""
    await service.deliver(consents("dana", granted=["personalization"]))
    purpose = PurposeSaved(purpose_id="personalization", kind=options_pb2.PURPOSE_PERSONALIZATION, revision=1)
    await service.deliver(purpose)
    assert await is_personal(service, "dana")
    assert not await is_personal(service, "erin")
    purpose.granted_by_default, purpose.revision = True, 2
    await service.deliver(purpose)
    assert await is_personal(service, "erin")


async def test_one_channel_is_enough_for_marketing_and_none_for_personalization(service: RunningService) -> None:
    """Each channel is a purpose of its own; a second purpose of another kind has to be granted too."""
    await service.deliver(consents("fay", granted=["marketing_sms"], refused=["marketing_email"]))
    await service.deliver(consents("gil", granted=["night_marketing"]))
    async with service.database.snapshot() as tx:
        both = [fragment("fay"), fragment("gil")]
        assert await refused(tx, both, options_pb2.PURPOSE_MARKETING) == {fragment("gil")}
        assert await refused(tx, both, options_pb2.PURPOSE_ANALYTICS) == set()


async def test_every_access_is_on_record(service: RunningService) -> None:
    """Who asked, for what, about whom, and what became of it; newest first, in pages."""
    before = to_timestamp(now())
    await service.deliver(consents("hana", refused=["personalization"]))
    await is_personal(service, "hana")
    await service.deliver(consents("hana"))
    await is_personal(service, "hana")
    found = await accesses(service, profile="user_id:hana")
    assert [access.outcome for access in found] == [
        operations.ACCESS_OUTCOME_GRANTED,
        operations.ACCESS_OUTCOME_IMPERSONAL,
    ]
    newest = found[0]
    assert newest.caller == "test"
    assert newest.method == "dangol.recommend.v1.RecommendService.RecommendItems"
    assert newest.purpose == options_pb2.PURPOSE_PERSONALIZATION
    assert newest.profile_id == format_profile_id(fragment("hana"))
    assert newest.service == "gated"
    assert len(newest.trace_id) == 32
    assert await accesses(service, profile=newest.profile_id, start_time=before, caller="test") == found
    assert await accesses(service, profile="user_id:hana", end_time=before) == []
    assert await accesses(service, caller="nobody") == []
    stub = service.stub(AccessLogServiceStub)
    first = await stub.ListAccesses(operations.ListAccessesRequest(profile="user_id:hana", page_size=1))
    request = operations.ListAccessesRequest(profile="user_id:hana", page_size=1, page_token=first.next_page_token)
    second = await stub.ListAccesses(request)
    assert [*first.accesses, *second.accesses] == found
    assert not second.next_page_token


async def test_calls_at_the_same_time_are_all_on_record(service: RunningService) -> None:
    """They share commits, and none is lost."""
    stub = service.stub(RecommendServiceStub)
    await asyncio.gather(
        *(stub.RecommendItems(pb.RecommendItemsRequest(profile=f"user_id:crowd-{i % 4}")) for i in range(80))
    )
    counts = [len(await accesses(service, profile=f"user_id:crowd-{i}")) for i in range(4)]
    assert counts == [20, 20, 20, 20]


async def test_a_denied_access_is_refused_by_name_and_on_record(service: RunningService) -> None:
    """A method without an impersonal answer does not run at all."""
    await service.deliver(consents("ida", refused=["personalization"]))
    gate = Gate(service.service.settings, service.database)
    use = Use(PERSONALIZATION, is_impersonal_without=False, reference=lambda request: "user_id:ida")
    ran: list[int] = []

    async def call() -> None:
        ran.append(GRANTED)

    with pytest.raises(PermissionDenied) as caught:
        await gate.pass_through(use, "test.Method", Caller("spy", frozenset()), pb.GetItemRequest(), call)
    assert caught.value.reason == "CONSENT_MISSING"
    assert caught.value.metadata == {"purpose": "personalization"}
    assert ran == []
    (denied,) = await accesses(service, caller="spy")
    assert denied.outcome == operations.ACCESS_OUTCOME_DENIED


async def test_a_method_without_a_purpose_leaves_no_trace(service: RunningService) -> None:
    """There is nothing personal to read."""
    before = await accesses(service)
    with pytest.raises(grpc.aio.AioRpcError):
        await service.stub(RecommendServiceStub).GetItem(pb.GetItemRequest(item_id="i"))
    assert await accesses(service) == before


async def test_only_an_auditor_reads_the_access_log(service: RunningService) -> None:
    stub = service.stub(AccessLogServiceStub, ["operations.read", "recommend.read"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListAccesses(operations.ListAccessesRequest())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
