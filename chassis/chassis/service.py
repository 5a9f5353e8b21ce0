# SPDX-License-Identifier: Apache-2.0
"""One service as data, and its life: start, be healthy, drain, stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from chassis import consent
from chassis.accesses import forget_accesses
from chassis.bus import Bus
from chassis.consumers import Consumer
from chassis.database import Database, Transaction
from chassis.gate import Gate
from chassis.jobs import Job, JobRunner
from chassis.operations import operations_servicers
from chassis.outbox import Relay
from chassis.personal_traits import SUBSCRIPTIONS as PERSONAL_TRAITS_SUBSCRIPTIONS
from chassis.personal_traits import HeardPersonalTraits
from chassis.privacy import PersonalStore, PersonalTables, tombstones
from chassis.privacy.hearing import Privacy
from chassis.privacy.tombstones import Tombstones
from chassis.retention import RetentionStore
from chassis.retention.enforcing import Retention, RetentionReportRpc
from chassis.retention.heard import SUBSCRIPTIONS as RETENTION_SUBSCRIPTIONS
from chassis.rpc import RpcServer, Servicer
from chassis.settings import ServiceSettings
from chassis.streams import RESOLVED, Subscription
from chassis.trace import Trace, TraceRpc

log = logging.getLogger(__name__)

ROLES = ("rpc", "consumers", "jobs")
"""What a process can do; `all` is every one of them."""

_HEALTH_S = 1.0
_RESTART_S = 1.0
_INBOX_BATCH = 10_000
_JOBS_AT_ONCE = 2


class Resource(Protocol):
    """Something a service opens before it works and closes afterwards."""

    async def open(self) -> None:
        """Make it usable."""

    async def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True)
class Worker:
    """A loop of the service's own that runs beside its consumers until the event is set."""

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]
    role: str = "consumers"


@dataclass(frozen=True)
class Service:
    """Everything a service consists of; made by its `app.build`."""

    settings: ServiceSettings
    bus: Bus
    database: Database
    migrations: Path
    servicers: Sequence[Servicer] = ()
    subscriptions: Sequence[Subscription] = ()
    jobs: Sequence[Job] = ()
    workers: Sequence[Worker] = ()
    resources: Sequence[Resource] = ()
    checks: Sequence[Callable[[], Awaitable[None]]] = ()
    """Each raises when the service is not ready."""
    personal: Sequence[PersonalStore] = (PersonalTables(()),)
    """Where it keeps what is personal, for the requests of data subjects."""
    retained: Sequence[RetentionStore] = ()
    """What it keeps of events, for the rules of retention."""
    personal_traits: Callable[[], Collection[str]] | None = None
    """Names further traits that are masked for callers who may not see what is personal; None: those it heard of."""
    trace: Trace | None = None
    """What the service knows of an event, for the truth call."""

    @property
    def name(self) -> str:
        """Short name of the service."""
        return self.settings.service

    @property
    def heard(self) -> Sequence[Subscription]:
        """Everything that the service hears: its own subscriptions, and what every service keeps."""
        privacy = Privacy(self.name, self.bus, self.personal)
        of_all = *consent.SUBSCRIPTIONS, *RETENTION_SUBSCRIPTIONS, *PERSONAL_TRAITS_SUBSCRIPTIONS
        return *self.subscriptions, *of_all, *privacy.subscriptions()


