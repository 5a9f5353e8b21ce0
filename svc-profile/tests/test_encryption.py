# SPDX-License-Identifier: Apache-2.0
"""Encryption at rest: nothing can be read in the sealed columns, and everything works as without."""

import asyncio
import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from chassis.clock import now, to_us
from chassis.encryption.columns import Columns
from chassis.encryption.sealing import MARK, EncryptionKeys, Sealer
from chassis.encryption.vault import Vault
from chassis.errors import FailedPrecondition
from chassis.migrations import migrate
from chassis.retention.enforcing import Retention
from chassis.testing import Engines, RunningService, running, settings_for
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType, RejectedEvent, RejectedEventBatch
from dangol.profile.v1 import (
    agent_pb2,
    encryption_pb2,
    ingest_pb2,
    legal_hold_pb2,
    privacy_pb2,
    profile_pb2,
    retention_pb2,
)
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.encryption_pb2_grpc import EncryptionServiceStub
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.legal_hold_pb2_grpc import LegalHoldServiceStub
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.json_format import MessageToDict
from pydantic import SecretStr, ValidationError
from svc_profile.app import build
from svc_profile.domain.exports import ExportPlan, State
from svc_profile.settings import LegalHold, Settings
from svc_profile.store.exports import ExportStore
from svc_profile.store.sealed import COLUMNS
from svc_profile.wire.traits import traits_folded

from .test_privacy import done, erase, file

SECRET = "pomegranate"
OLD, NEW = SecretStr("11" * 32), SecretStr("22" * 32)
HOLDS = (LegalHold(event="Order Completed", days=1825, law="law"),)

numbers = itertools.count()


def options(**keys: SecretStr) -> dict[str, Any]:
    """Return settings with keys."""
    return {"encryption_keys": keys, "personal_services": ("profile",), "legal_holds": HOLDS}


@pytest.fixture
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, **options(k1=OLD)) as service:
        yield service


def happened(user: str, name: str = "Order Completed", days_ago: int = 1) -> Event:
    """Return what a user did, with a secret in it."""
    time_us = to_us(now()) - days_ago * 86_400_000_000
    return Event(
        type=EventType.EVENT_TYPE_TRACK,
        source="web",
        message_id=f"m{next(numbers)}",
        user_id=user,
        name=name,
        time_us=time_us,
        received_time_us=time_us,
        properties=json.dumps({"gift": f"{SECRET} for {user}@example.com"}).encode(),
    )


async def fill(service: RunningService, user: str) -> str:
    """Let a secret come in by every door whose columns are sealed; returns the id of the interaction."""
    await service.deliver(EventBatch(events=[happened(user)]), subject="events.collected.1")
    body = json.dumps({"userId": user, "event": "", "note": SECRET}).encode()
    given: dict[str, Any] = {"source": "web", "reason": "X", "position": 1, "received_time_us": to_us(now())}
    rejected = [RejectedEvent(message_id=f"r-{user}", body=body, **given)]
    await service.deliver(RejectedEventBatch(events=rejected), subject="events.rejected")
    interaction = agent_pb2.Interaction(
        kind=agent_pb2.INTERACTION_KIND_NOTE, text=f"{user} likes {SECRET}", subject=SECRET
    )
    request = agent_pb2.CreateInteractionRequest(profile=f"user_id:{user}", interaction=interaction)
    answer = await service.stub(AgentServiceStub).CreateInteraction(request)
    await service.settled()
    found: str = answer.interaction.interaction_id
    return found


