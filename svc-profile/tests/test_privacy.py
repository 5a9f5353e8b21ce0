# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects, through the real doors of svc-profile alone."""

import asyncio
import base64
import csv
import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from chassis.identity import IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType, RejectedEvent, RejectedEventBatch
from dangol.profile.v1 import consent_pb2, groups_pb2, identity_pb2, ingest_pb2, privacy_pb2
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.groups_pb2_grpc import GroupServiceStub
from dangol.profile.v1.identity_pb2 import FragmentsForgotten
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from svc_profile.app import build
from svc_profile.settings import Settings

from chassis import dead_letters

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
PATIENCE_S = 60
numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    """The service, which waits for no answer but its own."""
    async with running(build, Settings, engines, personal_services=("profile",)) as started:
        yield started


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"person{next(numbers)}"


def identify(user: str, **fields: Any) -> Event:
    """Return a login on a device, with an e-mail address in its own spelling."""
    traits = {"email": f"{user.title()}@Example.com", "city": "Seoul"}
    return made("IDENTIFY", user_id=user, anonymous_id=f"{user}-device", traits=json.dumps(traits).encode(), **fields)


def viewed(user: str, **fields: Any) -> Event:
    """Return a visit before the login."""
    return made("TRACK", **{"anonymous_id": f"{user}-device", "name": "Product Viewed", **fields})


def made(kind: str, **fields: Any) -> Event:
    """Return an event."""
    number = next(numbers)
    given = {"source": "web", "message_id": f"m{number}", "time_us": START_US + number, **fields}
    return Event(type=EventType.Value(f"EVENT_TYPE_{kind}"), **given)


async def collect(service: RunningService, *events: Event) -> None:
    """Let events come."""
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


def stub(service: RunningService, scopes: Sequence[str] = ("*",)) -> Any:
    """Return a client."""
    return service.stub(PrivacyServiceStub, scopes)


async def file(service: RunningService, user: str, kind: str, **fields: Any) -> privacy_pb2.DataRequest:
    """File a request about a user."""
    request = privacy_pb2.CreateDataRequestRequest(
        profile=f"user_id:{user}", kind=privacy_pb2.DataRequestKind.Value(f"DATA_REQUEST_KIND_{kind}"), **fields
    )
    answer: privacy_pb2.CreateDataRequestResponse = await stub(service).CreateDataRequest(request)
    return answer.data_request


