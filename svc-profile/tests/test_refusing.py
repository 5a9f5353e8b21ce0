# SPDX-License-Identifier: Apache-2.0
"""Events of customers who refuse to be analysed, or whose processing is restricted, through the running service."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from chassis.clock import now, to_us
from chassis.identity import IdentityKey
from chassis.service import Runner
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import consent_pb2, identity_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer
from svc_profile.settings import Settings
from svc_profile.usecases.consent import Call, restrict

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
GRANTED, WITHDRAWN = consent_pb2.CONSENT_ANSWER_GRANTED, consent_pb2.CONSENT_ANSWER_WITHDRAWN
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"r{next(numbers)}"


def track(name: str, minute: int, *, consent: dict[str, bool] | None = None, **fields: Any) -> Event:
    """Build an event that was received when it happened."""
    time_us = START_US + minute * MINUTE_US
    context = b"" if consent is None else json.dumps({"consent": {"categoryPreferences": consent}}).encode()
    kind = {"type": EventType.EVENT_TYPE_TRACK, "source": "web", "message_id": f"m{next(numbers)}"}
    return Event(
        **{**kind, "name": name, "time_us": time_us, "received_time_us": time_us, "context": context, **fields}
    )


def decision(minute: int, *, granted: bool, **names: str) -> Event:
    return track("Consent Updated", minute, consent={"analytics": granted}, **names)


async def collect(service: RunningService, *events: Event) -> None:
    """Deliver events in one message, and wait until what follows has followed."""
    await service.deliver(EventBatch(events=events), subject="events.collected.1")
    await settled(service)


async def settled(service: RunningService) -> None:
    async with asyncio.timeout(60):
        while await waits(service):
            await asyncio.sleep(0.01)
    await service.settled()


async def waits(service: RunningService) -> bool:
    async with service.database.snapshot() as tx:
        return bool(await tx.value("SELECT EXISTS (SELECT FROM consent_due)"))


async def record(service: RunningService, profile: str, answer: Any, purpose_id: str = "analytics") -> None:
    decisions = [consent_pb2.ConsentDecision(purpose_id=purpose_id, answer=answer)]
    request = consent_pb2.RecordConsentRequest(profile=profile, decisions=decisions)
    await service.stub(ConsentServiceStub).RecordConsent(request)
    await settled(service)


async def counts(service: RunningService, profile: str) -> dict[str, int]:
    answer = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=profile))
    return dict(answer.profile.event_counts)


async def heard(service: RunningService, *fragments: str) -> Counter[str]:
    """Return the names of events that another service has of some fragments: what it heard and did not forget.

    Fragments are named by references; those that were derived from them count as theirs.
    """
    known = {KEY.resolve(reference).bytes for reference in fragments}
    async with service.database.snapshot() as tx:
        rows = await tx.rows("SELECT fragment_id, value FROM fragments WHERE namespace = 'derived'")
    forgotten = {f for m in await service.published(identity_pb2.FragmentsForgotten) for f in m.fragment_ids}
    derived = {row.fragment_id.bytes for row in rows if bytes.fromhex(row.value.split(":")[0]) in known}
    batches = await service.sent(EventBatch, "events.resolved.*")
    seen = {(e.source, e.message_id, e.fragment_id): e.name for b in batches for e in b.events}
    return Counter(name for (_, _, f), name in seen.items() if f in (known | derived) - forgotten)


async def test_a_refusal_holds_from_then_on(service: RunningService, tag: str) -> None:
    """What came before stays; a new grant lets events in again, and nothing in between comes back."""
    user = f"user_id:{tag}"
    await collect(service, track("Before", 1, user_id=tag))
    await collect(service, decision(2, granted=False, user_id=tag))
    await collect(service, track("Between", 3, user_id=tag), track("Between", 4, user_id=tag))
    await collect(service, decision(5, granted=True, user_id=tag), track("After", 6, user_id=tag))
    expected = {"Before": 1, "Consent Updated": 1, "After": 1}
    assert await counts(service, user) == expected
    assert await heard(service, user) == expected


async def test_a_refusal_by_call_holds_when_the_call_is_answered(service: RunningService, tag: str) -> None:
    user, later = f"user_id:{tag}", (to_us(now()) - START_US) // MINUTE_US + 1
    await collect(service, track("Before", 1, user_id=tag))
    await record(service, user, WITHDRAWN)
    await collect(service, track("Late but received before", 2, user_id=tag), track("After", later, user_id=tag))
    assert await counts(service, user) == {"Before": 1, "Late but received before": 1}
    await record(service, user, GRANTED)
    await collect(service, track("Again", later + 1, user_id=tag))
    assert await heard(service, user) == {"Before": 1, "Late but received before": 1, "Again": 1}


async def test_the_refusal_reaches_a_device_that_logs_in(service: RunningService, tag: str) -> None:
    """The login itself is not taken in, but that the device is the customer's is learnt from it."""
    user, device = f"user_id:{tag}", f"anonymous_id:d-{tag}"
    await collect(service, track("Visit", 1, anonymous_id=f"d-{tag}"), decision(2, granted=False, user_id=tag))
    await collect(service, track("Login", 3, user_id=tag, anonymous_id=f"d-{tag}"))
    await collect(service, track("Visit", 4, anonymous_id=f"d-{tag}"))
    assert await counts(service, device) == await counts(service, user) == {"Visit": 1}
    assert await heard(service, user, device) == {"Visit": 1}