async def archive_of(service: RunningService, data_request_id: str) -> dict[str, str]:
    """Return the files of an access request."""
    stub = service.stub(PrivacyServiceStub)
    data = bytearray()
    while True:
        wanted = privacy_pb2.DownloadExportRequest(data_request_id=data_request_id, index=len(data) // 2**19)
        piece = await stub.DownloadExport(wanted)
        data += piece.data
        if len(data) == piece.total_bytes:
            break
    archive = zipfile.ZipFile(io.BytesIO(bytes(data)))
    return {name: archive.read(name).decode("utf-8-sig") for name in archive.namelist()}


async def reads(service: RunningService, user: str, interaction_id: str) -> list[str]:
    """Return the secret as every reader finds it."""
    agent = service.stub(AgentServiceStub)
    timeline = await agent.ListTimeline(agent_pb2.ListTimelineRequest(profile=f"user_id:{user}"))
    note = await agent.GetInteraction(agent_pb2.GetInteractionRequest(interaction_id=interaction_id))
    request = ingest_pb2.ListRejectedEventsRequest(message_id=f"r-{user}")
    rejected = await service.stub(IngestServiceStub).ListRejectedEvents(request)
    return [
        str(MessageToDict(timeline)),
        note.interaction.text,
        note.interaction.subject,
        str(MessageToDict(rejected)),
    ]


async def all_read(service: RunningService, user: str, interaction_id: str) -> bool:
    """Tell whether every reader finds the secret."""
    return all(SECRET in found for found in await reads(service, user, interaction_id))


async def dump(service: RunningService) -> str:
    """Return every row of every table of every schema of ours as text, bytes as they are and in hexadecimal."""
    async with service.database.snapshot() as tx:
        tables = await tx.rows(
            """
            SELECT table_schema, table_name FROM information_schema.tables
            WHERE table_schema IN (current_schema(), 'legal_hold')
            """
        )
        rows = [
            row
            for table in tables
            for row in await tx.rows(f'SELECT * FROM "{table.table_schema}"."{table.table_name}"')
        ]
    return "\n".join(
        value.decode(errors="replace") + value.hex() if isinstance(value, bytes) else str(value)
        for row in rows
        for value in row
    ).lower()


async def sealed(service: RunningService) -> dict[str, tuple[int, int]]:
    """Return, for each column, how many values are sealed and how many are not."""
    async with service.database.snapshot() as tx:
        counts = {}
        for c in COLUMNS:
            sealed_rows = f"count(*) FILTER (WHERE {c.is_sealed}) AS sealed"
            sql = f"SELECT {sealed_rows}, count(*) AS found FROM {c.table} WHERE {c.among} AND {c.column} IS NOT NULL"
            row = await tx.row(sql)
            assert row is not None
            counts[c.name] = (row.sealed, row.found - row.sealed)
        return counts


async def test_no_secret_stands_in_any_table_and_every_reader_finds_it(service: RunningService) -> None:
    """Of what is sealed: content of events, rejected bodies, notes of staff."""
    note = await fill(service, "kim")
    raw = await dump(service)
    assert SECRET not in raw
    assert SECRET.encode().hex() not in raw
    assert await all_read(service, "kim", note)


def login(user: str) -> Event:
    """Return a login with everything that tells who somebody is."""
    time_us = to_us(now()) - 60_000_000
    traits = {"email": f"{user}@example.com", "phone": "+821012345678", "name": "김단골", "birthday": "1990-03-01"}
    return Event(
        type=EventType.EVENT_TYPE_IDENTIFY,
        source="web",
        message_id=f"m{next(numbers)}",
        user_id=user,
        anonymous_id=f"device-of-{user}",
        time_us=time_us,
        received_time_us=time_us,
        traits=json.dumps(traits).encode(),
    )


async def search(service: RunningService, query: str) -> list[str]:
    """Return by what customers are found."""
    async with asyncio.timeout(60):
        while await waiting(service):
            await asyncio.sleep(0.05)
    answer = await service.stub(AgentServiceStub).SearchProfiles(agent_pb2.SearchProfilesRequest(query=query))
    return [found.match.value for found in answer.matches]


async def waiting(service: RunningService) -> bool:
    async with service.database.snapshot() as tx:
        sql = "SELECT EXISTS (SELECT FROM search_queue) OR EXISTS (SELECT FROM search_filling WHERE version = 0)"
        return bool(await tx.value(sql))


async def test_no_identifier_and_no_trait_stands_in_any_table(service: RunningService) -> None:
    """And the customer is known, folded, found by parts of names and numbers, and told as without keys."""
    await service.deliver(EventBatch(events=[login("kim-secret")]), subject="events.collected.1")
    await service.deliver(EventBatch(events=[happened("kim-secret")]), subject="events.collected.1")
    assert await search(service, "단골") == ["김단골"]
    raw = await dump(service)
    for word in ("kim-secret", "김단골", "1012345678", "1990-03-01"):
        assert word not in raw
        assert word.encode().hex() not in raw
    stub = service.stub(ProfileServiceStub)
    found = await stub.GetProfile(profile_pb2.GetProfileRequest(profile="email:kim-secret@example.com"))
    traits = MessageToDict(found.profile)["traits"]
    assert (traits["name"], traits["birthday"]) == ("김단골", "1990-03-01")
    identifiers = {each.value for each in found.profile.identifiers}
    assert {"kim-secret", "kim-secret@example.com", "+821012345678"} <= identifiers
    assert await search(service, "ㄷㄱ") == ["김단골"]
    assert await search(service, "5678") == ["+821012345678"]
    assert await search(service, "secret@exam") == ["kim-secret@example.com"]
    assert await search(service, "kim-secret") != []
    assert await search(service, "nobody") == []
    access = await done(service, (await file(service, "kim-secret", "ACCESS")).data_request_id)
    told = (await archive_of(service, access.data_request_id))["profile/identifiers_and_traits.json"]
    assert "김단골" in told
    assert "+821012345678" in told
    request = await erase(service, "kim-secret")
    assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    assert await search(service, "단골") == []


async def test_what_waits_to_be_sent_is_sealed_and_goes_out_in_clear(service: RunningService) -> None:
    """An announcement lies in the outbox for as long as JetStream is away, which may be until the next backup."""
    (announced,) = traits_folded({b"f" * 16: {"city": SECRET}}, 1)
    async with service.database.transaction() as tx:
        tx.publish(announced)
        await tx.flush()
        waiting = await tx.value("SELECT payload FROM outbox")
        assert waiting.startswith(MARK)
        assert SECRET.encode() not in waiting
    await service.settled()
    assert await service.published(type(announced)) == [announced]


async def test_the_key_of_pseudonyms_is_sealed_while_an_export_is_made(service: RunningService) -> None:
    plan = ExportPlan("exp_1", 1, (), (), "", (), is_list=False, pseudonymise=True, purpose="", byte_order_mark=False)
    async with service.database.transaction() as tx:
        exports = ExportStore(tx)
        await exports.add(plan, request_id="", create_time_us=1, expire_time_us=2, key=SECRET.encode())
        assert SECRET.encode() not in await tx.value("SELECT key FROM export_jobs")
        found = await exports.find("exp_1")
        assert found is not None
        assert found.key == SECRET.encode()
        await exports.end("exp_1", State.CANCELLED, end_time_us=3)


async def test_turning_it_on_seals_identifiers_traits_and_the_search_index(engines: Engines) -> None:
    """What is found before is found afterwards."""
    database = {"postgres_database": f"test_sealing_{next(numbers)}"}
    async with running(build, Settings, engines, **database, **options()) as service:
        await service.deliver(EventBatch(events=[login("kim-secret")]), subject="events.collected.1")
        assert await search(service, "단골") == ["김단골"]
        assert "김단골" in await dump(service)
    async with running(build, Settings, engines, **database, **options(k1=OLD)) as service:
        async with asyncio.timeout(60):
            while "김단골" in await dump(service) or "kim-secret" in await dump(service):
                await asyncio.sleep(0.1)
        assert await search(service, "단골") == ["김단골"]
        stub = service.stub(ProfileServiceStub)
        found = await stub.GetProfile(profile_pb2.GetProfileRequest(profile="user_id:kim-secret"))
        assert MessageToDict(found.profile)["traits"]["name"] == "김단골"


async def test_an_erasure_finds_what_is_sealed_and_an_export_tells_it(service: RunningService) -> None:
    """What the law demands is sealed too, and what others said of the customer would be found."""
    await fill(service, "kim")
    await fill(service, "lee")
    access = await done(service, (await file(service, "kim", "ACCESS")).data_request_id)
    archive = await archive_of(service, access.data_request_id)
    assert SECRET in archive["profile/events.json"]
    assert f"kim likes {SECRET}" in archive["profile/contacts.json"]
    assert SECRET in archive["profile/rejected_events.json"]
    request = await erase(service, "kim")
    held = await service.stub(LegalHoldServiceStub).ListHeldRecords(legal_hold_pb2.ListHeldRecordsRequest())
    assert [SECRET in str(MessageToDict(record)) for record in held.records] == [True]
    assert held.records[0].data_request_id == request.data_request_id
    assert SECRET not in await dump(service)
    stub = service.stub(IngestServiceStub)
    left = await stub.ListRejectedEvents(ingest_pb2.ListRejectedEventsRequest())
    assert [event.message_id for event in left.rejected_events] == ["r-lee"]


async def test_retention_reads_and_writes_sealed_events(service: RunningService) -> None:
    """An anonymised event is sealed under its new key, and one on hold under its own."""
    old = [happened("kim", "Product Viewed", 900), happened("kim", "Order Completed", 900)]
    await service.deliver(EventBatch(events=old), subject="events.collected.1")
    rule = retention_pb2.RetentionRule(
        rule_id="r", event="*", days=365, action=retention_pb2.RETENTION_ACTION_ANONYMISE
    )
    await service.deliver(retention_pb2.RetentionRulesChanged(retention_rules=[rule], revision=1))
    await Retention(service.database, service.service.retained).run()
    counts = await sealed(service)
    assert (counts["events.payload"], counts["legal_hold.records.payload"]) == ((2, 0), (1, 0))


async def test_without_keys_nothing_is_sealed(engines: Engines) -> None:
    """And what only looks sealed is nothing special."""
    async with running(build, Settings, engines, **options()) as service:
        await fill(service, "kim")
        body = MARK + b"\x00\x00\x00\x01 from somebody funny"
        rejected = [RejectedEvent(message_id="funny", source="web", reason="X", body=body)]
        await service.deliver(RejectedEventBatch(events=rejected), subject="events.rejected")
        stub = service.stub(IngestServiceStub)
        assert len((await stub.ListRejectedEvents(ingest_pb2.ListRejectedEventsRequest())).rejected_events) == 2
        status = await service.stub(EncryptionServiceStub).GetEncryptionStatus(
            encryption_pb2.GetEncryptionStatusRequest()
        )
        assert (status.enabled, status.current_key, list(status.keys)) == (False, "", [])
        assert SECRET in await dump(service)


async def test_turning_it_on_seals_what_was_there_also_after_a_run_that_died(engines: Engines) -> None:
    """Some at a time, each step with its progress in one transaction."""
    database = {"postgres_database": f"test_sealing_{next(numbers)}"}
    async with running(build, Settings, engines, **database, **options()) as service:
        notes = [await fill(service, f"kim{n}") for n in range(3)]
    async with running(build, Settings, engines, ("rpc", "consumers"), **database, **options(k1=OLD)) as service:
        columns = next(each for each in service.service.personal if isinstance(each, Columns))
        async with service.database.transaction() as tx:
            assert await columns.seal_some(tx, COLUMNS[0], 2)
        assert (await sealed(service))["events.payload"] == (2, 1)
        assert all([await all_read(service, f"kim{n}", notes[n]) for n in range(3)])
        await columns.seal_all()
        assert {unsealed for _, unsealed in (await sealed(service)).values()} == {0}
        assert SECRET not in await dump(service)
        assert all([await all_read(service, f"kim{n}", notes[n]) for n in range(3)])
        status = await service.stub(EncryptionServiceStub).GetEncryptionStatus(
            encryption_pb2.GetEncryptionStatusRequest()
        )
        told = {each.column: (each.sealed_count, each.done) for each in status.columns}
        assert told["events.payload"] == (3, True)
        assert {done_ for _, done_ in told.values()} == {True}


async def test_a_rotation_under_load_rewraps_keys_and_the_old_key_can_go(engines: Engines) -> None:
    """Not one row is written anew; the status shows how far it is."""
    database = {"postgres_database": f"test_rotation_{next(numbers)}"}
    async with running(build, Settings, engines, **database, **options(k1=OLD)) as service:
        first = await fill(service, "kim")
    both = options(k2=NEW, k1=OLD)
    async with running(build, Settings, engines, ("rpc", "consumers"), **database, **both) as service:
        (vault,) = [each for each in service.service.resources if isinstance(each, Vault)]
        before = await status_of(service)
        assert before == {"k2": 0, "k1": 2}
        await asyncio.gather(fill(service, "lee"), vault.rewrap(), fill(service, "park"))
        assert await status_of(service) == {"k2": 2, "k1": 0}
        second = await fill(service, "choi")
    async with running(build, Settings, engines, **database, **options(k2=NEW)) as service:
        assert await all_read(service, "kim", first)
        assert await all_read(service, "choi", second)


async def status_of(service: RunningService) -> dict[str, int]:
    """Return how many data keys each key wraps."""
    stub = service.stub(EncryptionServiceStub)
    status = await stub.GetEncryptionStatus(encryption_pb2.GetEncryptionStatusRequest())
    return {key.name: key.data_key_count for key in status.keys}


@pytest.mark.parametrize(
    ("keys", "said"),
    [({}, "must hold k1"), ({"k2": NEW}, "lacks the key k1"), ({"k1": NEW}, "the key k1 is not the one")],
)
async def test_settings_that_do_not_fit_the_data_are_an_error_at_the_start(
    engines: Engines, keys: dict[str, SecretStr], said: str
) -> None:
    """It names the setting and the key, and nothing of the key."""
    name = f"test_wrong_key_{next(numbers)}"
    async with running(build, Settings, engines, postgres_database=name, **options(k1=OLD)) as service:
        await fill(service, "kim")
    wrong = build(settings_for(Settings, engines, postgres_database=name, **options(**keys)))
    await migrate(wrong.database, wrong.migrations)
    with pytest.raises(FailedPrecondition, match=said) as error:
        await wrong.resources[0].open()
    assert "DANGOL_PROFILE_ENCRYPTION_KEYS" in str(error.value)
    await wrong.database.close()


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValidationError, match="64 hexadecimal digits"):
        Settings(encryption_keys={"k1": SecretStr("abc")})


