# SPDX-License-Identifier: Apache-2.0
"""A recommendation over HTTP, beside a bare FastAPI-to-gRPC echo of the same payload, in turns in the same run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from chassis.engines import free_ports
from dangol.recommend.v1 import recommend_pb2 as pb
from google.protobuf import json_format

from bench.platform.calls import Questions, seconds_until
from bench.platform.http import Answer, Connection
from bench.platform.load import Load
from bench.platform.running import SECRET_KEY, Platform, running_platform
from bench.platform.setting import furnish
from bench.platform.workload import BATCH_EVENTS, Workload, http_get
from bench.report import percentile, put_table, table
from deploy.local.health import is_listening

NAME = "recommendation"
EVENTS = 60_000
REQUESTS = 3_000
WARM_UP = 200
CONCURRENCY = (1, 8)
GOAL = 3.0
START_SECONDS = 30.0


def main() -> None:
    """Measure and write the table."""
    rows: list[tuple[object, ...]] = []
    with running_platform() as platform, tempfile.TemporaryDirectory(prefix="dangol-echo-") as folder:
        furnish(platform)
        users = uvloop.run(_learn(platform))
        answer = uvloop.run(_one_answer(platform, users))
        with echo(answer, Path(folder)) as echo_port:
            for concurrency in CONCURRENCY:
                rows += uvloop.run(_compare(platform.gateway_port, echo_port, users, concurrency))
    lines = table(["", "at once", "p50, ms", "p99, ms", "requests/s"], rows)
    lines += ["", f"{len(answer.body):,} bytes of JSON an answer. Goal: at most {GOAL:.0f} times the echo."]
    put_table(NAME, lines)
    print("\n".join(lines))


async def _learn(platform: Platform) -> list[str]:
    """Let events flow until there is something to recommend from; returns customers who are known."""
    workload, questions = Workload(), Questions(platform.gateway_port)
    async with Load(platform.gateway_port, workload, rate=6_000, stop_after=EVENTS) as load:
        await load.done()

    async def is_counted() -> bool:
        return await questions.counted_events() >= EVENTS

    if await seconds_until(is_counted, 120, 0.2) is None:
        raise TimeoutError(f"{EVENTS:,} events were not processed within two minutes")
    await asyncio.sleep(5)
    questions.close()
    return [f"user_id:load-{visit * 7919 % 20_000}" for visit in range(EVENTS // BATCH_EVENTS * 20 // 5)][::2]


async def _one_answer(platform: Platform, users: list[str]) -> Answer:
    connection = Connection(platform.gateway_port)
    for user in users:
        answer = await connection.exchange(_request(user))
        if answer.status == 200 and b'"personalized":true' in answer.body.replace(b" ", b""):
            connection.close()
            return answer
    raise LookupError("nobody gets a personalised answer")


def _request(user: str) -> bytes:
    return http_get(f"/v1/profiles/{user}/recommendations?pageSize=20", SECRET_KEY)


@contextmanager
def echo(answer: Answer, folder: Path) -> Iterator[int]:
    """Run the two processes of the reference; hands over the port of its HTTP side."""
    message = json_format.Parse(answer.body, pb.RecommendItemsResponse())
    file = folder / "answer.bin"
    file.write_bytes(message.SerializeToString())
    grpc_port, http_port = free_ports(2)
    command = [sys.executable, "-m", "bench.platform.echo"]
    processes = [
        subprocess.Popen([*command, "grpc", str(grpc_port), str(file)]),
        subprocess.Popen([*command, "http", str(http_port), str(grpc_port)]),
    ]
    try:
        end = time.monotonic() + START_SECONDS
        while not (is_listening(grpc_port) and is_listening(http_port)):
            if time.monotonic() > end:
                raise TimeoutError("the echo did not start")
            time.sleep(0.1)
        yield http_port
    finally:
        for process in processes:
            process.terminate()
            process.wait()


async def _compare(gateway: int, reference: int, users: list[str], concurrency: int) -> list[tuple[object, ...]]:
    """Ask both in turns, so that whatever else the machine does strikes both."""
    ports = {"a recommendation": gateway, "the echo": reference}
    seconds: dict[str, list[float]] = {name: [] for name in ports}
    for begin in range(0, REQUESTS + WARM_UP, WARM_UP):
        for name, port in ports.items():
            asked = [users[(begin + number) % len(users)] for number in range(WARM_UP)]
            taken = await _ask(port, asked, concurrency)
            if begin:
                seconds[name] += taken
    rows: list[tuple[object, ...]] = [
        (name, concurrency, _ms(values, 0.5), _ms(values, 0.99), concurrency * len(values) / sum(values))
        for name, values in seconds.items()
    ]
    mine, other = seconds.values()
    ratios = [percentile(mine, share) / percentile(other, share) for share in (0.5, 0.99)]
    rows.append(("**ratio**", concurrency, *ratios, ""))
    return rows


def _ms(values: list[float], share: float) -> float:
    return percentile(values, share) * 1000


async def _ask(port: int, users: list[str], concurrency: int) -> list[float]:
    waiting = iter(users)

    async def work() -> list[float]:
        connection, taken = Connection(port), []
        await connection.exchange(http_get("/", SECRET_KEY))
        for user in waiting:
            begin = time.perf_counter()
            answer = await connection.exchange(_request(user))
            taken.append(time.perf_counter() - begin)
            if answer.status != 200:
                raise LookupError(f"{answer.status} {answer.body[:300]!r}")
        connection.close()
        return taken

    return [second for part in await asyncio.gather(*(work() for _ in range(concurrency))) for second in part]


if __name__ == "__main__":
    main()
