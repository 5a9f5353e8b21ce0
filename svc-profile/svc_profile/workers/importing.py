# SPDX-License-Identifier: Apache-2.0
"""Read the files of imports: another process parses ahead, batches are learnt from here, what is done is remembered.

A batch is learnt from in a few transactions at a time, its resolved events are published, and then it is remembered as
done. What a crash leaves between these steps is done again with the same message ids, so nothing is lost and nothing
counts twice.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from chassis.bus import Bus, Outgoing
from chassis.clock import now, to_us
from chassis.database import Database, Transaction, lost_connection
from chassis.errors import Invalid
from chassis.pull import lane_of
from chassis.streams import Delivery
from dangol.events.v1.events_pb2 import EventBatch

from svc_profile.domain.events import Namer
from svc_profile.domain.imports import MAX_ATTEMPTS, ImportJob, Progress, RejectedRow
from svc_profile.settings import Settings
from svc_profile.store.imports import ImportStore
from svc_profile.usecases import importing
from svc_profile.wire.parsing import Message, Parsed, Task
from svc_profile.workers.chunks import ForgottenError
from svc_profile.workers.leases import new_holder, until
from svc_profile.workers.parsing import Parser

log = logging.getLogger(__name__)

Learn = Callable[[Transaction, Sequence[Delivery[EventBatch]]], Awaitable[int]]
"""The consumer's own way of learning from collected messages; says how many events were new."""

_LANES = 4
"""Transactions at a time. Each learns from customers of its own, so that none waits for rows that another has locked:
while PostgreSQL works for one of them, this process works for the next."""
_IN_FLIGHT = 2
"""Batches that are being learnt from at a time: a lane that is done with one goes on with the next."""
_IN_HAND = 3
"""Batches that are not finished yet, with those that wait to be published."""
_IDLE_S = 1.0
_RETRY_S = 0.5
_FULL_SHARE = 0.5
"""Share of the events stream above which imports wait, so that they never take the room of what happens now."""


@dataclass(frozen=True)
class _Batch:
    """What one batch came to, before it is remembered."""

    piece: Parsed
    taken: int
    outgoing: list[Outgoing]


class StoppedError(Exception):
    """The import was stopped, or somebody else has it."""