def test_a_value_opens_where_it_was_sealed_and_nowhere_else() -> None:
    """Neither in another row nor in another column, nor with another data key, nor when a bit is wrong."""
    sealer, other = Sealer(), Sealer()
    sealer.learn(1, b"k" * 32)
    other.learn(1, b"o" * 32)
    value = sealer.seal("events.payload", b"row", b"content")
    assert sealer.open("events.payload", b"row", value) == b"content"
    assert value != sealer.seal("events.payload", b"row", b"content")
    flipped = value[:-1] + bytes([value[-1] ^ 1])
    attempts: tuple[Callable[[], bytes], ...] = (
        lambda: sealer.open("events.payload", b"rows", value),
        lambda: sealer.open("legal_hold.records.payload", b"row", value),
        lambda: other.open("events.payload", b"row", value),
        lambda: sealer.open("events.payload", b"row", flipped),
    )
    for attempt in attempts:
        with pytest.raises(FailedPrecondition):
            attempt()


def test_a_data_key_is_wrapped_for_its_day() -> None:
    keys = EncryptionKeys({"k1": b"k" * 32})
    wrapped = keys.wrap(b"d" * 32, "2026-11-26")
    assert keys.unwrap("k1", wrapped, "2026-11-26") == b"d" * 32
    with pytest.raises(FailedPrecondition):
        keys.unwrap("k1", wrapped, "2026-11-27")
