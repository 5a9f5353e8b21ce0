# SPDX-License-Identifier: Apache-2.0
"""Whatever a customer did, however it was spelt and whenever it arrives: after an erasure nothing of it is left."""

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from chassis.identity import IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType, RejectedEvent, RejectedEventBatch
from dangol.profile.v1 import privacy_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from svc_profile.app import build
from svc_profile.settings import Settings
from svc_profile.usecases.advancing import Advancing

from chassis import clock

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
numbers = itertools.count()

KINDS = ("identify", "view", "order", "page", "note")
SPELLINGS = (str.lower, str.upper, str.title)


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    """The service without its clock: a test takes every step of a request itself."""
    roles = ("rpc", "consumers")
    async with running(build, Settings, engines, roles=roles, personal_services=("profile",)) as started:
        yield started


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, str, int]]:
    """Draw what two customers do: who, what, and how it is spelt."""
    one = st.tuples(st.sampled_from(["gone", "stays"]), st.sampled_from(KINDS), st.integers(0, len(SPELLINGS) - 1))
    return draw(st.lists(one, min_size=2, max_size=14))


def event_of(who: str, kind: str, spelling: int) -> Event:
    """Return an event of a customer, who is named in it in one way or another."""
    number = next(numbers)
    user, device = f"{who}-user", f"{who}-device"
    mail = SPELLINGS[spelling](f"{who}@shop.example")
    event = Event(source="web", message_id=f"m{number}", time_us=START_US + number, anonymous_id=device)
    event.type = EventType.EVENT_TYPE_TRACK
    match kind:
        case "identify":
            event.type = EventType.EVENT_TYPE_IDENTIFY
            event.user_id = user
            event.traits = json.dumps({"email": mail, "name": f"{who} 단골"}).encode()
        case "page":
            event.type = EventType.EVENT_TYPE_PAGE
            event.context = json.dumps({"page": {"url": f"https://shop.example/?mail={mail}"}}).encode()
        case "order":
            event.name, event.user_id = "Order Completed", user
            event.properties = json.dumps({"revenue": 9, "receipt": {"to": [mail]}}).encode()
        case "note":
            event.name, event.user_id = "Note", user
            event.properties = json.dumps({"text": f"write to {mail}, please"}).encode()
        case _:
            event.name = "Product Viewed"
    return event


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(happenings(), st.data())
async def test_nothing_of_an_erased_customer_is_left_and_all_of_the_others(
    service: RunningService, happened: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """Events may come before, during and after the erasure, again and again."""
    number = next(numbers)
    names = {"gone": f"gone{number}q", "stays": f"stays{number}q"}
    drawn = [(who, event_of(names[who], kind, spelling)) for who, kind, spelling in happened]
    drawn += [("gone", event_of(names["gone"], "identify", 0)), ("stays", event_of(names["stays"], "identify", 1))]
    events = data.draw(st.permutations(drawn))
    during = data.draw(st.integers(0, len(events)))
    await deliver(service, [event for _, event in events])
    body = json.dumps({"userId": f"{names['gone']}-user", "event": ""}).encode()
    await service.deliver(
        RejectedEventBatch(events=[RejectedEvent(message_id="r", source="web", body=body)]), subject="events.rejected"
    )
    await erase(service, names["gone"], [event for _, event in events[:during]])
    await deliver(service, [event for _, event in events[during:]])
    left = await everything(service)
    assert names["gone"] not in left
    for reference in ("user_id:{}-user", "anonymous_id:{}-device", "email:{}@shop.example"):
        assert str(KEY.resolve(reference.format(names["gone"]))) not in left
    found = await service.stub(ProfileServiceStub).GetProfile(
        pb.GetProfileRequest(profile=f"user_id:{names['stays']}-user")
    )
    counted = Counter(counted_name(event) for who, event in drawn if who == "stays")
    assert dict(found.profile.event_counts) == counted


def counted_name(event: Event) -> str:
    """Return what an event counts as."""
    names = {EventType.EVENT_TYPE_IDENTIFY: "identify", EventType.EVENT_TYPE_PAGE: "page"}
    return names.get(event.type, event.name)


async def deliver(service: RunningService, events: Sequence[Event]) -> None:
    """Let events come, some at a time."""
    for start in range(0, len(events), 4):
        await service.deliver(EventBatch(events=events[start : start + 4]), subject="events.collected.0")


async def erase(service: RunningService, name: str, meanwhile: Sequence[Event]) -> None:
    """Take every step of an erasure; events come in the middle of it."""
    stub = service.stub(PrivacyServiceStub)
    request = privacy_pb2.CreateDataRequestRequest(
        profile=f"user_id:{name}-user", kind=privacy_pb2.DATA_REQUEST_KIND_ERASE
    )
    data_request_id = (await stub.CreateDataRequest(request)).data_request.data_request_id
    advancing = next(
        job.run.__self__  # type: ignore[attr-defined]
        for job in service.service.jobs
        if job.name == "data-requests"
    )
    assert isinstance(advancing, Advancing)
    pending = list(meanwhile)
    for step in range(20):
        await advancing.advance(data_request_id, clock.now() + timedelta(seconds=10 * step))
        await deliver(service, [pending.pop() for _ in range(min(3, len(pending)))])
        await service.settled()
        found = await stub.GetDataRequest(privacy_pb2.GetDataRequestRequest(data_request_id=data_request_id))
        if found.data_request.HasField("done_time"):
            break
    assert found.data_request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    certificate = await stub.GetErasureCertificate(
        privacy_pb2.GetErasureCertificateRequest(data_request_id=data_request_id)
    )
    assert json.loads(certificate.certificate.text)["probe"]["leftovers"] == []


async def everything(service: RunningService) -> str:
    """Return every row of every table but the tombstones as text, bytes as they are."""
    async with service.database.snapshot() as tx:
        tables = await tx.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            " AND table_name <> 'forgotten_fragments'"
        )
        rows = [row for table in tables for row in await tx.rows(f'SELECT * FROM "{table[0]}"')]
    return "\n".join(_text(value) for row in rows for value in row).lower()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
