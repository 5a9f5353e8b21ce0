# SPDX-License-Identifier: Apache-2.0
"""Encryption at rest of groups, files that come and go, requests of data subjects and webhooks."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from chassis.clock import now, to_us
from chassis.encryption.columns import Columns, SealedColumn
from chassis.encryption.vault import Vault
from chassis.migrations import migrate
from chassis.service import ROLES, Runner
from chassis.testing import Engines, RunningService, running, settings_for
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType, RejectedEvent, RejectedEventBatch
from dangol.profile.v1 import (
    agent_pb2,
    groups_pb2,
    identity_pb2,
    ingest_pb2,
    privacy_pb2,
    profile_pb2,
    transfer_pb2,
    webhooks_pb2,
)
from dangol.profile.v1.agent_pb2_grpc import AgentServiceStub
from dangol.profile.v1.groups_pb2_grpc import GroupServiceStub
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from dangol.profile.v1.transfer_pb2_grpc import ImportServiceStub
from google.protobuf.json_format import MessageToDict
from pydantic import SecretStr
from svc_profile.app import build
from svc_profile.settings import Settings
from svc_profile.store.sealed import COLUMNS

from . import test_exports as exports
from . import test_imports as imports
from . import test_privacy as privacy
from . import test_webhooks as webhooks
from .test_encryption import archive_of, sealed, status_of
from .test_webhooks import Receiver

SECRET = "pomegranate"
OLD, NEW = SecretStr("11" * 32), SecretStr("22" * 32)
CUSTOMER = f"kim-{SECRET}"

CLEAR_WITHOUT_KEYS = {
    "data_export_parts.rows", "data_requests.traces", "data_requests.traits", "events.payload", "export_chunks.data",
    "fragments.traits", "fragments.value", "groups.traits", "import_chunks.data", "import_rejects.body",
    "import_rejects.rule",
    "rejected_events.body", "search_entries.text", "search_entries.value", "webhook_deliveries.body",
    "identity_decisions.reason", "identity_decisions.revoked_reason",
}  # fmt: skip
"""Where the secret of this test stands while nothing is sealed; `data_export_chunks.data` is compressed."""

MAPPING = transfer_pb2.ImportMapping(
    columns=[
        transfer_pb2.ImportColumn(column="id", field="user_id"),
        transfer_pb2.ImportColumn(column="name", field="traits.name"),
        transfer_pb2.ImportColumn(column="born", field="traits.born", type=transfer_pb2.IMPORT_TYPE_TIME),
    ],
    time_format="%Y",
)

numbers = itertools.count()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    receiver.never.set()
    server.close()


class Platform:
    """One database and one set of streams that a service is started on again and again, with other keys."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        number = next(numbers)
        self._options: dict[str, Any] = {
            "postgres_database": f"test_sealed_transfers_{number}",
            "stream_prefix": f"sealed{number}.",
            "personal_services": ("profile", "other"),
            "webhook_allow_nets": ("127.0.0.0/8",),
            "webhook_retry_seconds": (3600,),
        }

    @asynccontextmanager
    async def service(self, *roles: str, **keys: SecretStr) -> AsyncIterator[RunningService]:
        """Run a service whose streams stay, as they do when a real one is restarted."""
        service = build(settings_for(Settings, self._engines, **self._options, encryption_keys=keys))
        await migrate(service.database, service.migrations)
        runner = Runner(service, roles or ROLES)
        await runner.start()
        running_service = RunningService(service, runner)
        try:
            yield running_service
        finally:
            await running_service.stop()

    def last_service(self, **keys: SecretStr) -> AbstractAsyncContextManager[RunningService]:
        """Run the last service, and remove the streams with it."""
        return running(build, Settings, self._engines, **self._options, encryption_keys=keys)


@pytest.fixture
def platform(engines: Engines) -> Platform:
    return Platform(engines)


@dataclass(frozen=True)
class Left:
    """What was begun and waits."""

    export_id: str
    import_id: str
    """One that has ended, with a row that was not taken."""
    uploading_id: str
    """One whose file is not complete."""
    uploaded_bytes: int
    data_request_id: str
    """A request for access that waits for another service."""
    rectification_id: str
    endpoint_id: str


