# SPDX-License-Identifier: Apache-2.0
"""The service through its real doors: events in over JetStream, answers out over gRPC."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc
import pytest
from chassis.identity import IdentityKey, format_profile_id
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1 import events_pb2
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import identity_pb2, ingest_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.json_format import MessageToDict
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer
from svc_profile.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, identifiers=[{"namespace": "loyalty"}]) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"t{next(numbers)}"


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


async def profile(service: RunningService, reference: str) -> pb.Profile:
    request = pb.GetProfileRequest(profile=reference)
    answer: pb.GetProfileResponse = await service.stub(ProfileServiceStub).GetProfile(request)
    return answer.profile


async def conflicts(service: RunningService, reference: str = "", **fields: Any) -> Any:
    request = identity_pb2.ListIdentityConflictsRequest(profile=reference, **fields)
    return await service.stub(IdentityServiceStub).ListIdentityConflicts(request)


async def resolved(service: RunningService, *message_ids: str) -> list[Event]:
    """Return the resolved events with some message ids."""
    batches = await service.sent(EventBatch, "events.resolved.*")
    return [event for batch in batches for event in batch.events if event.message_id in message_ids]


def prf(reference: str) -> str:
    return format_profile_id(KEY.resolve(reference))


async def test_a_visitor_who_logs_in_keeps_the_history(service: RunningService, tag: str) -> None:
    """What was done anonymously belongs to the user afterwards, and every reference answers the same."""
    visitor, user, mail = f"d-{tag}", f"u-{tag}", f"{tag}@example.com"
    await collect(service, event("page", anonymous_id=visitor), event("page", at=1, anonymous_id=visitor))
    alone = await profile(service, f"anonymous_id:{visitor}")
    await collect(
        service,
        event("identify", at=2, anonymous_id=visitor, user_id=user, traits={"email": mail.upper(), "name": "김단골"}),
        event("track", at=3, name="Product Viewed", user_id=user),
    )
    references = [f"anonymous_id:{visitor}", f"user_id:{user}", f"email:{mail}", alone.profile_id]
    answers = [await profile(service, reference) for reference in references]
    assert all(answer == answers[0] for answer in answers)
    known = answers[0]
    assert known.profile_id == alone.profile_id == prf(f"anonymous_id:{visitor}")
    assert dict(known.event_counts) == {"page": 2, "identify": 1, "Product Viewed": 1}
    assert [(i.namespace, i.value) for i in known.identifiers] == [
        ("anonymous_id", visitor),
        ("email", mail),
        ("user_id", user),
    ]
    assert known.first_seen_time.ToMicroseconds() == START_US
    assert known.last_seen_time.ToMicroseconds() == START_US + 3 * MINUTE_US
    assert known.traits["name"] == "김단골"


async def test_two_known_people_behind_one_device_stay_two(service: RunningService, tag: str) -> None:
    """A shared tablet belongs to the first who logged in on it; the second is a recorded conflict."""
    tablet, first, second = f"d-{tag}", f"u1-{tag}", f"u2-{tag}"
    await collect(service, event("page", anonymous_id=tablet))
    await collect(service, event("identify", at=1, anonymous_id=tablet, user_id=first, traits={"name": "Kim"}))
    late = event("identify", at=2, anonymous_id=tablet, user_id=second, traits={"name": "Lee"})
    await collect(service, late)
    kim, lee = await profile(service, f"user_id:{first}"), await profile(service, f"user_id:{second}")
    assert kim.profile_id == prf(f"anonymous_id:{tablet}")
    assert lee.profile_id == prf(f"user_id:{second}")
    assert (kim.traits["name"], lee.traits["name"]) == ("Kim", "Lee")
    assert dict(lee.event_counts) == {"identify": 1}
    for reference in (f"user_id:{first}", f"user_id:{second}", f"anonymous_id:{tablet}"):
        answer = await conflicts(service, reference)
        assert [(c.profile_id, c.claiming_profile_id, c.rule, c.message_id) for c in answer.conflicts] == [
            (kim.profile_id, lee.profile_id, "same_event", late.message_id)
        ]
    conflict = answer.conflicts[0]
    assert (conflict.identifier.namespace, conflict.identifier.value) == ("anonymous_id", tablet)
    assert conflict.claim_time.ToMicroseconds() == START_US + 2 * MINUTE_US


async def test_an_earlier_login_that_arrives_late_takes_the_device_back(service: RunningService, tag: str) -> None:
    """Who was first is decided by event time, not by arrival."""
    tablet, first, second = f"d-{tag}", f"u1-{tag}", f"u2-{tag}"
    await collect(service, event("identify", at=5, anonymous_id=tablet, user_id=second))
    assert (await profile(service, f"anonymous_id:{tablet}")) == (await profile(service, f"user_id:{second}"))
    await collect(service, event("identify", at=1, anonymous_id=tablet, user_id=first))
    assert (await profile(service, f"anonymous_id:{tablet}")) == (await profile(service, f"user_id:{first}"))
    alone = await profile(service, f"user_id:{second}")
    assert [identifier.namespace for identifier in alone.identifiers] == ["user_id"]


async def test_a_shared_mail_address_does_not_join_two_users(service: RunningService, tag: str) -> None:
    mail, first, second = f"{tag}@example.com", f"u1-{tag}", f"u2-{tag}"
    await collect(
        service,
        event("identify", user_id=first, traits={"email": mail}),
        event("identify", at=1, user_id=second, traits={"email": mail}),
    )
    assert await profile(service, f"email:{mail}") == await profile(service, f"user_id:{first}")
    assert (await profile(service, f"user_id:{second}")).profile_id == prf(f"user_id:{second}")
    assert len((await conflicts(service, f"user_id:{second}")).conflicts) == 1


async def test_an_alias_joins_an_old_id_to_a_new_one(service: RunningService, tag: str) -> None:
    old, user = f"old-{tag}", f"u-{tag}"
    await collect(service, event("page", anonymous_id=old), event("track", at=1, name="Signed Up", user_id=user))
    await collect(service, event("alias", at=2, previous_id=old, user_id=user))
    known = await profile(service, f"user_id:{user}")
    assert dict(known.event_counts) == {"page": 1, "Signed Up": 1, "alias": 1}
    assert known.profile_id == prf(f"anonymous_id:{old}")
    assert not (await conflicts(service, f"user_id:{user}")).conflicts


async def test_an_alias_between_two_known_users_is_a_conflict(service: RunningService, tag: str) -> None:
    """Also when the former user is heard of only after the alias."""
    former, user = f"u1-{tag}", f"u2-{tag}"
    alias = event("alias", at=2, previous_id=former, user_id=user)
    await collect(service, alias)
    assert not (await conflicts(service, f"user_id:{user}")).conflicts
    with pytest.raises(grpc.aio.AioRpcError, match="nobody is known"):
        await profile(service, f"user_id:{former}")
    await collect(service, event("track", name="Product Viewed", user_id=former))
    assert (await profile(service, f"user_id:{former}")).profile_id == prf(f"user_id:{former}")
    answer = await conflicts(service, f"user_id:{user}")
    assert [(c.rule, c.identifier.value, c.message_id) for c in answer.conflicts] == [
        ("alias", former, alias.message_id)
    ]
    assert [c.claiming_profile_id for c in answer.conflicts] == [(await profile(service, f"user_id:{user}")).profile_id]


async def test_identifiers_are_normalised(service: RunningService, tag: str) -> None:
    """One spelling of an e-mail address, a Korean phone number and a configured identifier."""
    number = f"010-{1000 + int(tag[1:]):04d}-5678"
    traits = {"email": f"  Kim.{tag}@Example.COM ", "phone": number, "loyalty": 4711_00 + int(tag[1:])}
    await collect(service, event("identify", user_id=f"u-{tag}", traits=traits))
    values = {i.namespace: i.value for i in (await profile(service, f"phone:{number}")).identifiers}
    assert values == {
        "user_id": f"u-{tag}",
        "email": f"kim.{tag}@example.com",
        "phone": "+82" + number[1:].replace("-", ""),
        "loyalty": str(traits["loyalty"]),
    }


async def test_traits_follow_event_time_and_numbers_keep_their_value(service: RunningService, tag: str) -> None:
    """A late older event does not overwrite; null takes a trait back; a number that no double holds becomes text."""
    user = f"u-{tag}"
    exact = {"age": 34, "score": 0.1, "big": 2**53, "id": 12345678901234567890, "flags": [1, None, {"a": True}]}
    await collect(service, event("identify", at=5, user_id=user, traits={"plan": "gold", "fax": "1", **exact}))
    await collect(service, event("identify", at=1, user_id=user, traits={"plan": "silver", "city": "Seoul"}))
    await collect(service, event("identify", at=6, user_id=user, traits={"fax": None}))
    assert MessageToDict((await profile(service, f"user_id:{user}")).traits) == {
        "plan": "gold",
        "city": "Seoul",
        "age": 34,
        "score": 0.1,
        "big": 2**53,
        "id": "12345678901234567890",
        "flags": [1, None, {"a": True}],
    }


async def test_revenue_is_exact_by_currency(service: RunningService, tag: str) -> None:
    user = f"u-{tag}"
    orders = [{"revenue": 0.1, "currency": "USD"}] * 3 + [{"total": 19900}, {"revenue": "100.5"}]
    await collect(service, *(event("track", name="Order Completed", user_id=user, properties=o) for o in orders))
    await collect(service, event("track", name="Order Refunded", user_id=user, properties={"revenue": 900}))
    known = await profile(service, f"user_id:{user}")
    assert dict(known.revenue) == {"USD": 0.3, "KRW": 19100.5}
    assert dict(known.event_counts) == {"Order Completed": 5, "Order Refunded": 1}


async def test_groups_and_screens(service: RunningService, tag: str) -> None:
    """The traits of a group are not those of its member."""
    user = f"u-{tag}"
    await collect(
        service,
        event("group", user_id=user, group_id="g2", traits={"name": "Acme", "email": f"acme-{tag}@example.com"}),
        event("group", user_id=user, group_id="g1"),
        event("screen", user_id=user, name="Home"),
    )
    known = await profile(service, f"user_id:{user}")
    assert list(known.groups) == ["g1", "g2"]
    assert dict(known.event_counts) == {"group": 2, "screen": 1}
    assert not known.traits.fields
    assert [identifier.namespace for identifier in known.identifiers] == ["user_id"]


async def test_a_repeated_event_counts_once(service: RunningService, tag: str) -> None:
    """Within a batch, in another batch, and under another source it is another event."""
    user = f"u-{tag}"
    once = event("track", name="Product Viewed", user_id=user, message_id=f"dup-{tag}")
    elsewhere = event("track", name="Product Viewed", user_id=user, message_id=f"dup-{tag}", source="app")
    await collect(service, once, once)
    await collect(service, once, elsewhere)
    before = len(await service.sent(EventBatch, "events.resolved.*"))
    await collect(service, once, elsewhere)
    assert dict((await profile(service, f"user_id:{user}")).event_counts) == {"Product Viewed": 2}
    assert sorted(e.source for e in await resolved(service, f"dup-{tag}")) == ["app", "web"]
    assert len(await service.sent(EventBatch, "events.resolved.*")) == before


async def test_a_crash_between_commit_and_publish_loses_and_doubles_nothing(service: RunningService, tag: str) -> None:
    """What was committed and not published is published when the message comes again, and teaches nothing twice."""
    user, other = f"u-{tag}", f"o-{tag}"
    first, second, shared = (event("page", user_id=user, message_id=f"{name}-{tag}") for name in "abs")
    batch = EventBatch(events=[first, second, shared, first])
    async with service.database.transaction() as tx:
        await Collecting(Namer(KEY)).on_collected(tx, [Delivery(batch, f"crashed-{tag}", "events.collected.0", 1, 1)])
        promised = EventBatch.FromString(tx.outgoing()[0].payload)
    assert not await resolved(service, first.message_id)
    stranger = event("page", user_id=other, message_id=f"x-{tag}")
    await service.deliver(EventBatch(events=[shared, stranger]), subject="events.collected.0")
    await service.deliver(batch, subject="events.collected.0", message_ids=[f"crashed-{tag}"])
    assert [e.message_id for e in promised.events] == [first.message_id, second.message_id, shared.message_id]
    again = [b for b in await service.sent(EventBatch, "events.resolved.*") if b == promised]
    assert len(again) == 1
    assert len(await resolved(service, *(e.message_id for e in (first, second, shared, stranger)))) == 4
    assert dict((await profile(service, f"user_id:{user}")).event_counts) == {"page": 3}


async def test_redelivery_in_one_batch_with_a_repetition_keeps_each_event_once(
    service: RunningService, tag: str
) -> None:
    """The message that brought an event first brings it again, whatever else comes in the same micro-batch."""
    once = event("page", user_id=f"u-{tag}", message_id=f"once-{tag}")
    collecting = Collecting(Namer(KEY))
    mine = Delivery(EventBatch(events=[once]), f"mine-{tag}", "events.collected.0", 2, 1)
    repetition = Delivery(EventBatch(events=[once]), f"repetition-{tag}", "events.collected.0", 1, 1)
    async with service.database.transaction() as tx:
        await collecting.on_collected(tx, [mine])
    async with service.database.transaction() as tx:
        await collecting.on_collected(tx, [repetition, mine])
        assert [outgoing.message_id for outgoing in tx.outgoing()] == [f"resolved:mine-{tag}"]


async def test_resolved_events_and_mappings_agree(service: RunningService, tag: str) -> None:
    """Whoever keeps the newest mapping of each fragment knows what GetProfile knows."""
    visitor, user, mail = f"d-{tag}", f"u-{tag}", f"{tag}@example.com"
    before, during, after = (
        event("page", anonymous_id=visitor),
        event("identify", at=1, anonymous_id=visitor, user_id=user, traits={"email": mail}),
        event("page", at=2, user_id=user),
    )
    for each in (before, during, after):
        await collect(service, each)
    known: dict[bytes, tuple[int, bytes]] = {}
    for each in await resolved(service, before.message_id, during.message_id, after.message_id):
        mapping = each.mapping_revision, each.profile_id
        known[each.fragment_id] = max(known.get(each.fragment_id, mapping), mapping)
    for message in await service.published(identity_pb2.FragmentsRemapped):
        for m in message.mappings:
            known[m.fragment_id] = max(known.get(m.fragment_id, (0, b"")), (m.revision, m.profile_id))
    for reference in (f"anonymous_id:{visitor}", f"user_id:{user}", f"email:{mail}"):
        _, profile_id = known[KEY.resolve(reference).bytes]
        assert format_profile_id(UUID(bytes=profile_id)) == (await profile(service, reference)).profile_id


async def test_a_merge_is_announced_and_the_absorbed_id_resolves(service: RunningService, tag: str) -> None:
    """Two profiles that had ids of their own become one; a newcomer who joins is no merge."""
    visitor, user = f"d-{tag}", f"u-{tag}"
    await collect(service, event("page", anonymous_id=visitor), event("page", at=1, user_id=user))
    absorbed = (await profile(service, f"user_id:{user}")).profile_id
    await collect(
        service,
        event("identify", at=2, anonymous_id=visitor, user_id=user, traits={"email": f"{tag}@example.com"}),
    )
    kept = (await profile(service, absorbed)).profile_id
    mine = [m for m in await service.published(identity_pb2.ProfilesMerged) if m.profile_id == kept]
    assert [list(m.absorbed_profile_ids) for m in mine] == [[absorbed]]
    assert mine[0].evidence_time.ToMicroseconds() == START_US + 2 * MINUTE_US
    assert kept == prf(f"anonymous_id:{visitor}")


async def test_nobodys_event_is_rejected_and_its_neighbours_are_kept(service: RunningService, tag: str) -> None:
    """Junk ids name nobody; the event is listed with its reason."""
    nobody = event("page", user_id="null", anonymous_id="[object Object]")
    await collect(service, nobody, event("page", user_id=f"u-{tag}"))
    assert dict((await profile(service, f"user_id:u-{tag}")).event_counts) == {"page": 1}
    request = ingest_pb2.ListRejectedEventsRequest(message_id=nobody.message_id)
    answer = await service.stub(IngestServiceStub, ["events.read"]).ListRejectedEvents(request)
    assert [(e.reason, e.source) for e in answer.rejected_events] == [("NO_USABLE_IDENTIFIER", "web")]
    assert not await resolved(service, nobody.message_id)


async def test_hostile_content_stops_nothing(service: RunningService, tag: str) -> None:
    """NUL characters, abysses of brackets, broken JSON, absurd numbers and times."""
    user = f"u-{tag}"
    deep = b'{"email":"a@example.com","deep":' + b"[" * 900 + b"]" * 900 + b"}"
    bottomless = b'{"deep":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    await collect(
        service,
        event("identify", user_id=user, traits={"nul\x00key": "a\x00b", "list": ["\x00"]}),
        Event(type=EventType.EVENT_TYPE_IDENTIFY, user_id=user, message_id=f"deep-{tag}", traits=deep),
        Event(type=EventType.EVENT_TYPE_IDENTIFY, user_id=user, message_id=f"bottomless-{tag}", traits=bottomless),
        Event(type=EventType.EVENT_TYPE_IDENTIFY, user_id=user, message_id=f"broken-{tag}", traits=b'{"a":"\xff'),
        event("track", name="a\x00b", user_id=user, message_id=f"nul\x00-{tag}", anonymous_id=f"d-{tag}"),
        event("track", name="Order Completed", user_id=user, properties={"revenue": "1e400"}),
        Event(type=EventType.EVENT_TYPE_PAGE, user_id=user, message_id=f"past-{tag}", time_us=-(2**62)),
        Event(type=EventType.EVENT_TYPE_PAGE, user_id=user, message_id=f"future-{tag}", time_us=2**62),
    )
    known = await profile(service, f"user_id:{user}")
    assert known.traits["nulkey"] == "ab"
    assert dict(known.event_counts) == {"identify": 4, "ab": 1, "Order Completed": 1, "page": 2}
    assert known.last_seen_time.ToDatetime().year == 9999


async def test_rejected_events_are_listed_newest_first_in_pages(service: RunningService, tag: str) -> None:
    rejected = [
        events_pb2.RejectedEvent(
            message_id=f"r{n}-{tag}",
            source=f"key-{tag}",
            reason="EVENT_TOO_LARGE" if n % 2 else "BAD_TIME",
            detail="detail",
            position=n,
            received_time_us=START_US + n,
            body=b'{"name":"\xea\xb9\x80\xff',
        )
        for n in range(5)
    ]
    await service.deliver(events_pb2.RejectedEventBatch(events=rejected), subject="events.rejected")
    stub = service.stub(IngestServiceStub)
    request = ingest_pb2.ListRejectedEventsRequest(source=f"key-{tag}", page_size=2)
    found = []
    while True:
        answer = await stub.ListRejectedEvents(request)
        found += [(e.message_id, e.position) for e in answer.rejected_events]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert found == [(f"r{n}-{tag}", n) for n in (4, 3, 2, 1, 0)]
    by_reason = await stub.ListRejectedEvents(
        ingest_pb2.ListRejectedEventsRequest(source=f"key-{tag}", reason="EVENT_TOO_LARGE")
    )
    assert [e.position for e in by_reason.rejected_events] == [3, 1]
    assert by_reason.rejected_events[0].body == '{"name":"김\ufffd'


async def test_conflicts_come_in_pages_newest_first(service: RunningService, tag: str) -> None:
    """A kiosk that many log in on belongs to the first of them."""
    kiosk = f"kiosk-{tag}"
    logins = [event("identify", at=n, anonymous_id=kiosk, user_id=f"u{n}-{tag}") for n in range(6)]
    await collect(service, *logins)
    found = []
    token = ""
    while True:
        answer = await conflicts(service, f"anonymous_id:{kiosk}", page_size=2, page_token=token)
        found += [conflict.message_id for conflict in answer.conflicts]
        token = answer.next_page_token
        if not token:
            break
    assert found == [login.message_id for login in reversed(logins[1:])]
    assert (await profile(service, f"anonymous_id:{kiosk}")) == (await profile(service, f"user_id:u0-{tag}"))


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("user_id:nobody", grpc.StatusCode.NOT_FOUND),
        ("email:nobody@example.com", grpc.StatusCode.NOT_FOUND),
        ("prf_00000000000000000000000000", grpc.StatusCode.NOT_FOUND),
        ("prf_rubbish", grpc.StatusCode.INVALID_ARGUMENT),
        ("u1", grpc.StatusCode.INVALID_ARGUMENT),
        ("email:no address", grpc.StatusCode.INVALID_ARGUMENT),
        ("user_id:null", grpc.StatusCode.INVALID_ARGUMENT),
        ("", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_reference_that_names_nobody_is_refused(
    service: RunningService, reference: str, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await profile(service, reference)
    assert refused.value.code() == code


@pytest.mark.parametrize(
    "token", ["rubbish", "e30x", "eyJ0aW1lIjoxfQ", "eyJ0aW1lIjoxLCJjaGlsZCI6InoiLCJwYXJlbnQiOiJ6In0"]
)
async def test_a_page_token_of_ones_own_making_is_refused(service: RunningService, token: str) -> None:
    stub = service.stub(IngestServiceStub)
    with pytest.raises(grpc.aio.AioRpcError, match="page_token"):
        await service.stub(IdentityServiceStub).ListIdentityConflicts(
            identity_pb2.ListIdentityConflictsRequest(page_token=token)
        )
    with pytest.raises(grpc.aio.AioRpcError, match="page_token"):
        await stub.ListRejectedEvents(ingest_pb2.ListRejectedEventsRequest(page_token=token))