class Runner:
    """Runs some roles of a service in this process."""

    def __init__(self, service: Service, roles: Sequence[str] = ROLES) -> None:
        self.service = service
        self._roles = roles
        self._stopping = asyncio.Event()
        settings = service.settings
        trace = TraceRpc(service.name, service.bus, service.heard, service.trace)
        report = RetentionReportRpc(service.name, service.database, service.retained)
        operations = operations_servicers(settings, service.bus, service.database, trace, report)
        servicers = [*service.servicers, *operations] if "rpc" in roles else []
        self._resources, self._workers = list(service.resources), list(service.workers)
        personal_traits = service.personal_traits or self._hear_personal_traits()
        self.rpc = RpcServer(settings, servicers, Gate(settings, service.database), personal_traits)
        self._relay = Relay(service.database, service.bus)
        self._stoppables: list[Consumer | JobRunner] = []
        if "consumers" in roles:
            forgotten = Tombstones(service.database)
            self._stoppables += [
                Consumer(
                    service.name,
                    s,
                    service.bus,
                    service.database,
                    max_deliver=settings.max_deliver,
                    ack_wait_s=settings.ack_wait_seconds,
                    tombstones=forgotten if s.heard_subject == RESOLVED else None,
                )
                for s in service.heard
            ]
        if "jobs" in roles:
            jobs = [
                *service.jobs,
                Job("forget-inbox", timedelta(hours=1), self._forget_inbox),
                Job("forget-accesses", timedelta(hours=1), self._forget_accesses),
                Job("forget-tombstones", timedelta(hours=1), self._forget_tombstones),
                Job(
                    "retention",
                    timedelta(seconds=settings.retention_seconds),
                    Retention(service.database, service.retained).run,
                ),
            ]
            turn = asyncio.Semaphore(_JOBS_AT_ONCE)
            self._stoppables += [JobRunner(job, service.database, turn) for job in jobs]
        self._tasks: list[asyncio.Task[None]] = []
        self._relay_task: asyncio.Task[None] | None = None

    def _hear_personal_traits(self) -> Callable[[], Collection[str]]:
        heard = HeardPersonalTraits(self.service.database)
        if "rpc" in self._roles:
            self._resources.append(heard)
            self._workers.append(Worker("personal-traits", heard.run, role="rpc"))
        return heard.names

    async def start(self) -> None:
        """Connect, open, listen; returns when work has begun. Engines that are away are waited for."""
        # The port first: a process that cannot have it must not take work.
        await self.rpc.start()
        await self.service.bus.open()
        for resource in self._resources:
            await resource.open()
        self.rpc.open()
        self._relay_task = asyncio.create_task(self._kept_running("outbox", self._relay.run))
        for stoppable in self._stoppables:
            self._tasks.append(asyncio.create_task(self._kept_running(stoppable.name, stoppable.run)))
        for worker in self._workers:
            if worker.role in self._roles:
                self._tasks.append(asyncio.create_task(self._kept_running(worker.name, self._run(worker))))
        self._tasks.append(asyncio.create_task(self._watch_health()))

    async def stop(self) -> None:
        """Take no more work, finish what is in hand within the drain time, close."""
        self._stopping.set()
        for stoppable in self._stoppables:
            stoppable.stop()
        await self.rpc.stop(self.service.settings.drain_seconds)
        await self._finish(self._tasks)
        # The relay goes last: what the others announced while draining still goes out.
        self._relay.stop()
        await self._finish([self._relay_task] if self._relay_task else [])
        for resource in reversed(self._resources):
            await resource.close()
        await self.service.bus.close()
        await self.service.database.close()

    async def _finish(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        if not tasks:
            return
        _, unfinished = await asyncio.wait(tasks, timeout=self.service.settings.drain_seconds)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    def _run(self, worker: Worker) -> Callable[[], Awaitable[None]]:
        return lambda: worker.run(self._stopping)

    async def _kept_running(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop until the service stops; one that breaks is logged and started again."""
        while True:
            try:
                await run()
            except Exception:
                log.exception("%s broke and is started again", name)
            if self._stopping.is_set():
                return
            await asyncio.sleep(_RESTART_S)

    async def _watch_health(self) -> None:
        ready = False
        while not self._stopping.is_set():
            problem = await self._problem()
            if ready != (problem is None):
                ready = problem is None
                await self.rpc.set_ready(ready)
                log.info("ready" if ready else f"not ready: {problem}")
            try:
                await asyncio.wait_for(self._stopping.wait(), _HEALTH_S)
            except TimeoutError:
                continue

    async def _problem(self) -> str | None:
        for check in (self.service.database.check, self.service.bus.check, *self.service.checks):
            try:
                await asyncio.wait_for(check(), 5)
            except Exception as error:  # whatever it is, it is why the service is not ready
                return str(error) or type(error).__name__
        return None

    async def _forget_tombstones(self) -> None:
        async with self.service.database.transaction() as tx:
            await tombstones.expire(tx)

    async def _forget_inbox(self) -> None:
        """Forget message ids that no redelivery can bring back any more, some at a time."""
        days = self.service.settings.inbox_days
        while True:
            async with self.service.database.transaction() as tx:
                if await _forget(tx, days) < _INBOX_BATCH:
                    return

    async def _forget_accesses(self) -> None:
        """Forget accesses that are past their time, some at a time."""
        more = True
        while more:
            async with self.service.database.transaction() as tx:
                more = await forget_accesses(tx, self.service.settings.access_log_days)


async def _forget(tx: Transaction, days: int) -> int:
    return await tx.execute(
        """
        DELETE FROM inbox WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM inbox WHERE handled_time < now() - make_interval(days => :days) LIMIT :batch
        ))
        """,
        days=days,
        batch=_INBOX_BATCH,
    )
