# SPDX-License-Identifier: Apache-2.0
"""The gateway while NATS or a service is away, and when it is asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.engines import NatsEngine, free_ports
from segment.analytics.client import Client as SegmentClient

from .conftest import SECRET, WRITE, addresses, running_gateway, until_ready


def track(number: int) -> dict[str, Any]:
    """Return an event."""
    return {"userId": f"u{number}", "event": "A", "messageId": f"m{number}"}


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsEngine]:
    """Start a NATS server that the test may stop."""
    engine = NatsEngine(tmp_path / "nats", free_ports(1)[0])
    engine.start()
    yield engine
    engine.stop()


async def test_without_nats_ingest_is_503_and_recovers_by_itself(nats: NatsEngine) -> None:
    async with running_gateway(nats.url) as gateway:
        assert (await gateway.post("/v1/track", track(1))).status_code == 200
        await asyncio.to_thread(nats.stop)
        refused = await gateway.post("/v1/track", track(2))
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 300
        assert refused.json()["code"] == "UNAVAILABLE"
        assert refused.json()["message"]
        assert (await gateway.http.get("/healthz")).status_code == 200
        async with asyncio.timeout(30):
            while (waiting := await gateway.http.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.1)
        assert waiting.json()["dependencies"]["jetstream"] != "ok"
        await asyncio.to_thread(nats.start)
        await until_ready(gateway.http)
        assert (await gateway.post("/v1/track", track(2))).status_code == 200
        assert {event.user_id for event in await gateway.collected()} >= {"u1", "u2"}


async def test_requests_under_way_when_nats_goes_are_never_acknowledged_in_vain(nats: NatsEngine) -> None:
    """Whatever was answered with 200 is in the stream afterwards."""
    async with running_gateway(nats.url) as gateway:
        acknowledged: set[str] = set()

        async def send(first: int) -> None:
            for number in range(first, first + 60):
                answer = await gateway.post("/v1/track", track(number))
                assert answer.status_code in (200, 503)
                if answer.status_code == 200:
                    acknowledged.add(f"u{number}")

        sending = asyncio.gather(*(send(first) for first in range(0, 480, 60)))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(nats.kill)
        await sending
        await asyncio.to_thread(nats.stop)
        await asyncio.to_thread(nats.start)
        await until_ready(gateway.http)
        assert acknowledged
        assert acknowledged <= {event.user_id for event in await gateway.collected()}


async def test_a_client_delivers_what_it_kept_while_nats_was_away(nats: NatsEngine) -> None:
    async with running_gateway(nats.url) as gateway:
        await asyncio.to_thread(nats.stop)
        errors: list[Any] = []
        client = SegmentClient(
            WRITE, host=gateway.url, max_retries=10, upload_interval=0.05, on_error=lambda e, _: errors.append(e)
        )
        client.track("kept", "A")
        delivering = asyncio.create_task(asyncio.to_thread(client.flush))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(nats.start)
        await delivering
        await asyncio.to_thread(client.join)
        await until_ready(gateway.http)
        assert errors == []
        assert [event.user_id for event in await gateway.collected()] == ["kept"]


async def test_a_full_stream_is_503(nats: NatsEngine) -> None:
    async with running_gateway(nats.url, stream_max_bytes=2**20) as gateway:
        large = {**track(1), "properties": {"x": "y" * 30_000}}
        statuses = [(await gateway.post("/v1/track", large)).status_code for _ in range(40)]
        assert statuses[0] == 200
        assert statuses[-1] == 503


async def test_a_gateway_that_is_swamped_is_503(nats: NatsEngine) -> None:
    async with running_gateway(nats.url, max_waiting_bytes=2**20, event_shards=1) as gateway:
        large = {"batch": [{**track(n), "type": "track", "properties": {"x": "y" * 30_000}} for n in range(60)]}
        answers = await asyncio.gather(*(gateway.post("/v1/batch", large) for _ in range(12)))
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert (await gateway.post("/v1/batch", large)).status_code == 200


async def test_a_service_that_is_away_costs_only_its_own_routes(nats: NatsEngine) -> None:
    (port,) = free_ports(1)
    async with running_gateway(nats.url, **addresses(f"127.0.0.1:{port}")) as gateway:
        answer = await gateway.http.get("/v1/profiles/user_id:u", headers={"x-api-key": SECRET})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        assert str(port) not in answer.text
        assert (await gateway.post("/v1/track", track(1))).status_code == 200
        assert (await gateway.http.get("/readyz")).status_code == 200


class Process:
    """`python -m gateway` as operators run it."""

    def __init__(self, nats_url: str, **overrides: str) -> None:
        (self.port,) = free_ports(1)
        environment = {
            **os.environ,
            "DANGOL_NATS_URL": nats_url,
            "DANGOL_LOCAL": "1",
            "DANGOL_TOKEN_KEY": "only-for-tests-only-for-tests-only-for-tests",
            "DANGOL_GATEWAY_PORT": str(self.port),
            "DANGOL_PROMETHEUS_PORT": "0",
            **overrides,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )

    async def answers(self, path: str) -> None:
        """Wait until a path answers 200."""
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(self._is_answering, path):
                await asyncio.sleep(0.1)

    def end(self, with_signal: signal.Signals) -> tuple[int, str]:
        """Stop it and return the exit status and what it said."""
        self.process.send_signal(with_signal)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()

    def _is_answering(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


async def test_the_process_starts_without_nats_waits_for_it_and_stops_cleanly(nats: NatsEngine) -> None:
    await asyncio.to_thread(nats.stop)
    (metrics_port,) = free_ports(1)
    process = Process(nats.url, DANGOL_PROMETHEUS_PORT=str(metrics_port))
    try:
        await process.answers("/healthz")
        await asyncio.to_thread(nats.start)
        await process.answers("/readyz")
        async with httpx.AsyncClient() as http:
            figures = await http.get(f"http://127.0.0.1:{metrics_port}/metrics")
        assert "dangol_ingest_events_total" in figures.text
    finally:
        status, said = await asyncio.to_thread(process.end, signal.SIGTERM)
    assert status == 0, said
    assert "Traceback" not in said


async def test_sigterm_lets_a_request_under_way_finish(nats: NatsEngine) -> None:
    process = Process(nats.url)
    try:
        await process.answers("/readyz")
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        body = b'{"userId":"u","event":"A","writeKey":"dk_write_local"}'
        head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body[:10])
        await writer.drain()
        await asyncio.sleep(0.3)
        process.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        writer.write(body[10:])
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()
    finally:
        status, said = await asyncio.to_thread(process.end, signal.SIGTERM)
    assert status == 0, said


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DANGOL_GATEWAY_HOST", "0.0.0.0"),
        ("DANGOL_GATEWAY_HOST", "gateway.example"),
        ("DANGOL_TOKEN_KEY", "short"),
        ("DANGOL_API_KEYS", "not json"),
        ("DANGOL_API_KEYS", '[{"id": "x", "kind": "write", "key": "in-the-clear"}]'),
        ("DANGOL_GATEWAY_PORT", "http"),
        ("DANGOL_INCOMING_WEBHOOKS", '[{"name": "orders"}]'),
    ],
)
async def test_settings_that_make_no_sense_stop_the_start_and_are_named(setting: str, value: str) -> None:
    process = Process("nats://127.0.0.1:1", **{setting: value})
    _, said = await asyncio.to_thread(process.process.communicate, timeout=60)
    assert process.process.returncode == 1
    assert setting in said.decode()
    assert "Traceback" not in said.decode()
