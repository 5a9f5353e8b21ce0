# SPDX-License-Identifier: Apache-2.0
"""Consent through the service's real doors: what customers say, what holds, and the proof of it."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from chassis.clock import from_timestamp, now, timestamp_from_us, to_timestamp, to_us
from chassis.identity import IdentityKey, format_profile_id
from chassis.service import Runner
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.options.v1 import options_pb2
from dangol.profile.v1 import consent_pb2 as pb
from dangol.profile.v1 import identity_pb2
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy.exc import DBAPIError
from svc_profile.app import build
from svc_profile.jobs import Expiring
from svc_profile.settings import Settings
from svc_profile.store.personal import personal_tables
from svc_profile.store.suppressions import SuppressionStore
from svc_profile.usecases.expiring import expire_some

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
GRANTED, DENIED, WITHDRAWN = pb.CONSENT_ANSWER_GRANTED, pb.CONSENT_ANSWER_DENIED, pb.CONSENT_ANSWER_WITHDRAWN
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
    return f"c{next(numbers)}"


def event(
    kind: str, *, at: int = 0, traits: Any = None, consent: dict[str, bool] | None = None, **fields: Any
) -> Event:
    """Build an event `at` some minutes after the start."""
    context = b"" if consent is None else json.dumps({"consent": {"categoryPreferences": consent}}).encode()
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        context=context,
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


def decision(minute: int, *, user_id: str = "", anonymous_id: str = "", **answers: bool) -> Event:
    """Build an event that tells what a customer decided."""
    names = {"user_id": user_id, "anonymous_id": anonymous_id}
    return event("track", at=minute, name="Segment Consent Preference Updated", consent=answers, **names)


def at(minutes: int) -> Any:
    """Return a time some minutes after the start."""
    return timestamp_from_us(START_US + minutes * MINUTE_US)


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def record(service: RunningService, profile: str, *answers: tuple[str, Any], **more: Any) -> Any:
    decisions = [pb.ConsentDecision(purpose_id=purpose_id, answer=answer) for purpose_id, answer in answers]
    request = pb.RecordConsentRequest(profile=profile, decisions=decisions, **more)
    return await service.stub(ConsentServiceStub).RecordConsent(request)


async def consents(service: RunningService, profile: str) -> dict[str, pb.Consent]:
    answer = await service.stub(ConsentServiceStub).GetConsents(pb.GetConsentsRequest(profile=profile))
    return {consent.purpose_id: consent for consent in answer.consents.consents}


async def records(service: RunningService, profile: str, **more: Any) -> Sequence[pb.ConsentRecord]:
    request = pb.ListConsentRecordsRequest(profile=profile, **more)
    return list((await service.stub(ConsentServiceStub).ListConsentRecords(request)).records)


async def verify(service: RunningService, after: int = 0) -> Any:
    request = pb.VerifyConsentLedgerRequest(after_sequence=after)
    return await service.stub(ConsentServiceStub).VerifyConsentLedger(request)


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def run(service: RunningService, *statements: str) -> None:
    """Do in the database what no service does."""
    async with service.database.transaction() as tx:
        for statement in statements:
            await tx.execute(statement)


async def test_there_are_purposes_from_the_start(service: RunningService) -> None:
    """With what Korean law and the GDPR ask for: two years for advertising, its own consent for the night."""
    found = (await service.stub(ConsentServiceStub).ListPurposes(pb.ListPurposesRequest())).purposes
    purposes = {purpose.purpose_id: purpose for purpose in found}
    assert sorted(purposes) == [
        "analytics", "marketing_email", "marketing_kakao", "marketing_push", "marketing_sms", "night_marketing",
        "personalization", "third_party",
    ]  # fmt: skip
    email = purposes["marketing_email"]
    assert (email.kind, email.legal_basis) == (options_pb2.PURPOSE_MARKETING, pb.LEGAL_BASIS_CONSENT)
    assert (email.granted_by_default, email.expiry_months, email.minimum_age) == (False, 24, 14)
    assert {(notice.version, notice.locale) for notice in email.notices} == {(1, "ko"), (1, "en")}
    assert purposes["analytics"].granted_by_default
    assert purposes["night_marketing"].kind == options_pb2.PURPOSE_UNSPECIFIED


async def test_a_purpose_can_be_added_and_changed(service: RunningService, tag: str) -> None:
    """Every service hears of it; what customers were shown cannot be changed afterwards, only followed."""
    stub = service.stub(ConsentServiceStub)
    notice = pb.Notice(version=1, locale="ko", title="제목", body="내용")
    wanted = pb.Purpose(purpose_id=tag, display_name="Survey", kind=options_pb2.PURPOSE_MARKETING, notices=[notice])
    made = (await stub.CreatePurpose(pb.CreatePurposeRequest(purpose=wanted))).purpose
    assert made.notices[0].HasField("effective_time")
    again = await failure(stub.CreatePurpose(pb.CreatePurposeRequest(purpose=wanted)))
    assert again[0] is grpc.StatusCode.ALREADY_EXISTS
    changed = pb.Purpose(purpose_id=tag, granted_by_default=True, categories=["C0004"])
    changed.notices.extend([made.notices[0], pb.Notice(version=2, locale="ko", title="새 제목", body="새 내용")])
    update = pb.UpdatePurposeRequest(purpose=changed)
    assert [n.version for n in (await stub.UpdatePurpose(update)).purpose.notices] == [1, 2]
    rewritten = pb.Purpose(purpose_id=tag, notices=[pb.Notice(version=1, locale="ko", title="x", body="y")])
    code, words = await failure(stub.UpdatePurpose(pb.UpdatePurposeRequest(purpose=rewritten)))
    assert (code, "purpose.notices" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    mask = FieldMask(paths=["granted_by_default"])
    request = pb.UpdatePurposeRequest(purpose=pb.Purpose(purpose_id=tag), update_mask=mask)
    assert not (await stub.UpdatePurpose(request)).purpose.granted_by_default
    kept = (await stub.GetPurpose(pb.GetPurposeRequest(purpose_id=tag))).purpose
    assert (kept.display_name, list(kept.categories), len(kept.notices)) == ("Survey", ["C0004"], 2)
    await service.settled()
    saved = [each for each in await service.published(pb.PurposeSaved) if each.purpose_id == tag]
    assert [each.granted_by_default for each in saved] == [False, True, False]
    assert sorted(each.revision for each in saved) == [each.revision for each in saved]


async def test_what_a_customer_says_holds_at_once(service: RunningService, tag: str) -> None:
    """With the row that decides, and until when; and somebody nobody has heard of becomes known."""
    user = f"user_id:{tag}"
    decisions = [
        pb.ConsentDecision(purpose_id="marketing_email", answer=GRANTED, notice_version=1, locale="ko"),
        pb.ConsentDecision(purpose_id="personalization", answer=WITHDRAWN),
    ]
    request = pb.RecordConsentRequest(profile=user, decisions=decisions, channel="web", actor="agent kim")
    answer = await service.stub(ConsentServiceStub).RecordConsent(request)
    held = {consent.purpose_id: consent for consent in answer.consents.consents}
    assert held == await consents(service, user)
    email = held["marketing_email"]
    assert (email.granted, email.reason) == (True, pb.CONSENT_REASON_ANSWERED)
    assert (email.record.notice_version, email.record.locale, email.record.channel) == (1, "ko", "web")
    assert (email.record.actor, email.record.source, email.record.identifier.value) == ("agent kim", "test", tag)
    said = from_timestamp(email.record.decision_time)
    assert from_timestamp(email.expire_time) == said.replace(year=said.year + 2)
    assert (held["personalization"].granted, held["personalization"].record.answer) == (False, WITHDRAWN)
    assert (held["analytics"].granted, held["analytics"].reason) == (True, pb.CONSENT_REASON_DEFAULT)
    assert (held["third_party"].granted, held["third_party"].reason) == (False, pb.CONSENT_REASON_DEFAULT)
    assert [each.sequence for each in answer.records] == [
        each.sequence for each in reversed(await records(service, user))
    ]
    await service.settled()
    (changed,) = [
        each for each in await service.published(pb.ConsentsChanged) if KEY.resolve(user).bytes in each.fragment_ids
    ]
    assert (list(changed.granted_purpose_ids), list(changed.refused_purpose_ids)) == (
        ["marketing_email"],
        ["personalization"],
    )


async def test_a_repeated_call_writes_once(service: RunningService, tag: str) -> None:
    user = f"user_id:{tag}"
    first = await record(service, user, ("marketing_sms", GRANTED), request_id=tag)
    again = await record(service, user, ("marketing_sms", GRANTED), request_id=tag)
    assert list(again.records) == list(first.records)
    assert len(await records(service, user)) == 1
    await record(service, user, ("marketing_sms", GRANTED), request_id=f"{tag}-2")
    assert len(await records(service, user)) == 2


async def test_a_request_id_is_not_taken_for_another_answer(service: RunningService, tag: str) -> None:
    """Nobody's withdrawal is lost to an id that came before, and nobody is told what another customer said."""
    user, other = f"user_id:{tag}", f"user_id:other-{tag}"
    await record(service, user, ("marketing_sms", GRANTED), request_id=tag)
    for call in (
        record(service, user, ("marketing_sms", WITHDRAWN), request_id=tag),
        record(service, other, ("marketing_sms", GRANTED), request_id=tag),
    ):
        code, words = await failure(call)
        assert (code, "request_id" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    assert [each.answer for each in await records(service, user)] == [GRANTED]


async def test_the_latest_answer_decides_whenever_it_is_written(service: RunningService, tag: str) -> None:
    """A form from yesterday that is typed in today does not outvote what was said this morning."""
    user, yesterday = f"user_id:{tag}", now() - timedelta(days=1)
    await record(service, user, ("marketing_sms", DENIED))
    await record(service, user, ("marketing_sms", GRANTED), decision_time=to_timestamp(yesterday))
    assert not (await consents(service, user))["marketing_sms"].granted


async def test_an_old_grant_has_expired(service: RunningService, tag: str) -> None:
    """After two years advertising needs a new one."""
    user, long_ago = f"user_id:{tag}", now() - timedelta(days=3 * 365)
    await record(service, user, ("marketing_sms", GRANTED), decision_time=to_timestamp(long_ago))
    found = (await consents(service, user))["marketing_sms"]
    assert (found.granted, found.reason) == (False, pb.CONSENT_REASON_EXPIRED)


async def test_a_child_cannot_grant(service: RunningService, tag: str) -> None:
    """Below the age of the purpose, a grant is written as denied, with the reason."""
    birthday = (now() - timedelta(days=13 * 365)).date().isoformat()
    await collect(service, event("identify", user_id=tag, traits={"birthday": birthday}))
    answer = await record(service, f"user_id:{tag}", ("marketing_sms", GRANTED), ("personalization", DENIED))
    assert [(each.answer, each.reason) for each in answer.records] == [(DENIED, "MINIMUM_AGE"), (DENIED, "")]
    assert not (await consents(service, f"user_id:{tag}"))["marketing_sms"].granted


async def test_a_birthday_that_becomes_known_late_ends_what_a_child_granted(service: RunningService, tag: str) -> None:
    """The ledger keeps what was said; what holds follows from the age."""
    user = f"user_id:{tag}"
    await collect(service, decision(1, marketing_sms=True, user_id=tag))
    await settled(service)
    assert (await consents(service, user))["marketing_sms"].granted
    await collect(service, event("identify", at=2, user_id=tag, traits={"birthday": "2015-01-01"}))
    await settled(service)
    found = (await consents(service, user))["marketing_sms"]
    assert (found.granted, found.reason) == (False, pb.CONSENT_REASON_MINIMUM_AGE)
    told = [
        each for each in await service.published(pb.ConsentsChanged) if KEY.resolve(user).bytes in each.fragment_ids
    ]
    assert list(max(told, key=lambda each: each.revision).refused_purpose_ids) == ["marketing_sms"]


async def test_a_shorter_time_of_a_purpose_holds_for_what_was_granted_before(service: RunningService, tag: str) -> None:
    user, stub = f"user_id:{tag}", service.stub(ConsentServiceStub)
    purpose = pb.Purpose(purpose_id=tag, display_name="Offers", expiry_months=24)
    await stub.CreatePurpose(pb.CreatePurposeRequest(purpose=purpose))
    await record(service, user, (tag, GRANTED), decision_time=to_timestamp(now() - timedelta(days=400)))
    assert (await consents(service, user))[tag].granted
    await stub.UpdatePurpose(pb.UpdatePurposeRequest(purpose=pb.Purpose(purpose_id=tag, expiry_months=12)))
    await settled(service)
    assert (await consents(service, user))[tag].reason == pb.CONSENT_REASON_EXPIRED
    told = [
        each for each in await service.published(pb.ConsentsChanged) if KEY.resolve(user).bytes in each.fragment_ids
    ]
    assert list(max(told, key=lambda each: each.revision).refused_purpose_ids) == [tag]


@pytest.mark.parametrize(
    ("decision", "field"),
    [
        (pb.ConsentDecision(purpose_id="nothing", answer=GRANTED), "decisions[0].purpose_id"),
        (
            pb.ConsentDecision(purpose_id="marketing_sms", answer=GRANTED, notice_version=9),
            "decisions[0].notice_version",
        ),
        (
            pb.ConsentDecision(purpose_id="marketing_sms", answer=GRANTED, notice_version=1, locale="fr"),
            "decisions[0].locale",
        ),
        (pb.ConsentDecision(purpose_id="marketing_sms"), "answer"),
    ],
)
async def test_a_decision_that_names_nothing_is_refused(
    service: RunningService, tag: str, decision: pb.ConsentDecision, field: str
) -> None:
    request = pb.RecordConsentRequest(profile=f"user_id:{tag}", decisions=[decision])
    code, words = await failure(service.stub(ConsentServiceStub).RecordConsent(request))
    assert (code, field in words) == (grpc.StatusCode.INVALID_ARGUMENT, True), words


async def test_nobody_consents_under_an_id_that_names_nobody(service: RunningService, tag: str) -> None:
    nobody = format_profile_id(KEY.resolve(f"user_id:{tag}"))
    assert (await failure(record(service, nobody, ("analytics", DENIED))))[0] is grpc.StatusCode.NOT_FOUND
    assert (await failure(consents(service, nobody)))[0] is grpc.StatusCode.NOT_FOUND
    future = to_timestamp(now() + timedelta(days=1))
    late = await failure(record(service, f"user_id:{tag}", ("analytics", DENIED), decision_time=future))
    assert (late[0], "decision_time" in late[1]) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_somebody_who_was_erased_does_not_come_back_by_a_consent(service: RunningService, tag: str) -> None:
    erased = KEY.resolve(f"user_id:{tag}").bytes
    async with service.database.transaction() as tx:
        await SuppressionStore(tx).add({erased: "user_id"}, "dsr_1", now())
    code, words = await failure(record(service, f"user_id:{tag}", ("marketing_sms", GRANTED)))
    assert (code, "was erased" in words) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_the_ledger_comes_in_pages(service: RunningService, tag: str) -> None:
    """Newest first, of one purpose when asked for."""
    user, stub = f"user_id:{tag}", service.stub(ConsentServiceStub)
    for answer in (GRANTED, WITHDRAWN, GRANTED):
        await record(service, user, ("marketing_sms", answer), ("marketing_email", DENIED))
    request = pb.ListConsentRecordsRequest(profile=user, purpose_id="marketing_sms", page_size=2)
    first = await stub.ListConsentRecords(request)
    request.page_token = first.next_page_token
    second = await stub.ListConsentRecords(request)
    assert [each.answer for each in (*first.records, *second.records)] == [GRANTED, WITHDRAWN, GRANTED]
    assert not second.next_page_token
    assert len(await records(service, user)) == 6


async def test_the_chain_proves_every_row(engines: Engines) -> None:
    """A row that was changed, taken out or emptied without a request is found; a lawful erasure is not a breach."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        for user in ("ana", "bo", "chris"):
            await record(service, f"user_id:{user}", ("marketing_sms", GRANTED), ("analytics", DENIED))
        sound = await verify(service)
        assert (sound.valid, sound.record_count, sound.redacted_count) == (True, 6, 0)
        assert (await verify(service, 4)).record_count == 2
        assert (await failure(verify(service, 99)))[0] is grpc.StatusCode.NOT_FOUND
        for forgery, broken in (
            ("UPDATE consent_ledger SET answer = 'perhaps' WHERE sequence = 6", 6),
            ("UPDATE consent_ledger SET time_us = NULL WHERE sequence = 5", 5),
            ("UPDATE consent_ledger SET answer = 'granted' WHERE sequence = 4", 4),
            ("UPDATE consent_ledger SET salt = NULL, fragment_id = NULL WHERE sequence = 3", 3),
            ("DELETE FROM consent_ledger WHERE sequence = 2", 2),
        ):
            with pytest.raises(DBAPIError, match="never changed"):
                await run(service, forgery)
            await run(service, "ALTER TABLE consent_ledger DISABLE TRIGGER keep_consent_ledger", forgery)
            await run(service, "ALTER TABLE consent_ledger ENABLE TRIGGER keep_consent_ledger")
            found = await verify(service)
            assert (found.valid, found.broken_sequence, found.record_count) == (False, broken, broken - 1)


async def test_calls_at_the_same_time_make_one_chain(engines: Engines) -> None:
    """Also of two replicas: no place is taken twice, and none is left out."""
    async with running(build, Settings, engines, roles=("rpc",)) as one:
        settings = cast(Settings, one.service.settings)
        other = Runner(build(settings), ("rpc",))
        await other.start()
        try:
            both = (one, RunningService(other.service, other))
            calls = (record(both[n % 2], f"user_id:crowd-{n % 5}", ("marketing_sms", GRANTED)) for n in range(40))
            answers = await asyncio.gather(*calls)
            assert sorted(each.records[0].sequence for each in answers) == list(range(1, 41))
            found = await verify(one)
            assert (found.valid, found.record_count) == (True, 40)
        finally:
            await other.stop()


async def test_an_erased_row_still_holds_the_chain_together(engines: Engines) -> None:
    """What it said is gone, also its salt; that a request asked for it is on record."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        for user in ("ana", "bo"):
            await record(service, f"user_id:{user}", ("marketing_sms", GRANTED))
        before = await verify(service)
        async with service.database.transaction() as tx:
            await personal_tables().erase(tx, [KEY.resolve("user_id:ana")])
        after = await verify(service)
        assert (after.valid, after.redacted_count, after.hash) == (True, 1, before.hash)
        assert (await failure(records(service, "user_id:ana")))[0] is grpc.StatusCode.NOT_FOUND
        assert len(await records(service, "user_id:bo")) == 1


async def settled(service: RunningService) -> None:
    """Wait until nobody's state is due."""
    async with asyncio.timeout(30):
        while await due(service):
            await asyncio.sleep(0.01)
    await service.settled()


async def due(service: RunningService) -> bool:
    async with service.database.snapshot() as tx:
        return bool(await tx.value("SELECT EXISTS (SELECT FROM consent_due)"))


async def test_segments_context_is_read(service: RunningService, tag: str) -> None:
    """Categories are purposes; what nobody knows is left out, and what a page repeats is written once."""
    told = {"marketing_email": True, "personalization": False, "unheard_of": True}
    await collect(
        service,
        event("page", anonymous_id=tag, consent=told),
        event("page", at=1, anonymous_id=tag, consent=told),
        event("page", at=2, anonymous_id=tag, consent=told),
    )
    await settled(service)
    found = await records(service, f"anonymous_id:{tag}")
    assert {(each.purpose_id, each.answer) for each in found} == {
        ("marketing_email", GRANTED),
        ("personalization", DENIED),
    }
    assert {each.decision_time.ToMicroseconds() for each in found} == {START_US}
    assert {(each.source, each.channel) for each in found} == {("web", "event")}
    held = await consents(service, f"anonymous_id:{tag}")
    assert (held["marketing_email"].granted, held["personalization"].granted) == (True, False)


async def test_a_repeated_event_adds_nothing(service: RunningService, tag: str) -> None:
    told = decision(0, marketing_sms=True, anonymous_id=tag)
    await collect(service, told)
    await collect(service, told)
    assert len(await records(service, f"anonymous_id:{tag}")) == 1


async def test_a_device_that_repeats_its_answer_does_not_outvote_a_decision(service: RunningService, tag: str) -> None:
    """The banner of the web page still says yes while the customer has withdrawn by telephone."""
    user = f"user_id:{tag}"
    await collect(service, event("page", user_id=tag, anonymous_id=f"d-{tag}", consent={"marketing_sms": True}))
    await settled(service)
    assert (await consents(service, user))["marketing_sms"].granted
    await record(service, user, ("marketing_sms", WITHDRAWN))
    later = (to_us(now()) - START_US) // MINUTE_US + 10
    await collect(
        service, event("page", at=later, user_id=tag, anonymous_id=f"d-{tag}", consent={"marketing_sms": True})
    )
    await settled(service)
    assert not (await consents(service, user))["marketing_sms"].granted
    await collect(service, decision(later + 1, marketing_sms=True, user_id=tag))
    await settled(service)
    assert (await consents(service, user))["marketing_sms"].granted


async def test_the_most_restrictive_answer_wins_a_login(service: RunningService, tag: str) -> None:
    """The visitor refused, the account had agreed; a new grant of the one customer ends it. Others hear of each."""
    user, visitor = f"user_id:{tag}", f"anonymous_id:d-{tag}"
    await record(service, user, ("personalization", GRANTED), decision_time=at(5))
    await collect(
        service,
        event("track", at=3, name="Consent Updated", anonymous_id=f"d-{tag}", consent={"personalization": False}),
    )
    await collect(service, event("page", at=7, user_id=tag, anonymous_id=f"d-{tag}"))
    await settled(service)
    held = (await consents(service, user))["personalization"]
    assert (held.granted, held.record.identifier.value) == (False, f"d-{tag}")
    assert held == (await consents(service, visitor))["personalization"]
    await record(service, visitor, ("personalization", GRANTED))
    assert (await consents(service, user))["personalization"].granted
    await service.settled()
    both = {KEY.resolve(user).bytes, KEY.resolve(visitor).bytes}
    told = [each for each in await service.published(pb.ConsentsChanged) if both & set(each.fragment_ids)]
    last = max(told, key=lambda each: each.revision)
    assert set(last.fragment_ids) == both
    assert list(last.granted_purpose_ids) == ["personalization"]


async def test_a_split_gives_each_side_its_own_ledger(service: RunningService, tag: str) -> None:
    """What the device said leaves with the device."""
    user, visitor = f"user_id:{tag}", f"anonymous_id:d-{tag}"
    await record(service, user, ("personalization", GRANTED), decision_time=at(5))
    await collect(
        service,
        event("track", at=3, name="Consent Updated", anonymous_id=f"d-{tag}", consent={"personalization": False}),
    )
    await collect(service, event("page", at=7, user_id=tag, anonymous_id=f"d-{tag}"))
    await settled(service)
    assert not (await consents(service, user))["personalization"].granted
    stub = service.stub(IdentityServiceStub)
    split = identity_pb2.SplitProfileRequest(profile=user, identifiers=[visitor], reason="not hers")
    await stub.SplitProfile(split)
    await settled(service)
    assert (await consents(service, user))["personalization"].granted
    assert not (await consents(service, visitor))["personalization"].granted
    assert [len(await records(service, each)) for each in (user, visitor)] == [1, 1]


async def test_a_grant_that_ends_is_announced_beforehand_and_counts_no_more_afterwards(
    service: RunningService, tag: str
) -> None:
    """Each once, also when the job runs again; a new grant starts the time anew."""
    user = f"user_id:{tag}"
    almost, soon = now() - timedelta(days=729), now() - timedelta(days=720)
    await record(service, user, ("marketing_email", GRANTED), decision_time=to_timestamp(almost))
    await record(service, user, ("marketing_sms", GRANTED), decision_time=to_timestamp(soon))
    await record(service, user, ("marketing_push", GRANTED))
    job = Expiring(service.database, cast(Settings, service.service.settings))
    await job.run()
    await job.run()
    await service.settled()
    mine = format_profile_id(KEY.resolve(user))
    (expiring,) = [each for each in await service.published(pb.ConsentsExpiring) if each.profile_id == mine]
    assert [each.purpose_id for each in expiring.expiries] == ["marketing_email", "marketing_sms"]
    async with service.database.transaction() as tx:
        assert not await expire_some(tx, to_us(now() + timedelta(days=3)))
    await service.settled()
    told = [
        each for each in await service.published(pb.ConsentsChanged) if KEY.resolve(user).bytes in each.fragment_ids
    ]
    last = max(told, key=lambda each: each.revision)
    assert list(last.refused_purpose_ids) == ["marketing_email"]
    assert list(last.granted_purpose_ids) == ["marketing_push", "marketing_sms"]