async def done(service: RunningService, data_request_id: str) -> privacy_pb2.DataRequest:
    """Wait until a request has come to its end."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            request = privacy_pb2.GetDataRequestRequest(data_request_id=data_request_id)
            found: privacy_pb2.DataRequest = (await stub(service).GetDataRequest(request)).data_request
            if found.HasField("done_time"):
                return found
            await asyncio.sleep(0.05)


async def erase(service: RunningService, user: str) -> privacy_pb2.DataRequest:
    """Erase a user."""
    return await done(service, (await file(service, user, "ERASE")).data_request_id)


async def knows(service: RunningService, reference: str) -> bool:
    """Tell whether anybody is known by a reference."""
    try:
        await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=reference))
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND  # noqa: PT017
        return False
    return True


async def dump(service: RunningService) -> str:
    """Return every row of every table as text, bytes as they are and in hexadecimal."""
    async with service.database.snapshot() as tx:
        tables = [
            row.table_name
            for row in await tx.rows(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        ]
        rows = [row for table in tables for row in await tx.rows(f'SELECT * FROM "{table}"')]
    return "\n".join(
        value.decode(errors="replace") + value.hex() if isinstance(value, bytes) else str(value)
        for row in rows
        for value in row
    ).lower()


async def test_an_erased_customer_is_nowhere_and_the_others_are_as_before(service: RunningService, tag: str) -> None:
    """In no table, in no message of any stream, in no dead letter; with a certificate that says so."""
    other = f"other-{tag}"
    await collect(service, viewed(tag), identify(tag), viewed(other), identify(other))
    body = json.dumps({"userId": tag, "event": ""}).encode()
    rejected = [
        RejectedEvent(message_id=f"r{n}", source="web", reason="X", body=b) for n, b in enumerate([body, b"{}"])
    ]
    await service.deliver(RejectedEventBatch(events=rejected), subject="events.rejected")
    letter = EventBatch(events=[viewed(tag), viewed(other)])
    await bury(service, letter)
    before = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{other}"))
    request = await erase(service, tag)
    assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    assert request.profile_id == ""
    assert not await knows(service, f"user_id:{tag}")
    after = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{other}"))
    assert after == before
    text = await dump(service)
    fragments = [KEY.resolve(f"user_id:{tag}"), KEY.resolve(f"anonymous_id:{tag}-device")]
    async with service.database.snapshot() as tx:
        # The tombstones are what drops late events; they are kept thirty days and name a fragment, not a person.
        tombstones = {row[0] for row in await tx.rows("SELECT fragment_id FROM forgotten_fragments")}
    assert set(fragments) <= tombstones
    assert f"{tag}-device" not in text.replace(f"other-{tag}", "")
    assert f"{tag}@example.com" not in text.replace(f"other-{tag}", "")
    for stream in ("EVENTS", "DOMAIN", "DEAD"):
        for data in await messages(service, stream):
            assert tag.encode() not in data.lower().replace(other.encode(), b""), stream
            assert not any(fragment.bytes in data for fragment in fragments), stream
    letters = await dead_letters.list_dead_letters(service.bus, consumer="", after=0, limit=10)
    assert [each.consumer for each in letters] == ["profile-events-collected"]
    listed = await service.stub(IngestServiceStub).ListRejectedEvents(ingest_pb2.ListRejectedEventsRequest())
    assert [event.body for event in listed.rejected_events if event.reason == "X"] == ["{}"]


async def bury(service: RunningService, batch: EventBatch) -> None:
    """Put a letter among the dead."""
    await service.bus.publish(
        "dead.profile-events-collected",
        batch.SerializeToString(),
        message_id=f"dead{next(numbers)}",
        headers={
            "Dangol-Consumer": "profile-events-collected",
            "Dangol-Subject": "events.collected.1",
            "Dangol-Message-Id": "x",
            "Dangol-Error": "KeyError: ",
            "Dangol-Deliveries": "8",
            "Dangol-Buried-Time": datetime.now(UTC).isoformat(),
        },
    )


async def messages(service: RunningService, stream: str) -> list[bytes]:
    """Return what every message of a stream holds."""
    name = service.bus.stream(stream)
    state = (await service.bus.jetstream.stream_info(name)).state
    found = []
    sequence = state.first_seq
    while sequence <= state.last_seq:
        try:
            raw = await service.bus.jetstream.get_msg(name, seq=sequence, next=True, subject=">")
        except Exception:  # no further message
            break
        found.append(raw.data or b"")
        sequence = (raw.seq or sequence) + 1
    return found


async def test_what_an_erased_customer_did_brings_nobody_back(service: RunningService, tag: str) -> None:
    """The same events again, and new ones; they are listed as rejected, without what they said."""
    events = [viewed(tag), identify(tag)]
    await collect(service, *events)
    await erase(service, tag)
    await collect(service, *events, viewed(tag), identify(tag))
    assert not await knows(service, f"user_id:{tag}")
    assert not await knows(service, f"anonymous_id:{tag}-device")
    assert not await knows(service, f"email:{tag}@example.com")
    listed = await service.stub(IngestServiceStub).ListRejectedEvents(
        ingest_pb2.ListRejectedEventsRequest(reason="SUPPRESSED")
    )
    assert len(listed.rejected_events) == 2
    assert {event.body for event in listed.rejected_events} == {""}
    assert f"{tag}@example.com" not in await dump(service)


async def test_a_lifted_suppression_lets_the_customer_come_back(service: RunningService, tag: str) -> None:
    """As somebody new, without the past."""
    await collect(service, viewed(tag), identify(tag))
    await erase(service, tag)
    listed = await stub(service).ListSuppressions(privacy_pb2.ListSuppressionsRequest(page_size=1000))
    assert tag not in str(listed)
    await stub(service).LiftSuppression(privacy_pb2.LiftSuppressionRequest(identifier=f"user_id:{tag}"))
    with pytest.raises(grpc.aio.AioRpcError, match="not suppressed"):
        await stub(service).LiftSuppression(privacy_pb2.LiftSuppressionRequest(identifier=f"user_id:{tag}"))
    await service.settled()
    await collect(service, identify(tag))
    found = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{tag}"))
    assert found.profile.event_counts == {"identify": 1}


async def test_all_that_a_merged_customer_ever_was_is_erased(service: RunningService, tag: str) -> None:
    """The ids that were absorbed too; one of them is enough to name whom to erase."""
    first, second = f"{tag}-a", f"{tag}-b"
    await collect(service, viewed(first), identify(first), viewed(second), identify(second))
    ids = [
        (await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{user}"))).profile
        for user in (first, second)
    ]
    await service.stub(IdentityServiceStub).MergeProfiles(
        identity_pb2.MergeProfilesRequest(profile=f"user_id:{first}", absorb=[f"user_id:{second}"], reason="the same")
    )
    await service.settled()
    request = privacy_pb2.CreateDataRequestRequest(profile=ids[1].profile_id, kind=privacy_pb2.DATA_REQUEST_KIND_ERASE)
    filed = (await stub(service).CreateDataRequest(request)).data_request
    await done(service, filed.data_request_id)
    references = [each.profile_id for each in ids] + [f"user_id:{first}", f"email:{second}@example.com"]
    assert [await knows(service, reference) for reference in references] == [False] * 4
    text = await dump(service)
    assert f"{first}@example.com" not in text
    assert f"{second}@example.com" not in text


async def test_requests_about_somebody_who_was_erased_meanwhile_are_refused(service: RunningService, tag: str) -> None:
    """Each comes to its end, with the reason."""
    await collect(service, identify(tag))
    kinds = ("ERASE", "ERASE", "ACCESS", "RESTRICT")
    filed = [await file(service, tag, kind) for kind in kinds]
    ended = [await done(service, each.data_request_id) for each in filed]
    assert ended[0].state == privacy_pb2.DATA_REQUEST_STATE_DONE
    assert {each.state for each in ended[1:]} == {privacy_pb2.DATA_REQUEST_STATE_REFUSED}
    assert {each.refusal_reason for each in ended[1:]} == {"the customer is not known any more"}


async def test_a_shared_device_stays_the_others_device(service: RunningService, tag: str) -> None:
    """What the erased customer did there goes; what others did there stays, and what they do there counts."""
    device, other = f"{tag}-device", f"other-{tag}"
    login = json.dumps({"email": f"{other}@example.com"}).encode()
    await collect(service, viewed(tag), identify(tag))
    await collect(service, made("IDENTIFY", user_id=other, anonymous_id=device, traits=login), viewed(tag), viewed(tag))
    before = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{other}"))
    assert before.profile.event_counts == {"identify": 1, "Product Viewed": 2}
    request = await erase(service, tag)
    wanted = privacy_pb2.GetErasureCertificateRequest(data_request_id=request.data_request_id)
    account = json.loads((await stub(service).GetErasureCertificate(wanted)).certificate.text)
    assert account["probe"]["leftovers"] == []
    assert [each["what"] for each in account["kept"] if each["what"] == "identifiers"] == ["identifiers"]
    assert not await knows(service, f"user_id:{tag}")
    after = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{other}"))
    assert after.profile.event_counts == before.profile.event_counts
    await collect(service, made("IDENTIFY", user_id=other, anonymous_id=device), viewed(tag))
    later = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{other}"))
    assert later.profile.event_counts == {"identify": 2, "Product Viewed": 3}


async def test_nothing_of_the_erased_is_left_in_what_people_decided_about_others(
    service: RunningService, tag: str
) -> None:
    """A merge that was taken back names both customers, and hangs on one of them."""
    others = [f"other{number}-{tag}" for number in range(3)]
    await collect(service, *map(identify, [tag, *others]))
    people = service.stub(IdentityServiceStub)
    for other in others:
        absorb = [f"user_id:{other}"]
        await people.MergeProfiles(
            identity_pb2.MergeProfilesRequest(profile=f"user_id:{tag}", absorb=absorb, reason="alike")
        )
    left = [
        f"{kind}:{name}" for other in others for kind, name in (("user_id", other), ("anonymous_id", f"{other}-device"))
    ]
    left += [f"email:{other}@example.com" for other in others]
    await people.SplitProfile(
        identity_pb2.SplitProfileRequest(profile=f"user_id:{tag}", identifiers=left, reason="not alike")
    )
    request = await erase(service, tag)
    wanted = privacy_pb2.GetErasureCertificateRequest(data_request_id=request.data_request_id)
    account = json.loads((await stub(service).GetErasureCertificate(wanted)).certificate.text)
    assert account["probe"]["leftovers"] == []
    found = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{others[0]}"))
    assert {each.value for each in found.profile.identifiers if each.namespace == "user_id"} == set(others)


async def test_a_certificate_can_be_verified_by_anybody_and_by_us(service: RunningService, tag: str) -> None:
    """With the public key alone; a changed word makes it false; the chain shows that none is missing."""
    await collect(service, viewed(tag), identify(tag))
    request = await erase(service, tag)
    wanted = privacy_pb2.GetErasureCertificateRequest(data_request_id=request.data_request_id)
    certificate = (await stub(service).GetErasureCertificate(wanted)).certificate
    account = json.loads(certificate.text)
    assert account["removed"]["profile"]["fragments"] == 3
    assert account["removed"]["profile"]["events"] == 2
    assert account["probe"]["leftovers"] == []
    assert account["probe"]["searched_columns"]["profile"] > 20
    assert account["suppressed_identifiers"] == 3
    assert tag not in certificate.text
    public = await stub(service).GetCertificateKey(privacy_pb2.GetCertificateKeyRequest())
    key = load_pem_public_key(public.public_key_pem.encode())
    key.verify(base64.b64decode(certificate.signature), certificate.text.encode())  # type: ignore[call-arg, union-attr]
    for text, expected in ((certificate.text, (True, True)), (certificate.text.replace("2", "3"), (False, False))):
        verify = privacy_pb2.VerifyCertificateRequest(text=text, signature=certificate.signature)
        verdict = await stub(service).VerifyCertificate(verify)
        assert (verdict.signature_valid, verdict.known) == expected


async def test_an_access_request_ends_in_one_zip_of_json_and_csv(service: RunningService, tag: str) -> None:
    """Readable by a person and by a machine, with nothing of others."""
    await collect(service, viewed(tag), identify(tag), identify(f"other-{tag}"))
    request = await done(service, (await file(service, tag, "ACCESS")).data_request_id)
    assert [(each.service, each.step) for each in request.services] == [("profile", "export")]
    data = bytearray()
    while True:
        wanted = privacy_pb2.DownloadExportRequest(data_request_id=request.data_request_id, index=len(data) // 2**19)
        piece = await stub(service).DownloadExport(wanted)
        data += piece.data
        if len(data) == piece.total_bytes:
            break
    archive = zipfile.ZipFile(io.BytesIO(bytes(data)))
    assert archive.testzip() is None
    events = json.loads(archive.read("profile/events.json"))
    assert sorted(event["name"] for event in events) == ["Product Viewed", "identify"]
    rows = list(csv.DictReader(io.StringIO(archive.read("profile/events.csv").decode("utf-8-sig"))))
    assert [row["event_id"] for row in rows] == [event["event_id"] for event in events]
    page = archive.read("index.html").decode()
    assert "개인정보 열람 결과" in page
    assert "Your personal data" in page
    assert all(f"other-{tag}" not in archive.read(name).decode() for name in archive.namelist())
    assert not [message for message in await messages(service, "DOMAIN") if f"{tag}-device".encode() in message]


async def test_rectifying_goes_through_the_door_of_events(service: RunningService, tag: str) -> None:
    """It sets and clears traits, and is kept as an event."""
    await collect(service, identify(tag))
    fields = privacy_pb2.CreateDataRequestRequest(profile=f"user_id:{tag}", kind=privacy_pb2.DATA_REQUEST_KIND_RECTIFY)
    fields.traits.update({"city": None, "name": "김단골"})
    request = (await stub(service).CreateDataRequest(fields)).data_request
    assert (await done(service, request.data_request_id)).state == privacy_pb2.DATA_REQUEST_STATE_DONE
    await service.settled()
    found = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{tag}"))
    traits = MessageToDict(found.profile.traits)
    assert traits["name"] == "김단골"
    assert "city" not in traits


async def test_what_is_rectified_is_learnt_under_the_id_that_the_request_names(
    service: RunningService, tag: str
) -> None:
    """A split leaves it with whoever asked."""
    users = [f"{tag}-a", f"{tag}-b"]
    await collect(service, *map(identify, users))
    people = service.stub(IdentityServiceStub)
    await people.MergeProfiles(
        identity_pb2.MergeProfilesRequest(profile=f"user_id:{users[0]}", absorb=[f"user_id:{users[1]}"], reason="alike")
    )
    for user in users:
        wanted = privacy_pb2.CreateDataRequestRequest(
            profile=f"user_id:{user}", kind=privacy_pb2.DATA_REQUEST_KIND_RECTIFY
        )
        wanted.traits.update({"city": user})
        await done(service, (await stub(service).CreateDataRequest(wanted)).data_request.data_request_id)
        await service.settled()
    left = [f"user_id:{users[1]}", f"anonymous_id:{users[1]}-device", f"email:{users[1]}@example.com"]
    await people.SplitProfile(
        identity_pb2.SplitProfileRequest(profile=f"user_id:{users[0]}", identifiers=left, reason="not alike")
    )
    for user in users:
        found = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{user}"))
        assert MessageToDict(found.profile.traits)["city"] == user


async def test_a_rectification_that_no_event_can_carry_is_refused(service: RunningService, tag: str) -> None:
    """An address is not rectified under itself; with a phone number beside it, it is."""
    for phone, state in (
        ("", privacy_pb2.DATA_REQUEST_STATE_REFUSED),
        ("+821012345678", privacy_pb2.DATA_REQUEST_STATE_DONE),
    ):
        address = f"{tag}{phone.strip('+')}@example.com"
        traits = {"email": address} | ({"phone": phone} if phone else {})
        await collect(service, made("IDENTIFY", traits=json.dumps(traits).encode()))
        wanted = privacy_pb2.CreateDataRequestRequest(
            profile=f"email:{address}", kind=privacy_pb2.DATA_REQUEST_KIND_RECTIFY
        )
        wanted.traits.update({"email": f"new-{address}"})
        filed = (await stub(service).CreateDataRequest(wanted)).data_request
        ended = await done(service, filed.data_request_id)
        assert ended.state == state
        assert bool(ended.refusal_reason) == (not phone)


async def test_restriction_and_objection_hold_in_the_ledger_of_consent(service: RunningService, tag: str) -> None:
    """An objection that names no purpose is one to all advertising; a restriction is one to everything."""
    await collect(service, identify(tag))
    consent = service.stub(ConsentServiceStub)
    granted = [
        consent_pb2.ConsentDecision(purpose_id=purpose, answer=consent_pb2.CONSENT_ANSWER_GRANTED)
        for purpose in ("marketing_email", "night_marketing", "third_party")
    ]
    await consent.RecordConsent(consent_pb2.RecordConsentRequest(profile=f"user_id:{tag}", decisions=granted))
    for kind, left in (("OBJECT", {"analytics", "personalization", "third_party"}), ("RESTRICT", set())):
        request = await done(service, (await file(service, tag, kind, channel="letter")).data_request_id)
        assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
        told = await consent.GetConsents(consent_pb2.GetConsentsRequest(profile=f"user_id:{tag}"))
        assert {each.purpose_id for each in told.consents.consents if each.granted} == left
    assert told.consents.restricted
    # What came while it held stays away; afterwards what was allowed before is allowed again.
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    await collect(service, viewed(tag, received_time_us=now_us))
    request = await done(service, (await file(service, tag, "UNRESTRICT", channel="letter")).data_request_id)
    assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    told = await consent.GetConsents(consent_pb2.GetConsentsRequest(profile=f"user_id:{tag}"))
    assert not told.consents.restricted
    assert {each.purpose_id for each in told.consents.consents if each.granted} == {
        "analytics", "personalization", "third_party"
    }  # fmt: skip
    await service.settled()
    now_us = int(datetime.now(UTC).timestamp() * 1e6)
    await collect(service, viewed(tag, name="Home Viewed", received_time_us=now_us))
    found = await service.stub(ProfileServiceStub).GetProfile(pb.GetProfileRequest(profile=f"user_id:{tag}"))
    assert found.profile.event_counts == {"identify": 1, "Home Viewed": 1}
    verdict = await consent.VerifyConsentLedger(consent_pb2.VerifyConsentLedgerRequest())
    assert verdict.valid
    await erase(service, tag)
    verdict = await consent.VerifyConsentLedger(consent_pb2.VerifyConsentLedgerRequest())
    assert (verdict.valid, verdict.redacted_count > 0) == (True, True)


@pytest.mark.parametrize("kind", ["OBJECT", "RESTRICT"])
async def test_what_a_customer_asks_for_stays_with_the_customer_in_a_split(
    service: RunningService, tag: str, kind: str
) -> None:
    """It is written down under the identifier that the request names, not under the oldest one."""
    older, asking = f"{tag}-a", f"{tag}-b"
    await collect(service, viewed(older), identify(older), viewed(asking), identify(asking))
    people, consent = service.stub(IdentityServiceStub), service.stub(ConsentServiceStub)
    await people.MergeProfiles(
        identity_pb2.MergeProfilesRequest(profile=f"user_id:{older}", absorb=[f"user_id:{asking}"], reason="alike")
    )
    purposes = ["analytics"] if kind == "OBJECT" else []
    filed = await file(service, asking, kind, purposes=purposes)
    await done(service, filed.data_request_id)
    left = [f"user_id:{asking}", f"anonymous_id:{asking}-device", f"email:{asking}@example.com"]
    await people.SplitProfile(
        identity_pb2.SplitProfileRequest(profile=f"user_id:{older}", identifiers=left, reason="not alike")
    )
    for user, holds in ((asking, True), (older, False)):
        told = await consent.GetConsents(consent_pb2.GetConsentsRequest(profile=f"user_id:{user}"))
        granted = {each.purpose_id for each in told.consents.consents if each.granted}
        assert ("analytics" not in granted) == holds, user


@pytest.mark.parametrize(
    ("regime", "filed", "due"),
    [
        ("PIPA", datetime(2026, 1, 25, tzinfo=UTC), datetime(2026, 2, 4, tzinfo=UTC)),
        ("GDPR", datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC)),
        ("GDPR", datetime(2025, 12, 15, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)),
    ],
)
async def test_a_request_has_a_due_time_and_can_be_taken_back_before_it_begins(
    service: RunningService, tag: str, regime: str, filed: datetime, due: datetime
) -> None:
    """Ten days by Korean law, a month by the GDPR; the same request id files it once."""
    await collect(service, identify(tag))
    times = {"filed_time": stamp(filed), "not_before_time": stamp(datetime.now(UTC) + timedelta(hours=1))}
    law = privacy_pb2.PrivacyRegime.Value(f"PRIVACY_REGIME_{regime}")
    first = await file(service, tag, "ERASE", regime=law, request_id=f"id-{tag}", channel="phone", **times)
    again = await file(service, tag, "ERASE", regime=law, request_id=f"id-{tag}", channel="phone", **times)
    assert again == first
    assert first.due_time.ToDatetime(UTC) == due
    listed = await stub(service).ListDataRequests(
        privacy_pb2.ListDataRequestsRequest(overdue=True, profile=f"user_id:{tag}")
    )
    assert [each.data_request_id for each in listed.data_requests] == [first.data_request_id]
    await stub(service).CancelDataRequest(privacy_pb2.CancelDataRequestRequest(data_request_id=first.data_request_id))
    cancelled = await done(service, first.data_request_id)
    assert cancelled.state == privacy_pb2.DATA_REQUEST_STATE_CANCELLED
    assert not cancelled.overdue
    with pytest.raises(grpc.aio.AioRpcError, match="the request is cancelled"):
        await stub(service).RefuseDataRequest(
            privacy_pb2.RefuseDataRequestRequest(data_request_id=first.data_request_id, reason="no")
        )
    assert await knows(service, f"user_id:{tag}")


async def test_a_request_id_files_one_request_and_is_not_taken_for_another(service: RunningService, tag: str) -> None:
    """Also when the same call comes twice at once; nobody's erasure is lost to an id that came before."""
    other = f"other-{tag}"
    await collect(service, identify(tag), identify(other))
    later = stamp(datetime.now(UTC) + timedelta(hours=1))
    at_once = [file(service, tag, "RESTRICT", request_id=tag, not_before_time=later) for _ in range(8)]
    filed = await asyncio.gather(*at_once)
    assert len({each.data_request_id for each in filed}) == 1
    for user, kind in ((tag, "ERASE"), (other, "RESTRICT"), (f"nobody-{tag}", "RESTRICT")):
        with pytest.raises(grpc.aio.AioRpcError, match="request_id: was used for another request"):
            await file(service, user, kind, request_id=tag)
    erased = await file(service, tag, "ERASE", request_id=f"{tag}-2")
    assert (await file(service, tag, "ERASE", request_id=f"{tag}-2")).data_request_id == erased.data_request_id
    await done(service, erased.data_request_id)
    assert (await file(service, tag, "ERASE", request_id=f"{tag}-2")).data_request_id == erased.data_request_id
    with pytest.raises(grpc.aio.AioRpcError, match="request_id: was used for another request"):
        await file(service, other, "ERASE", request_id=f"{tag}-2")