async def test_an_event_that_refuses_is_not_taken_in(service: RunningService, tag: str) -> None:
    """And its answer holds for the next one, which says nothing, even in the same message."""
    await collect(
        service,
        track("Visit", 1, anonymous_id=tag, consent={"analytics": False}),
        track("Visit", 2, anonymous_id=tag),
    )
    await collect(service, track("Visit", 3, anonymous_id=tag))
    assert await heard(service, f"anonymous_id:{tag}") == {}


async def test_a_restriction_holds_whatever_is_granted(service: RunningService, tag: str) -> None:
    """Until it is lifted; the customer's own correction passes."""
    user, moment = f"user_id:{tag}", to_us(now())
    later = (moment - START_US) // MINUTE_US + 1
    await collect(service, track("Before", 1, user_id=tag))
    for is_restricted, name in ((True, "Restricted"), (False, "Lifted")):
        call = Call("test", "", "", "", to_us(now()), moment if is_restricted else to_us(now()) + 2 * MINUTE_US)
        async with service.database.transaction() as tx:
            await restrict(tx, KEY.resolve(user).bytes, is_restricted=is_restricted, call=call)
        await settled(service)
        at = later if is_restricted else later + 3
        await collect(service, track(name, at, user_id=tag, consent={"analytics": True}))
        await collect(service, track("Correction", at, user_id=tag, source="privacy"))
    assert await counts(service, user) == {"Before": 1, "Lifted": 1, "Correction": 2}


async def deliver_in(service: RunningService, order: Sequence[Event]) -> None:
    for event in order:
        await collect(service, event)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
async def test_every_order_ends_the_same(service: RunningService, tag: str, order: Sequence[int]) -> None:
    """Also when the refusal, or whose device it was, becomes known after what had to be refused was taken in."""
    events = [
        track("Visit", 1, anonymous_id=f"d-{tag}"),
        track("Login", 2, user_id=tag, anonymous_id=f"d-{tag}"),
        decision(3, granted=False, user_id=tag),
        track("Visit", 4, anonymous_id=f"d-{tag}"),
    ]
    await deliver_in(service, [events[place] for place in order])
    user, device = f"user_id:{tag}", f"anonymous_id:d-{tag}"
    assert await counts(service, user) == {"Visit": 1, "Login": 1}
    assert await heard(service, user, device) == {"Visit": 1, "Login": 1}


async def test_where_customers_are_asked_first_only_who_granted_is_analysed(engines: Engines) -> None:
    """From the moment on at which the default was changed; what was taken in before stays."""
    both = ("user_id:ana", "user_id:bo")
    async with running(build, Settings, engines) as service:
        await collect(service, *(track("Before", 1, user_id=user) for user in ("ana", "bo")))
        purpose = consent_pb2.Purpose(purpose_id="analytics")
        request = consent_pb2.UpdatePurposeRequest(purpose=purpose)
        request.update_mask.paths.append("granted_by_default")
        await service.stub(ConsentServiceStub).UpdatePurpose(request)
        await settled(service)
        later = (to_us(now()) - START_US) // MINUTE_US + 1
        await collect(service, track("Silent", later, user_id="ana"), decision(later + 1, granted=True, user_id="bo"))
        await collect(service, track("Granted", later + 2, user_id="bo"), track("Silent", later + 3, user_id="ana"))
        assert await heard(service, *both) == {"Before": 2, "Consent Updated": 1, "Granted": 1}


