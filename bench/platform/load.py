# SPDX-License-Identifier: Apache-2.0
"""Send batches at a rate, over a few connections, and again until they are acknowledged, as Segment clients do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Protocol

from bench.platform.http import Connection
from bench.platform.workload import BATCH_EVENTS

MAX_PAUSE_SECONDS = 10.0
MAX_LATE_SECONDS = 0.5
LOOK_SECONDS = 0.02


class Requests(Protocol):
    """Where batches come from."""

    def next_request(self) -> bytes:
        """Return a whole HTTP request that was not sent before."""


class Load:
    """Events that flow for as long as the context lasts."""

    def __init__(
        self, port: int, workload: Requests, rate: float, connections: int = 8, stop_after: int | None = None
    ) -> None:
        self.rate = rate
        """Events a second that are offered; may be changed while they flow."""
        self.acknowledged = 0
        """Events that the gateway answered with 200."""
        self.latencies: list[float] = []
        """Seconds from the first attempt to the 200, of each batch."""
        self.troubles: Counter[str] = Counter()
        """Answers other than 200, and lost connections."""
        self._workload = workload
        self.stop_after = stop_after
        """Events after which nothing new is begun; None is never."""
        self.started = 0
        """Events of batches that were begun."""
        self._due = 0.0
        self._is_stopping = False
        self._connections = [Connection(port) for _ in range(connections)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._due = time.monotonic()
        self._tasks = [asyncio.create_task(self._work(connection)) for connection in self._connections]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()

    async def finish(self) -> None:
        """Send nothing new, and return when what was begun is acknowledged."""
        self._is_stopping = True
        await asyncio.gather(*self._tasks)
        self._tasks = []
        for connection in self._connections:
            connection.close()

    async def reached(self, acknowledged: int) -> None:
        """Return when so many events are acknowledged; raises what ended the load before."""
        while self.acknowledged < acknowledged:
            if all(task.done() for task in self._tasks):
                await asyncio.gather(*self._tasks)
                raise RuntimeError(f"the load ended at {self.acknowledged:,} events")
            await asyncio.sleep(LOOK_SECONDS)

    async def done(self) -> None:
        """Return when `stop_after` events are acknowledged."""
        await asyncio.gather(*self._tasks)

    async def _work(self, connection: Connection) -> None:
        while not self._is_stopping and (self.stop_after is None or self.started < self.stop_after):
            self.started += BATCH_EVENTS
            await self._wait_for_turn()
            await self._deliver(connection, self._workload.next_request())

    async def _wait_for_turn(self) -> None:
        now = time.monotonic()
        # Who is late does not catch up with a burst: the rate is an upper limit, what is reached is counted.
        self._due = max(self._due + BATCH_EVENTS / self.rate, now - MAX_LATE_SECONDS)
        if self._due > now:
            await asyncio.sleep(self._due - now)

    async def _deliver(self, connection: Connection, request: bytes) -> None:
        begin, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            pause = min(0.1 * 2**attempt, 2.0)
            with suppress(OSError, TimeoutError):
                answer = await connection.exchange(request)
                if answer.status == 200:
                    self.acknowledged += BATCH_EVENTS
                    self.latencies.append(time.monotonic() - begin)
                    return
                self.troubles[str(answer.status)] += 1
                if answer.status not in (429, 500, 502, 503, 504):
                    raise RuntimeError(f"the gateway refused a batch: {answer.status} {answer.body[:300]!r}")
                await asyncio.sleep(min(answer.retry_after or pause, MAX_PAUSE_SECONDS))
                continue
            self.troubles["connection"] += 1
            await asyncio.sleep(pause)