class ImportWorker:
    """Works on one import at a time."""

    def __init__(self, database: Database, bus: Bus, learn: Learn, settings: Settings, namer: Namer) -> None:
        self._database = database
        self._bus = bus
        self._learn = learn
        self._identifiers = tuple(namer.types.traits)
        self._shards = settings.event_shards
        self._lease_s = settings.lease_seconds
        self._holder = new_holder()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work on imports until the service stops."""
        await until(stopping, lambda: self._turn(stopping), "imports")

    async def _turn(self, stopping: asyncio.Event) -> bool:
        async with self._database.transaction() as tx:
            claimed = await ImportStore(tx).claim(self._holder, self._lease_s)
        if claimed is None:
            return False
        attempts, job = claimed
        broke = True
        try:
            if attempts > MAX_ATTEMPTS:
                await self._fail(job, f"the same rows were tried {MAX_ATTEMPTS} times; the log says more")
            else:
                broke = await self._work(job, stopping)
        finally:
            async with self._database.transaction() as tx:
                await ImportStore(tx).release(job.plan.import_id, self._holder, broke=broke)
        return True

    async def _work(self, job: ImportJob, stopping: asyncio.Event) -> bool:
        """Read on; tells whether that broke for a reason of its own."""
        try:
            await self._read(job, stopping)
        except (StoppedError, ForgottenError):
            log.info("import %s was stopped", job.plan.import_id)
        except Invalid as error:
            await self._fail(job, error.message)
        except Exception as error:
            await asyncio.sleep(_RETRY_S)
            if not lost_connection(error):
                log.error("import %s broke", job.plan.import_id, exc_info=error)
                return True
        return False

    async def _fail(self, job: ImportJob, why: str) -> None:
        async with self._database.transaction() as tx:
            await importing.fail(tx, job.plan.import_id, self._holder, self._lease_s, why=why, now_us=to_us(now()))

    async def _read(self, job: ImportJob, stopping: asyncio.Event) -> None:
        if not job.file_key:
            job = await self._name(job)
        parser = await self._parser(job)
        reading = _Reading(asyncio.Semaphore(_IN_FLIGHT), time.perf_counter())
        try:
            while not stopping.is_set() and (piece := await parser.next()):
                await self._wait_for_room(job, stopping)
                await reading.room()
                reading.follow(partial(self._bring_in, job, piece, reading))
            await reading.end()
        finally:
            await reading.close()
            await parser.close()
        if not stopping.is_set():
            async with self._database.transaction() as tx:
                await importing.complete(tx, job.plan.import_id, self._holder, self._lease_s, now_us=to_us(now()))

    async def _bring_in(
        self, job: ImportJob, piece: Parsed, reading: "_Reading", before: "asyncio.Task[None] | None"
    ) -> None:
        """Learn from a batch beside others; publish and remember it after the one before."""
        try:
            batch = await self._take(job, piece, reading.lanes)
        finally:
            reading.slots.release()
        if before is not None:
            await before
        reading.marked = await self._finish(job, batch, reading.marked)

    async def _parser(self, job: ImportJob) -> Parser:
        async def fetch(offset: int) -> tuple[int, bytes] | None:
            async with self._database.snapshot() as tx:
                return await ImportStore(tx).chunk(job.plan.import_id, offset)

        return await Parser.start(Task(job, self._identifiers, self._shards), fetch)

    async def _name(self, job: ImportJob) -> ImportJob:
        """Read the file once to name it."""
        digest = blake2b()
        offset = 0
        while offset < job.progress.received_bytes:
            async with self._database.snapshot() as tx:
                store = ImportStore(tx)
                found = await store.chunk(job.plan.import_id, offset)
                if found is None or not await store.prolong(job.plan.import_id, self._holder, self._lease_s):
                    raise StoppedError
            digest.update(found[1])
            offset += len(found[1])
        async with self._database.transaction() as tx:
            return await importing.name_file(tx, job, self._holder, digest.digest())

    async def _take(self, job: ImportJob, piece: Parsed, lanes: Sequence[asyncio.Lock]) -> _Batch:
        """Learn from a batch, each lane from its customers."""
        messages: list[list[Message]] = [[] for _ in lanes]
        for message in piece.messages:
            messages[lane_of(message[0], len(lanes))].append(message)
        # Rejected rows are kept by whoever comes first.
        rejected = [piece.rejected, *[()] * (len(lanes) - 1)]
        try:
            async with asyncio.TaskGroup() as learning:
                parts = [
                    learning.create_task(self._take_part(job, *part))
                    for part in zip(lanes, messages, rejected, strict=True)
                ]
        except ExceptionGroup as errors:
            # The others were given up for it.
            raise errors.exceptions[0] from None
        results = [part.result() for part in parts]
        return _Batch(piece, sum(taken for taken, _ in results), [each for _, outgoing in results for each in outgoing])

    async def _take_part(
        self, job: ImportJob, lane: asyncio.Lock, messages: Sequence[Message], rejected: Sequence[RejectedRow]
    ) -> tuple[int, list[Outgoing]]:
        if not messages and not rejected:
            return 0, []
        async with lane:
            deliveries = [
                Delivery(EventBatch.FromString(data), message_id, subject, 0, 1)
                for subject, message_id, data in messages
            ]
            async with self._database.transaction() as tx:
                taken = await importing.import_batch(
                    tx, job.plan.import_id, rejected, lambda tx: self._learn(tx, deliveries)
                )
        return taken, tx.outgoing()

    async def _finish(self, job: ImportJob, batch: _Batch, marked: float) -> float:
        """Publish what a batch came to, and remember that it is done."""
        await self._bus.publish_all(batch.outgoing)
        moment = time.perf_counter()
        piece = batch.piece
        done = Progress(
            read_bytes=piece.read_bytes,
            next_offset=piece.next_offset,
            read_rows=piece.first_row + piece.read_rows,
            taken_events=batch.taken,
            repeated_events=piece.events - batch.taken,
            working_us=int((moment - marked) * 1e6),
        )
        async with self._database.transaction() as tx:
            rejected = len(piece.rejected)
            if not await importing.advance(tx, job, self._holder, self._lease_s, done, rejected_rows=rejected):
                raise StoppedError
        return moment

    async def _wait_for_room(self, job: ImportJob, stopping: asyncio.Event) -> None:
        while await self._bus.events_fill() > _FULL_SHARE and not stopping.is_set():
            async with self._database.transaction() as tx:
                if not await ImportStore(tx).prolong(job.plan.import_id, self._holder, self._lease_s):
                    raise StoppedError
            await asyncio.sleep(_IDLE_S)


class _Reading:
    """The batches in hand: each is finished after the one before."""

    def __init__(self, slots: asyncio.Semaphore, marked: float) -> None:
        self.lanes = [asyncio.Lock() for _ in range(_LANES)]
        """One for each group of shards: held while some of their customers are learnt from."""
        self.slots = slots
        """One for each batch that is being learnt from."""
        self.marked = marked
        """When the last batch was finished."""
        self._tasks: deque[asyncio.Task[None]] = deque()

    async def room(self) -> None:
        """Wait until another batch can be begun; raises what one before has failed with."""
        await self.slots.acquire()
        while self._tasks and (self._tasks[0].done() or len(self._tasks) >= _IN_HAND):
            await self._tasks.popleft()

    def follow(self, bring_in: Callable[["asyncio.Task[None] | None"], Coroutine[Any, Any, None]]) -> None:
        """Begin with the next batch."""
        self._tasks.append(asyncio.create_task(bring_in(self._tasks[-1] if self._tasks else None)))

    async def end(self) -> None:
        """Wait until all are finished; raises what one has failed with."""
        while self._tasks:
            await self._tasks.popleft()

    async def close(self) -> None:
        """Give up those that are not finished."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
