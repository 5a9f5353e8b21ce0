# SPDX-License-Identifier: Apache-2.0
"""What the clock starts: jobs that run in one replica at a time."""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text

from chassis import telemetry
from chassis.database import Database, lost_connection

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A piece of work and how often it is due. The work opens its own transactions."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[None]]


class JobRunner:
    """Runs one job whenever it is due and no other replica runs it."""

    def __init__(self, job: Job, database: Database, turn: asyncio.Semaphore) -> None:
        """`turn` is shared by the jobs of a process: each holds a connection, and another one while it works."""
        self.name = job.name
        self._turn = turn
        self._job = job
        self._database = database
        self._stopping = asyncio.Event()
        self._lock = zlib.crc32(job.name.encode())

    def stop(self) -> None:
        """Start no further run."""
        self._stopping.set()

    async def run(self) -> None:
        """Run the job until stopped; a failure is logged and the job is due again at its next time."""
        while not self._stopping.is_set():
            try:
                async with self._turn:
                    outcome = await self._run_alone()
            except Exception as error:  # a failed run must not end the job
                outcome = "failed"
                if lost_connection(error):
                    log.warning("job %s waits for PostgreSQL", self.name)
                else:
                    log.exception("job %s failed", self.name)
            telemetry.JOB_RUNS.labels(self.name, outcome).inc()
            try:
                await asyncio.wait_for(self._stopping.wait(), self._job.every.total_seconds())
            except TimeoutError:
                continue

    async def _run_alone(self) -> str:
        """Hold an advisory lock while the job runs; PostgreSQL lets go of it if this process dies."""
        async with self._database.engine.connect() as connection:
            mine = await connection.scalar(
                text("SELECT pg_try_advisory_xact_lock(:space, :lock)"),
                {"space": 7, "lock": self._lock - 2**31},
            )
            if not mine:
                return "elsewhere"
            await self._job.run()
        return "done"
