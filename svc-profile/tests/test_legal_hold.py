# SPDX-License-Identifier: Apache-2.0
"""Legal hold: what a law demands is set apart when the rest is erased, and destroyed when the law no longer does."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.clock import now, to_us
from chassis.retention.enforcing import Retention
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.profile.v1 import legal_hold_pb2 as pb
from dangol.profile.v1 import privacy_pb2, retention_pb2
from dangol.profile.v1.legal_hold_pb2_grpc import LegalHoldServiceStub
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError
from svc_profile.app import build
from svc_profile.settings import LegalHold, Settings
from svc_profile.usecases.holding import destroy_some

from .test_privacy import dump, erase, knows

DAY_US = 86_400_000_000
LAW = "전자상거래법 시행령 제6조"

numbers = itertools.count()


@pytest.fixture
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    """A service whose shop has to keep orders for five years and complaints for three."""
    holds = (LegalHold(event="Order Completed", days=1825, law=LAW), LegalHold(event="Complaint", days=1095, law="law"))
    async with running(build, Settings, engines, personal_services=("profile",), legal_holds=holds) as service:
        yield service


def happened(user: str, name: str, days_ago: int, **properties: Any) -> Event:
    """Return what a user did some days ago."""
    time_us = to_us(now()) - days_ago * DAY_US
    return Event(
        type=EventType.EVENT_TYPE_TRACK,
        source="web",
        message_id=f"m{next(numbers)}",
        user_id=user,
        name=name,
        time_us=time_us,
        received_time_us=time_us,
        properties=json.dumps({"buyer": f"{user}@example.com", **properties}).encode(),
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def held(service: RunningService, **fields: Any) -> list[pb.HeldRecord]:
    """Return what is on hold."""
    answer = await service.stub(LegalHoldServiceStub).ListHeldRecords(pb.ListHeldRecordsRequest(**fields))
    return list(answer.records)


async def test_an_erasure_sets_orders_apart_and_the_certificate_says_so(service: RunningService) -> None:
    """What no law demands, or no longer, is gone; nothing outside names the customer."""
    await collect(
        service,
        happened("kim", "Order Completed", 10, total=12_000),
        happened("kim", "Order Completed", 3000, total=7_000),
        happened("kim", "Product Viewed", 10),
        happened("lee", "Order Completed", 10, total=5_000),
    )
    request = await erase(service, "kim")
    assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    (record,) = await held(service, data_request_id=request.data_request_id)
    assert (record.event, record.law) == ("Order Completed", LAW)
    assert MessageToDict(record.content)["properties"] == {"buyer": "kim@example.com", "total": 12_000}
    assert record.expire_time.ToMicroseconds() - record.event_time.ToMicroseconds() == 1825 * DAY_US
    certificate = await service.stub(PrivacyServiceStub).GetErasureCertificate(
        privacy_pb2.GetErasureCertificateRequest(data_request_id=request.data_request_id)
    )
    account = json.loads(certificate.certificate.text)
    assert {"service": "profile", "what": "legal_hold", "count": 1, "why": LAW} in account["kept"]
    assert account["probe"]["leftovers"] == []
    assert not await knows(service, "user_id:kim")
    assert "kim@example.com" not in await dump(service)
    assert len(await held(service)) == 1


async def test_what_is_on_hold_is_destroyed_when_its_time_is_over(service: RunningService) -> None:
    """Not a day before."""
    await collect(service, happened("kim", "Order Completed", 1824), happened("kim", "Order Completed", 1))
    await erase(service, "kim")
    async with service.database.transaction() as tx:
        assert not await destroy_some(tx)
    assert len(await held(service)) == 2
    async with service.database.transaction() as tx:
        await tx.execute(
            "UPDATE legal_hold.records SET expire_time_us = expire_time_us - CAST(:days AS bigint)", days=2 * DAY_US
        )
        assert not await destroy_some(tx)
    (left,) = await held(service)
    assert left.event_time.ToMicroseconds() > to_us(now()) - 3 * DAY_US


async def test_only_its_own_scope_reads_it_and_every_reading_is_on_record(service: RunningService) -> None:
    """Somebody who may do everything else about privacy may not."""
    await collect(service, happened("kim", "Order Completed", 1))
    await erase(service, "kim")
    stub = service.stub(LegalHoldServiceStub, ("privacy.read", "privacy.write", "profile.read", "profile.pii"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListHeldRecords(pb.ListHeldRecordsRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await held(service)
    accesses = await service.stub(AccessLogServiceStub).ListAccesses(operations_pb2.ListAccessesRequest())
    assert "dangol.profile.v1.LegalHoldService.ListHeldRecords" in {access.method for access in accesses.accesses}


async def test_pages_hold_every_record_once(service: RunningService) -> None:
    """Newest first."""
    await collect(service, *(happened("kim", "Order Completed", day) for day in range(5)))
    await erase(service, "kim")
    everything, token = [], ""
    while True:
        request = pb.ListHeldRecordsRequest(page_size=2, page_token=token)
        answer = await service.stub(LegalHoldServiceStub).ListHeldRecords(request)
        everything += [record.record_id for record in answer.records]
        token = answer.next_page_token
        if not token:
            break
    assert everything == sorted(set(everything), reverse=True)
    assert len(everything) == 5


async def test_a_rule_of_retention_leaves_on_hold_what_a_law_demands_longer(service: RunningService) -> None:
    """And destroys the rest."""
    await collect(
        service,
        happened("kim", "Order Completed", 400),
        happened("kim", "Complaint", 2000),
        happened("kim", "Product Viewed", 400),
    )
    rule = retention_pb2.RetentionRule(rule_id="r", event="*", days=365, action=retention_pb2.RETENTION_ACTION_DESTROY)
    await service.deliver(retention_pb2.RetentionRulesChanged(retention_rules=[rule], revision=1))
    await Retention(service.database, service.service.retained).run()
    (record,) = await held(service)
    assert (record.event, record.data_request_id) == ("Order Completed", "")
    async with service.database.snapshot() as tx:
        assert await tx.value("SELECT count(*) FROM events WHERE payload IS NOT NULL") == 0


def test_an_event_is_on_hold_for_one_law() -> None:
    """Two times for one event would be a question without an answer."""
    twice = [LegalHold(event="Order Completed", days=days, law="law") for days in (1, 2)]
    with pytest.raises(ValidationError, match="named once"):
        Settings(legal_holds=tuple(twice))
