# SPDX-License-Identifier: Apache-2.0
"""svc-profile is killed again and again while it erases and exports; what it began finishes by itself, once."""

import asyncio
import json
import os
import random
import signal
import sys

from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import privacy_pb2
from dangol.profile.v1.privacy_pb2_grpc import PrivacyServiceStub
from svc_profile.app import build
from svc_profile.settings import Settings

CUSTOMERS = 6
KILLS = 12


async def test_a_killed_service_finishes_what_data_subjects_asked_for(engines: Engines) -> None:
    """`kill -9` at moments that chance chooses, over all steps of several requests at once."""
    chance = random.Random(20261126)
    settings = {"personal_services": ("profile",), "ack_wait_seconds": 2}
    async with running(build, Settings, engines, roles=("rpc",), **settings) as service:
        process = await _start(service)
        events = [
            Event(
                type=EventType.EVENT_TYPE_IDENTIFY,
                source="web",
                message_id=f"m{number}-{again}",
                time_us=1_760_000_000_000_000 + again,
                user_id=f"killed{number}",
                anonymous_id=f"killed{number}-device",
                traits=json.dumps({"email": f"killed{number}@example.com"}).encode(),
            )
            for number in range(CUSTOMERS)
            for again in range(20)
        ]
        await service.deliver(EventBatch(events=events), subject="events.collected.0")
        ids = [await _file(service, number) for number in range(CUSTOMERS)]
        kills = 0
        while await _running(service, ids) and kills < KILLS:
            await asyncio.sleep(chance.uniform(0.8, 3.5))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            kills += 1
            process = await _start(service)
        async with asyncio.timeout(120):
            while await _running(service, ids):
                await asyncio.sleep(0.2)
        assert kills >= 3
        await _check(service, ids)
        process.terminate()
        await process.wait()


async def _file(service: RunningService, number: int) -> str:
    kind = privacy_pb2.DATA_REQUEST_KIND_ACCESS if number == 0 else privacy_pb2.DATA_REQUEST_KIND_ERASE
    request = privacy_pb2.CreateDataRequestRequest(profile=f"user_id:killed{number}", kind=kind)
    answer = await service.stub(PrivacyServiceStub).CreateDataRequest(request)
    return str(answer.data_request.data_request_id)


async def _running(service: RunningService, ids: list[str]) -> bool:
    async with service.database.snapshot() as tx:
        count = await tx.value(
            "SELECT count(*) FROM data_requests WHERE data_request_id = ANY (:ids) AND state IN (1, 2)", ids=ids
        )
    return bool(count)


async def _check(service: RunningService, ids: list[str]) -> None:
    """One is exported and still there; the others are gone, each with one certificate in an unbroken chain."""
    stub = service.stub(PrivacyServiceStub)
    first = await stub.DownloadExport(privacy_pb2.DownloadExportRequest(data_request_id=ids[0]))
    assert first.data.startswith(b"PK")
    for data_request_id in ids[1:]:
        wanted = privacy_pb2.GetErasureCertificateRequest(data_request_id=data_request_id)
        certificate = (await stub.GetErasureCertificate(wanted)).certificate
        account = json.loads(certificate.text)
        assert account["removed"]["profile"]["fragments"] == 3
        assert account["probe"]["leftovers"] == []
        verify = privacy_pb2.VerifyCertificateRequest(text=certificate.text, signature=certificate.signature)
        verdict = await stub.VerifyCertificate(verify)
        assert (verdict.signature_valid, verdict.known) == (True, True)
    async with service.database.snapshot() as tx:
        values = [row[0] for row in await tx.rows("SELECT value FROM fragments ORDER BY value")]
    assert values == ["killed0", "killed0-device", "killed0@example.com"]


async def _start(service: RunningService) -> asyncio.subprocess.Process:
    settings = service.service.settings
    environment = {
        **os.environ,
        "DANGOL_POSTGRES_URL": settings.postgres_url.get_secret_value(),
        "DANGOL_POSTGRES_DATABASE": settings.postgres_database,
        "DANGOL_NATS_URL": settings.nats_url,
        "DANGOL_STREAM_PREFIX": settings.stream_prefix,
        "DANGOL_STREAM_MAX_BYTES": str(settings.stream_max_bytes),
        "DANGOL_IDENTITY_KEY": settings.identity_key.get_secret_value(),
        "DANGOL_TOKEN_KEY": settings.token_key.get_secret_value(),
        "DANGOL_LOCAL": "true",
        "DANGOL_ACK_WAIT_SECONDS": "2",
        "DANGOL_PROFILE_PORT": "0",
        "DANGOL_PROFILE_PERSONAL_SERVICES": '["profile"]',
        "DANGOL_LOG_LEVEL": "ERROR",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svc_profile", "all", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
