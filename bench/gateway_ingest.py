# SPDX-License-Identifier: Apache-2.0
"""How fast the gateway alone takes events in, beside a bare loop that decodes the same JSON and publishes its bytes.

Both sides run in one process of their own, with as many batches under way, against the same embedded NATS; the load
generator replays prepared requests, so that it costs as little as possible.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import psutil
import uvloop
from chassis.engines import NatsEngine, free_ports

from bench.report import put_table, table

BATCH_EVENTS = 100
CONNECTIONS = 8
BODIES = 64
ROUNDS = 3
STREAM = "BARE"


@dataclass(frozen=True)
class Rate:
    """What one side reached."""

    events_per_second: float
    cpu_us_per_event: float
    nats_cpu_us_per_event: float


def bodies() -> list[bytes]:
    """Return batches as the Python client of Segment writes them: about 480 bytes an event."""
    return [_body(number) for number in range(BODIES)]


def _body(number: int) -> bytes:
    events = [_event(number * BATCH_EVENTS + position) for position in range(BATCH_EVENTS)]
    sent_at = "2026-11-22T04:18:42.123456+00:00"
    return json.dumps({"batch": events, "sentAt": sent_at, "writeKey": "dk_write_local"}).encode()


def _event(number: int) -> dict[str, object]:
    return {
        "integrations": {},
        "anonymousId": None,
        "properties": {
            "product_id": f"sku-{number % 500}",
            "price": 12900.5,
            "quantity": 2,
            "category": "food",
            "name": "제주 감귤 5kg",
            "url": "https://shop.example/p/1",
        },
        "timestamp": "2026-11-22T04:18:42.123000+00:00",
        "context": {"library": {"name": "analytics-python", "version": "2.4.0"}, "page": {"path": "/a"}},
        "userId": f"customer-{number % 5000:05d}",
        "type": "track",
        "event": "Product Viewed",
        "messageId": str(uuid.uuid4()),
    }


async def measure_gateway(seconds: float, nats_server: psutil.Process, port: int, process: psutil.Process) -> Rate:
    """Send prepared requests over a few connections to a gateway process."""
    requests = [_request(body) for body in bodies()]
    connections = [_Connection(port, requests, number) for number in range(CONNECTIONS)]
    for connection in connections:
        await connection.open()
    try:
        return await _timed(seconds, _Counter(), process, nats_server, [c.send_one for c in connections])
    finally:
        for connection in connections:
            connection.close()


async def measure_bare_loop(seconds: float, nats_server: psutil.Process, nats_url: str, workers: int) -> Rate:
    """Run the bare loop in this process."""
    client = await nats.connect(nats_url)
    stream = client.jetstream(timeout=10)
    await stream.add_stream(name=STREAM, subjects=["bare"], max_bytes=2**32)
    decode = msgspec.json.Decoder().decode
    prepared = bodies()

    def worker(number: int) -> Callable[[], Awaitable[None]]:
        turn = number

        async def publish_one() -> None:
            nonlocal turn
            turn += 1
            body = prepared[turn % BODIES]
            decode(body)
            await stream.publish("bare", body, headers={"Nats-Msg-Id": os.urandom(16).hex()})

        return publish_one

    try:
        return await _timed(
            seconds, _Counter(), psutil.Process(), nats_server, [worker(number) for number in range(workers)]
        )
    finally:
        await stream.delete_stream(STREAM)
        await client.close()


class _Counter:
    def __init__(self) -> None:
        self.batches = 0


async def _timed(
    seconds: float,
    counter: _Counter,
    process: psutil.Process,
    nats_server: psutil.Process,
    workers: Sequence[Callable[[], Awaitable[None]]],
) -> Rate:
    for work in workers:
        for _ in range(20):
            await work()
    end = time.perf_counter() + seconds
    cpu, nats_cpu, started = _cpu(process), _cpu(nats_server), time.perf_counter()

    async def loop(work: Callable[[], Awaitable[None]]) -> None:
        while time.perf_counter() < end:
            await work()
            counter.batches += 1

    await asyncio.gather(*(loop(work) for work in workers))
    events = counter.batches * BATCH_EVENTS
    return Rate(
        events / (time.perf_counter() - started),
        (_cpu(process) - cpu) / events * 1e6,
        (_cpu(nats_server) - nats_cpu) / events * 1e6,
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _request(body: bytes) -> bytes:
    head = (
        f"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


class _Connection:
    """One kept-alive connection that sends a request and waits for its answer."""

    def __init__(self, port: int, requests: Sequence[bytes], number: int) -> None:
        self._port = port
        self._requests = requests
        self._turn = number * 7

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        self._writer.close()

    async def send_one(self) -> None:
        self._turn += 1
        self._writer.write(self._requests[self._turn % len(self._requests)])
        answer = await self._reader.readuntil(b"]}")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())


@contextmanager
def _gateway(nats_url: str) -> Iterator[tuple[int, psutil.Process]]:
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "DANGOL_NATS_URL": nats_url,
        "DANGOL_LOCAL": "1",
        "DANGOL_TOKEN_KEY": "only-for-this-benchmark-only-for-this-one",
        "DANGOL_GATEWAY_PORT": str(port),
        "DANGOL_PROMETHEUS_PORT": "0",
        "DANGOL_LOG_LEVEL": "WARNING",
        "DANGOL_STREAM_MAX_BYTES": str(2**33),
    }
    process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment)
    try:
        _wait_ready(port)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(port: int) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the gateway did not become ready")


def measure(seconds: float) -> dict[str, Rate]:
    """Measure all sides in turn, several times over, against one NATS server; the median of each counts."""
    together_name, served_name = f"bare loop, {CONNECTIONS} batches at a time", f"gateway, {CONNECTIONS} connections"
    rates: dict[str, list[Rate]] = {"bare loop, one batch at a time": [], together_name: [], served_name: []}
    alone, together, served = rates.values()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dangol-bench-")))
        engine = stack.enter_context(NatsEngine(folder / "nats", free_ports(1)[0]))
        server = psutil.Process(engine.pid)
        port, process = stack.enter_context(_gateway(engine.url))
        for _ in range(ROUNDS):
            alone.append(uvloop.run(measure_bare_loop(seconds, server, engine.url, 1)))
            together.append(uvloop.run(measure_bare_loop(seconds, server, engine.url, CONNECTIONS)))
            served.append(uvloop.run(measure_gateway(seconds, server, port, process)))
    return {name: _median(found) for name, found in rates.items()}


def _median(rates: Sequence[Rate]) -> Rate:
    return sorted(rates, key=lambda rate: rate.events_per_second)[len(rates) // 2]


def rows(rates: dict[str, Rate]) -> list[list[object]]:
    """Lay the rates out beside both bare loops."""
    alone, together, _ = (rate.events_per_second for rate in rates.values())
    return [
        [
            name,
            round(rate.events_per_second),
            round(rate.cpu_us_per_event, 1),
            round(rate.nats_cpu_us_per_event, 1),
            round(rate.events_per_second / alone, 2),
            round(rate.events_per_second / together, 2),
        ]
        for name, rate in rates.items()
    ]


HEAD = (
    "batches of 100 events",
    "events/s",
    "CPU µs/event",
    "NATS CPU µs/event",
    "to one batch at a time",
    f"to {CONNECTIONS} at a time",
)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--dry", action="store_true", help="only print")
    options = parser.parse_args()
    lines = table(HEAD, rows(measure(options.seconds)))
    print(*lines, sep="\n")
    if not options.dry:
        put_table("gateway-ingest", lines)


if __name__ == "__main__":
    main()