def event(kind: str, user: str, **fields: Any) -> Event:
    time_us = to_us(now()) - 60_000_000
    content: dict[str, Any] = {
        name: json.dumps(value).encode() if name == "traits" else value for name, value in fields.items()
    }
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"), source="web", message_id=f"m{next(numbers)}", user_id=user,
        time_us=time_us, received_time_us=time_us, **content,
    )  # fmt: skip


async def fill(service: RunningService, receiver: Receiver) -> Left:
    """Let a secret come in by every door that keeps it for a while, and leave it there."""
    customers = [event("identify", CUSTOMER, traits={"motto": SECRET}), event("identify", "lee", traits={"age": 30})]
    accounts = [event("group", CUSTOMER, group_id="acme", traits={"motto": SECRET, "kind": "shop"})]
    await service.deliver(EventBatch(events=[*customers, *accounts]), subject="events.collected.1")
    # What the gateway did not understand of a webhook that came in.
    body = f"[{SECRET}".encode()
    refused = RejectedEvent(source="orders", reason="INVALID_JSON", body=body, received_time_us=to_us(now()))
    await service.deliver(RejectedEventBatch(events=[refused]), subject="events.rejected")
    ended = await brought_in(service, imports.csv("id,name,born", "han,Han,1990", f"kwon,Kwon,{SECRET}"))
    assert (ended.taken_events, ended.rejected_rows) == (1, 1)
    await decided(service)
    uploading = await imports.create(service, imports.PEOPLE, transfer_pb2.IMPORT_FORMAT_CSV, mapping=imports.CUSTOMERS)
    file = imports.csv("id,E-mail,name,age", "choi,,Choi,", f"park,,{SECRET},")
    await imports.upload(service, uploading, file, piece=18, start=False)
    exported, data = await exports.exported(service, trait_names=["motto"])
    assert SECRET.encode() in data
    later = now() + timedelta(days=1)
    asked = await privacy.file(service, CUSTOMER, "RECTIFY", traits={"motto": SECRET}, not_before_time=later)
    access = await privacy.file(service, CUSTOMER, "ACCESS")
    await parts_of(service, access.data_request_id)
    receiver.answers["/hook"] = ["500 Broken"]
    endpoint_id, _ = await webhooks.create(service, receiver.url("/hook"))
    await service.deliver(identity_pb2.ProfilesMerged(profile_id=f"prf_{SECRET}"))
    await receiver.of("/hook", 1)
    async with asyncio.timeout(30):
        while not (await webhooks.deliveries(service, endpoint_id))[0].attempts:
            await asyncio.sleep(0.02)
    return Left(
        exported.export_id,
        ended.import_id,
        uploading,
        len(file),
        access.data_request_id,
        asked.data_request_id,
        endpoint_id,
    )


async def decided(service: RunningService) -> None:
    """Merge two customers and split them again, with reasons."""
    stub = service.stub(IdentityServiceStub)
    merge = identity_pb2.MergeProfilesRequest(
        profile=f"user_id:{CUSTOMER}", absorb=["user_id:lee"], reason=f"both said {SECRET}"
    )
    await stub.MergeProfiles(merge)
    await service.settled()
    split = identity_pb2.SplitProfileRequest(
        profile=f"user_id:{CUSTOMER}", identifiers=["user_id:lee"], reason=f"only one said {SECRET}"
    )
    await stub.SplitProfile(split)
    await service.settled()


async def brought_in(service: RunningService, data: bytes) -> transfer_pb2.ImportJob:
    """Import customers; what is said of a birth that is no year quotes it."""
    csv = transfer_pb2.IMPORT_FORMAT_CSV
    return await imports.imported(service, imports.PEOPLE, csv, data, mapping=MAPPING)


async def parts_of(service: RunningService, data_request_id: str) -> None:
    """Wait until the service has sent all that it knows."""
    sql = "SELECT bool_or(last) FROM data_export_parts WHERE data_request_id = :id"
    async with asyncio.timeout(60):
        while True:
            async with service.database.snapshot() as tx:
                if await tx.value(sql, id=data_request_id):
                    return
            await asyncio.sleep(0.05)


