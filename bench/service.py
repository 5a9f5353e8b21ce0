# SPDX-License-Identifier: Apache-2.0
"""svc-profile whole, in this process, on PostgreSQL and NATS of its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
from chassis.engines import NatsEngine, PostgresEngine, free_ports
from chassis.migrations import migrate
from chassis.service import ROLES, Runner, Service
from chassis.testing import TOKEN_KEY
from svc_profile.app import build
from svc_profile.settings import Settings

from bench.profile_fold import KEY, cpu_of, prepare


class Spent(NamedTuple):
    """Seconds of processor time since the processes began."""

    python: float
    postgres: float
    nats: float


@dataclass(frozen=True)
class Running:
    """The service with its engines, and the tables of the bare prototype."""

    service: Service
    runner: Runner
    postgres: psutil.Process
    nats: psutil.Process

    def spent(self) -> Spent:
        """Return the processor time of everything so far; a process that parsed and has ended counts as a child."""
        times = os.times()
        parsing = times.children_user + times.children_system
        return Spent(time.process_time() + parsing, cpu_of(self.postgres), cpu_of(self.nats))


@asynccontextmanager
async def whole_service(roles: Sequence[str] = ROLES, kept: Path | None = None) -> AsyncIterator[Running]:
    """Start the engines and make the tables; the runner is started by the caller, and stopped here.

    A folder that is `kept` holds the database afterwards, and it is found there the next time.
    """
    with tempfile.TemporaryDirectory(prefix="dangol-bench-") as folder:
        postgres_port, nats_port = free_ports(2)
        postgres = PostgresEngine((kept or Path(folder)) / "postgres", postgres_port)
        nats = NatsEngine(Path(folder) / "nats", nats_port)
        with postgres, nats:
            settings = Settings(
                postgres_url=postgres.url, nats_url=nats.url, identity_key=KEY, token_key=TOKEN_KEY,
                port=0, local=True, stream_max_bytes=2**35,
            )  # fmt: skip
            service = build(settings)
            await migrate(service.database, service.migrations)
            await prepare(service.database)
            runner = Runner(service, roles)
            try:
                yield Running(service, runner, psutil.Process(postgres.pid), psutil.Process(nats.pid))
            finally:
                await runner.stop()
