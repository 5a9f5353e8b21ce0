# SPDX-License-Identifier: Apache-2.0
"""The service as a process: killed, started twice on one folder, started on a damaged disk."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import grpc
import pytest
from chassis.bus import Bus, Outgoing
from chassis.client import CallerToken, channel
from chassis.engines import free_ports
from chassis.migrations import migrate
from chassis.testing import Engines, settings_for
from chassis.tokens import TokenSigner
from dangol.events.v1.events_pb2 import EventBatch
from dangol.metrics.v1 import metrics_pb2 as pb
from dangol.metrics.v1.metrics_pb2_grpc import MetricsServiceStub
from nats.js.errors import NotFoundError
from svc_metrics.app import build
from svc_metrics.settings import Settings
from svc_metrics.store import Embedded

from .histories import Happening, moment, random_history

_LOOK_S = 0.02
_PATIENCE_S = 240

OPEN = """
import asyncio, sys
from pathlib import Path
from svc_metrics import usecases, wire
from svc_metrics.store import ClickHouse, Embedded, Limits
from svc_metrics.usecases import Stores

async def main(folder):
    clickhouse = ClickHouse(Embedded(Path(folder), 2**30, 2**24), "shop", Limits(1, 2**28, 30))
    await clickhouse.open()
    await work(clickhouse)
    await clickhouse.close()
"""

FILL = (
    OPEN
    + """
async def work(clickhouse):
    stores = Stores.on(clickhouse)
    await stores.people.forget_segments([("seg_1", "gone")])
    await stores.people.forget_segments([("seg_2", "gone too")])
asyncio.run(main(sys.argv[1]))
"""
)

REPORT = (
    OPEN
    + """
async def work(clickhouse):
    stores = Stores.on(clickhouse)
    await usecases.report_broken_parts(stores)
    for part in await stores.events.broken_parts():
        print(part.table, part.reason, usecases.BROKEN_PARTS._value.get())
asyncio.run(main(sys.argv[1]))
"""
)


def run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a script in a process of its own, because chDB opens one folder per process."""
    return subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120)


def test_a_second_process_on_the_folder_is_refused_in_words(engine: Embedded) -> None:
    """The embedded engine serves one process; the message says what to do."""
    second = run(FILL, engine.folder)
    assert second.returncode != 0
    assert f"another process uses the folder {engine.folder}" in second.stderr
    assert "DANGOL_CLICKHOUSE_URL" in second.stderr


def test_damaged_data_raises_the_alarm(tmp_path: Path) -> None:
    """ClickHouse leaves a damaged part out of every answer without a word, so the service says it."""
    filled = run(FILL, tmp_path / "chdb")
    assert filled.returncode == 0, filled.stderr
    assert run(REPORT, tmp_path / "chdb").stdout == ""
    data = [path for path in tmp_path.rglob("data.bin") if "all_" in str(path) and path.stat().st_size > 60]
    for path in data:
        os.truncate(path, 5)
    reported = run(REPORT, tmp_path / "chdb")
    assert reported.stdout.startswith("segments broken-on-start"), reported.stderr
    assert "data is missing from answers: table segments" in reported.stderr


class Shop:
    """A platform's streams and a metrics service in a process of its own, which can be killed."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self._bus = bus

    @asynccontextmanager
    async def process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the service; what still runs at the end is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "svc_metrics", "all", env=self._environment()
        )
        try:
            yield process
        finally:
            process.kill()
            await process.wait()

    async def publish(self, history: list[Happening]) -> None:
        """Send a history on, 5 events a message: far more messages than one insert takes."""
        parts = [history[start : start + 5] for start in range(0, len(history), 5)]
        messages = [
            Outgoing(
                f"events.resolved.{number % 2}",
                EventBatch(events=[h.event() for h in part]).SerializeToString(),
                f"part-{number}",
            )
            for number, part in enumerate(parts)
        ]
        for start in range(0, len(messages), 100):
            await self._bus.publish_all(messages[start : start + 100])

    async def handled(self) -> tuple[int, int]:
        """Return how many messages are done, and how many are left."""
        try:
            info = await self._bus.jetstream.consumer_info(self._bus.stream("EVENTS"), "metrics-events-resolved")
        except NotFoundError:
            return 0, 1
        done = info.ack_floor.stream_seq if info.ack_floor else 0
        return done, (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def total(self) -> pb.Kpis:
        """Ask the service for its figures once it answers."""
        signer = TokenSigner(self._settings.token_key.get_secret_value())
        async with channel(f"127.0.0.1:{self._settings.port}", [CallerToken(signer, "test", ["*"])]) as opened:
            stub = MetricsServiceStub(opened)
            request = pb.QueryKpisRequest(start_date="2026-11-01", end_date="2026-11-30", time_zone="UTC")
            while True:
                try:
                    return (await stub.QueryKpis(request)).total
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(_LOOK_S)

    def _environment(self) -> dict[str, str]:
        s = self._settings
        return os.environ | {
            "DANGOL_POSTGRES_URL": s.postgres_url.get_secret_value(),
            "DANGOL_POSTGRES_DATABASE": s.postgres_database,
            "DANGOL_NATS_URL": s.nats_url,
            "DANGOL_STREAM_PREFIX": s.stream_prefix,
            "DANGOL_STREAM_MAX_BYTES": str(s.stream_max_bytes),
            "DANGOL_IDENTITY_KEY": s.identity_key.get_secret_value(),
            "DANGOL_TOKEN_KEY": s.token_key.get_secret_value(),
            "DANGOL_METRICS_PORT": str(s.port),
            "DANGOL_METRICS_FOLDER": str(s.folder),
            "DANGOL_METRICS_INSERT_INTERVAL_MS": "0",
            "DANGOL_ACK_WAIT_SECONDS": "2",
            "DANGOL_LOG_LEVEL": "ERROR",
        }


@pytest.fixture
async def shop(engines: Engines, tmp_path: Path) -> AsyncIterator[Shop]:
    """Streams and databases of its own."""
    settings = settings_for(Settings, engines, port=free_ports(1)[0], metrics_folder=tmp_path / "chdb")
    service = build(settings)
    await migrate(service.database, service.migrations)
    await service.database.close()
    await service.bus.open()
    yield Shop(settings, service.bus)
    for stream in ("EVENTS", "DOMAIN", "DEAD"):
        await service.bus.jetstream.delete_stream(service.bus.stream(stream))
    await service.bus.close()


async def test_every_event_counts_once_whenever_the_service_is_killed(shop: Shop) -> None:
    """kill -9 at moments nobody chose, while events flow; nothing is lost and nothing counts twice."""
    random = Random(3)
    history = random_history(random, count=10_000, customers=200, first="2026-11-05", last="2026-11-25")
    assert {moment("2026-11-05") <= h.time_us < moment("2026-11-25") for h in history} == {True}
    publishing = asyncio.create_task(shop.publish(history))
    async with asyncio.timeout(_PATIENCE_S):
        for _ in range(2):
            done, _ = await shop.handled()
            async with shop.process() as process:
                while (await shop.handled())[0] <= done:
                    assert process.returncode is None
                    await asyncio.sleep(_LOOK_S)
                await asyncio.sleep(random.random() / 10)
        await publishing
        async with shop.process():
            while (await shop.handled())[1]:
                await asyncio.sleep(_LOOK_S)
            total = await shop.total()
    assert total.events == len(history)
    assert total.active_customers == len({h.fragment_id for h in history})
    assert total.orders == len({h.order_key for h in history if h.order_key})