async def clear(service: RunningService) -> set[str]:
    """Return the columns, of all tables of all schemas of ours, in which the secret can be read."""
    found = set()
    async with service.database.snapshot() as tx:
        tables = await tx.rows(
            """
            SELECT table_schema, table_name FROM information_schema.tables
            WHERE table_schema IN (current_schema(), 'legal_hold')
            """
        )
        for table in tables:
            for row in await tx.rows(f'SELECT * FROM "{table.table_schema}"."{table.table_name}"'):
                found |= {f"{table.table_name}.{name}" for name, value in row._mapping.items() if holds(value)}
    return found


def holds(value: object) -> bool:
    """Tell whether the secret is in a value: bytes as they are, anything else as text, also in hexadecimal."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return SECRET in text.lower() or SECRET.encode().hex() in text.lower()


async def read(service: RunningService, left: Left) -> None:
    """Read everything as often as one likes, and find the secret."""
    group = await service.stub(GroupServiceStub).GetGroup(groups_pb2.GetGroupRequest(group_id="acme"))
    assert (group.group.kind, MessageToDict(group.group)["traits"]["motto"]) == ("shop", SECRET)
    rejects = await service.stub(ImportServiceStub).ListImportRejects(
        transfer_pb2.ListImportRejectsRequest(import_id=left.import_id)
    )
    assert [(SECRET in each.body, SECRET in each.rule) for each in rejects.rejects] == [(True, True)]
    refused = await service.stub(IngestServiceStub).ListRejectedEvents(ingest_pb2.ListRejectedEventsRequest())
    assert SECRET in str(MessageToDict(refused))
    assert SECRET.encode() in await exports.download(service, left.export_id)
    decisions = await service.stub(IdentityServiceStub).ListIdentityDecisions(
        identity_pb2.ListIdentityDecisionsRequest(profile="user_id:lee")
    )
    told = {(each.reason, each.revoke_reason) for each in decisions.decisions}
    assert (f"both said {SECRET}", f"only one said {SECRET}") in told
    timeline = await service.stub(AgentServiceStub).ListTimeline(agent_pb2.ListTimelineRequest(profile="user_id:lee"))
    assert f"both said {SECRET}" in str(MessageToDict(timeline))
    request = privacy_pb2.GetDataRequestRequest(data_request_id=left.rectification_id)
    assert (await service.stub(PrivacyServiceStub).GetDataRequest(request)).data_request.state


async def finish(service: RunningService, left: Left, receiver: Receiver) -> None:
    """Bring what was begun to its end."""
    start = transfer_pb2.StartImportRequest(import_id=left.uploading_id, total_bytes=left.uploaded_bytes)
    await service.stub(ImportServiceStub).StartImport(start)
    ended = await imports.ended(service, left.uploading_id)
    assert (ended.state, ended.taken_events) == (transfer_pb2.IMPORT_STATE_COMPLETED, 2)
    await service.settled()
    park = await service.stub(ProfileServiceStub).GetProfile(profile_pb2.GetProfileRequest(profile="user_id:park"))
    assert MessageToDict(park.profile)["traits"]["name"] == SECRET
    request: dict[str, Any] = {"data_request_id": left.data_request_id, "service": "other", "attempt": "1"}
    row = json.dumps({"said": f"{SECRET} of the other"}).encode() + b"\n"
    part = privacy_pb2.ExportPart(**request, number=0, file="things", last=True, rows=row)
    await service.deliver(part)
    access = await privacy.done(service, left.data_request_id)
    assert access.state == privacy_pb2.DATA_REQUEST_STATE_DONE
    archive = await archive_of(service, left.data_request_id)
    assert SECRET in archive["profile/identifiers_and_traits.json"]
    assert f"{SECRET} of the other" in archive["other/things.csv"]
    assert CUSTOMER in archive["profile/identifiers_and_traits.json"]
    reasons = [(row["reason"], row["revoked_reason"]) for row in json.loads(archive["profile/identity_decisions.json"])]
    assert (f"both said {SECRET}", f"only one said {SECRET}") in reasons
    assert {"motto": SECRET} in [row["traits"] for row in json.loads(archive["profile/data_requests.json"])]
    await webhooks.stub(service).ReplayWebhookDeliveries(
        webhooks_pb2.ReplayWebhookDeliveriesRequest(
            endpoint_id=left.endpoint_id,
            webhook_ids=[each.webhook_id for each in await webhooks.deliveries(service, left.endpoint_id)],
        )
    )
    first, second = await receiver.of("/hook", 2)
    assert first.body == second.body
    assert json.loads(second.body)["data"]["profileId"] == f"prf_{SECRET}"


async def test_no_value_of_a_group_a_file_or_a_webhook_stands_in_any_table(
    platform: Platform, receiver: Receiver
) -> None:
    """And after the key was changed, everything is read and brought to its end."""
    async with platform.service(k1=OLD) as service:
        left = await fill(service, receiver)
        assert await clear(service) == set()
        counts = await sealed(service)
        assert {name for name, (_, open_) in counts.items() if open_} == set()
        assert {name for name in CLEAR_WITHOUT_KEYS & counts.keys() if not counts[name][0]} == set()
        await read(service, left)
    async with platform.service("rpc", k2=NEW, k1=OLD) as service:
        (vault,) = [each for each in service.service.resources if isinstance(each, Vault)]
        await vault.rewrap()
        assert (await status_of(service))["k1"] == 0
        await read(service, left)
    async with platform.last_service(k2=NEW) as service:
        await read(service, left)
        await finish(service, left, receiver)
        assert await clear(service) == set()
        counts = await sealed(service)
        assert counts["data_export_chunks.data"][0] > 0
        assert {name for name, (_, open_) in counts.items() if open_} == set()


async def test_turning_it_on_seals_them_part_by_part(platform: Platform, receiver: Receiver) -> None:
    """The search finds every one of them before; a run that was broken off in the middle of a table goes on there."""
    async with platform.service() as service:
        left = await fill(service, receiver)
        assert await clear(service) == CLEAR_WITHOUT_KEYS
        await read(service, left)
    async with platform.service("rpc", "consumers", k1=OLD) as service:
        columns = next(each for each in service.service.personal if isinstance(each, Columns))
        before = (await sealed(service))["import_chunks.data"]
        assert before == (0, 3)
        async with service.database.transaction() as tx:
            assert await columns.seal_some(tx, column("import_chunks.data"), 1)
        async with service.database.transaction() as tx:
            assert await columns.seal_some(tx, column("import_chunks.data"), 1)
        assert (await sealed(service))["import_chunks.data"] == (2, 1)
        await read(service, left)
        await columns.seal_all()
        assert {open_ for _, open_ in (await sealed(service)).values()} == {0}
    async with platform.last_service(k1=OLD) as service:
        async with asyncio.timeout(60):
            while await clear(service):
                await asyncio.sleep(0.1)
        await read(service, left)
        await finish(service, left, receiver)


def column(name: str) -> SealedColumn:
    """Return a declared column."""
    return next(each for each in COLUMNS if each.name == name)


async def test_an_erasure_opens_what_it_has_to_look_into(engines: Engines, receiver: Receiver) -> None:
    """Rejected rows and messages that name the customer go, those of others stay; so do traits of a group."""
    nets: dict[str, Any] = {"webhook_allow_nets": ("127.0.0.0/8",), "webhook_retry_seconds": (3600,)}
    keys: dict[str, Any] = {"encryption_keys": {"k1": OLD}, "personal_services": ("profile",)}
    async with running(build, Settings, engines, **nets, **keys) as service:
        both = [
            event("group", user, group_id="acme", traits={name: name})
            for user, name in ((CUSTOMER, "motto"), ("lee", "city"))
        ]
        await service.deliver(EventBatch(events=both), subject="events.collected.1")
        rows = imports.csv("id,name,born", f"{CUSTOMER},Kim,once", "lee,Lee,once")
        ended = await brought_in(service, rows)
        assert ended.rejected_rows == 2
        endpoint_id, _ = await webhooks.create(service, receiver.url("/hook"))
        await service.deliver(*(identity_pb2.ProfilesMerged(profile_id=user) for user in (CUSTOMER, "lee")))
        await receiver.of("/hook", 2)
        request = await privacy.erase(service, CUSTOMER)
        assert request.state == privacy_pb2.DATA_REQUEST_STATE_DONE
        assert [row for row, _, _ in await imports.rejects(service, ended.import_id)] == [2]
        assert len(await webhooks.deliveries(service, endpoint_id)) == 1
        group = await service.stub(GroupServiceStub).GetGroup(groups_pb2.GetGroupRequest(group_id="acme"))
        assert MessageToDict(group.group)["traits"] == {"city": "city"}