def stamp(moment: datetime) -> Timestamp:
    """Return a time as the contract has it."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


async def test_says_what_is_wrong_with_a_request(service: RunningService, tag: str) -> None:
    """The field and the rule."""
    await collect(service, identify(tag))
    for nobody in ("nobody", "user_id:null"):
        with pytest.raises(grpc.aio.AioRpcError, match="identifier: "):
            await stub(service).LiftSuppression(privacy_pb2.LiftSuppressionRequest(identifier=nobody))
    with pytest.raises(grpc.aio.AioRpcError, match="filed_time"):
        await file(service, tag, "ACCESS", filed_time=stamp(datetime.now(UTC) + timedelta(days=1)))
    for unheard in (
        stamp(datetime(1, 1, 1, tzinfo=UTC)),
        stamp(datetime.max.replace(tzinfo=UTC)),
        Timestamp(seconds=10**15),
    ):
        for field in ("filed_time", "not_before_time"):
            with pytest.raises(grpc.aio.AioRpcError, match=f"{field}: must be in the years"):
                await file(service, tag, "ACCESS", **{field: unheard})
    with pytest.raises(grpc.aio.AioRpcError, match="traits"):
        await file(service, tag, "RECTIFY")
    for purposes in (["nothing"], ["analytics", "analytics"]):
        with pytest.raises(grpc.aio.AioRpcError, match="purposes"):
            await file(service, tag, "OBJECT", purposes=purposes)
    with pytest.raises(grpc.aio.AioRpcError, match="nobody is known"):
        await file(service, f"nobody-{tag}", "ACCESS")


async def test_every_table_says_whether_it_is_personal(service: RunningService) -> None:
    """Whoever adds a table says in store/personal.py what becomes of it when a customer is erased."""
    assert await service.undeclared_tables() == set()


async def test_forgotten_fragments_are_announced(service: RunningService, tag: str) -> None:
    """With the request; the message itself is removed when all is done."""
    await collect(service, identify(tag))
    await erase(service, tag)
    fragment = KEY.resolve(f"user_id:{tag}").bytes
    announced = await service.published(FragmentsForgotten)
    assert not [each for each in announced if fragment in each.fragment_ids]


async def test_what_an_erased_customer_said_of_a_group_goes_too(service: RunningService, tag: str) -> None:
    """The group stays for its other members, with what they said; a household of nobody else loses its name."""
    other, acme = f"other-{tag}", f"acme-{tag}"
    contact = json.dumps({"contact": f"contact-{tag}", "name": "Acme"}).encode()
    await collect(
        service,
        made("GROUP", user_id=tag, group_id=acme, traits=contact),
        made("GROUP", user_id=other, group_id=acme, traits=json.dumps({"name": "Acme Ltd"}).encode()),
    )
    groups = service.stub(GroupServiceStub)
    home = groups_pb2.PutHouseholdRequest(
        household_id=f"h{next(numbers)}",
        display_name=f"home of {tag}",
        members=[groups_pb2.HouseholdMember(profile=f"user_id:{tag}")],
    )
    await groups.PutHousehold(home)
    await erase(service, tag)
    group = (await groups.GetGroup(groups_pb2.GetGroupRequest(group_id=acme))).group
    assert (MessageToDict(group.traits), group.member_count) == ({"name": "Acme Ltd"}, 1)
    kept = await dump(service)
    assert f"contact-{tag}" not in kept
    assert f"home of {tag}" not in kept