async def test_events_can_be_counted_without_a_person(engines: Engines, tag: str) -> None:
    """Their name, time and what was dealt with, and nothing by which anybody could find the customer, or tell two of
    the customer's events to be of one."""
    async with running(build, Settings, engines, without_analytics="anonymise") as service:
        properties = {"product_id": "sku-1", "email": "ana@example.com", "products": [{"sku": "sku-2", "coupon": "A1"}]}
        more: dict[str, Any] = {"properties": json.dumps(properties).encode(), "anonymous_id": f"d-{tag}"}
        await collect(service, decision(1, granted=False, user_id=tag))
        await collect(service, *(track("Product Added", at, user_id=tag, **more) for at in (2, 3)))
        await collect(
            service, track("x", 4, user_id=tag, type=EventType.EVENT_TYPE_IDENTIFY, traits=b'{"name": "Ana"}')
        )
        batches = await service.sent(EventBatch, "events.resolved.*")
        told = [event for batch in batches for event in batch.events]
        assert sorted(event.name for event in told) == ["Consent Updated", "Product Added", "Product Added"]
        added = [event for event in told if event.name == "Product Added"]
        assert [event.time_us - START_US for event in added] == [2 * MINUTE_US, 3 * MINUTE_US]
        for event in added:
            assert json.loads(event.properties) == {"product_id": "sku-1", "products": [{"sku": "sku-2"}]}
            assert (event.user_id, event.anonymous_id, event.context, event.traits) == ("", "", b"", b"")
        ids = {event.fragment_id for event in told} | {event.profile_id for event in told}
        assert len(ids) == 3
        assert KEY.resolve(f"user_id:{tag}").bytes not in ids
        assert len({event.message_id for event in told} - {f"m{n}" for n in range(10_000)}) == 3
        assert await counts(service, f"user_id:{tag}") == {}


async def test_what_is_taken_back_is_counted_too(engines: Engines, tag: str) -> None:
    """In whatever order it arrives; of somebody who has restricted processing, nothing is even counted."""
    async with running(build, Settings, engines, without_analytics="anonymise") as service:
        user = f"user_id:{tag}"
        late = track("Visit", 2, user_id=tag)
        await collect(service, late)
        await collect(service, decision(1, granted=False, user_id=tag))
        assert await heard(service, user) == {}
        call = Call("test", "", "", "", to_us(now()), to_us(now()))
        async with service.database.transaction() as tx:
            await restrict(tx, KEY.resolve(user).bytes, is_restricted=True, call=call)
        await settled(service)
        after = (to_us(now()) - START_US) // MINUTE_US + 1
        await collect(service, track("Restricted", after, user_id=tag))
        batches = await service.sent(EventBatch, "events.resolved.*")
        unknown = [e for batch in batches for e in batch.events if not e.user_id]
        assert sorted(event.name for event in unknown) == ["Consent Updated", "Visit"]


async def test_what_a_killed_process_left_is_finished_by_the_next(engines: Engines) -> None:
    """A refusal was answered, and the process died before what came too late was taken back."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        later = (to_us(now()) - START_US) // MINUTE_US + 5
        visits = EventBatch(events=[track("Visit", 1, user_id="ana"), track("Visit", later, user_id="ana")])
        async with service.database.transaction() as tx:
            await Collecting(Namer(KEY)).on_collected(tx, [Delivery(visits, "visits", "events.collected.0", 1, 1)])
        decisions = [consent_pb2.ConsentDecision(purpose_id="analytics", answer=WITHDRAWN)]
        request = consent_pb2.RecordConsentRequest(profile="user_id:ana", decisions=decisions)
        await service.stub(ConsentServiceStub).RecordConsent(request)
        assert await waits(service)
        assert await counts(service, "user_id:ana") == {"Visit": 2}
        next_one = Runner(build(cast(Settings, service.service.settings)), ("consumers",))
        await next_one.start()
        try:
            await settled_by(service, next_one)
            assert await counts(service, "user_id:ana") == {"Visit": 1}
        finally:
            await next_one.stop()


async def settled_by(service: RunningService, runner: Runner) -> None:
    async with asyncio.timeout(60):
        while await waits(service):
            await asyncio.sleep(0.01)
    await RunningService(runner.service, runner).settled()
