# SPDX-License-Identifier: Apache-2.0
"""Write the files of exports, batch by batch; what was written and how far it goes is kept in one transaction.

Another process goes on where one stopped. The end of a Parquet file tells where everything in it is, so rows are
gathered as drafts first, and the file is made of them at the end, all of it by one process.
"""

import asyncio
import logging
from collections.abc import Sequence

from chassis.clock import now, to_us
from chassis.database import Database, lost_connection
from chassis.identifiers import IdentifierTypes

from svc_profile.domain.exports import PARQUET, Customer, ExportJob, Pseudonyms, State, columns_of, row_of
from svc_profile.domain.imports import MAX_ATTEMPTS
from svc_profile.settings import Settings
from svc_profile.store.drafts import DraftStore, Piece
from svc_profile.store.exports import ExportStore, Progress
from svc_profile.usecases import exporting
from svc_profile.wire.exporting import FileWriter, ParquetWriter, pseudonyms_of, writer_of
from svc_profile.wire.profiles import profile_id
from svc_profile.workers.leases import new_holder, until

log = logging.getLogger(__name__)

_BATCH_PROFILES = 1_000
_RETRY_S = 0.5


class StoppedError(Exception):
    """The export was stopped, or somebody else has it."""


class ExportWorker:
    """Works on one export at a time."""

    def __init__(self, database: Database, settings: Settings, types: IdentifierTypes) -> None:
        self._database = database
        self._namespaces = list(types.rank)
        self._identifying = list(types.traits)
        self._lease_s = settings.lease_seconds
        self._holder = new_holder()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work on exports until the service stops."""
        await until(stopping, lambda: self._turn(stopping), "exports")

    async def _turn(self, stopping: asyncio.Event) -> bool:
        async with self._database.transaction() as tx:
            claimed = await ExportStore(tx).claim(self._holder, self._lease_s)
        if claimed is None:
            return False
        attempts, job = claimed
        broke = True
        try:
            if attempts > MAX_ATTEMPTS:
                why = f"the same customers were tried {MAX_ATTEMPTS} times; the log says more"
                await self._end(job, State.FAILED, failure=why)
            else:
                broke = await self._work(job, stopping)
        finally:
            async with self._database.transaction() as tx:
                await ExportStore(tx).release(job.plan.export_id, self._holder, broke=broke)
        return True

    async def _work(self, job: ExportJob, stopping: asyncio.Event) -> bool:
        """Write on; tells whether that broke for a reason of its own."""
        try:
            await self._write(job, stopping)
        except StoppedError:
            log.info("export %s was stopped", job.plan.export_id)
        except Exception as error:
            await asyncio.sleep(_RETRY_S)
            if not lost_connection(error):
                log.error("export %s broke", job.plan.export_id, exc_info=error)
                return True
        return False

    async def _write(self, job: ExportJob, stopping: asyncio.Event) -> None:
        goes_on = bool(job.cursor)
        if not goes_on:
            async with self._database.transaction() as tx:
                if not await ExportStore(tx).begin(job, self._holder):
                    raise StoppedError
        pseudonyms = await self._pseudonyms(job)
        columns = columns_of(job.plan, self._namespaces)
        writer = writer_of(job.plan, columns, begins=not goes_on)
        after = job.cursor
        while not stopping.is_set():
            found = await self._batch(job, writer, pseudonyms, after)
            if found is None:
                await self._keep(job, Progress(after, [], 0, await asyncio.to_thread(writer.end)))
                if job.plan.format == PARQUET:
                    await self._assemble(job, columns, stopping)
                await self._end(job, State.COMPLETED)
                return
            after = found

    async def _assemble(self, job: ExportJob, columns: Sequence[str], stopping: asyncio.Event) -> None:
        """Make the file of its drafts; who takes over here gathers nothing again."""
        async with self._database.transaction() as tx:
            if not await ExportStore(tx).begin_file(job.plan.export_id, self._holder):
                raise StoppedError
        writer, number = ParquetWriter(columns), 0
        profiles: list[bytes] = []
        while not stopping.is_set():
            async with self._database.snapshot() as tx:
                draft = await DraftStore(tx).read(job.plan.export_id, number)
            if draft is None:
                await self._append(job, Piece(profiles, await asyncio.to_thread(writer.end)))
                return
            data = await asyncio.to_thread(writer.add, draft.data)
            profiles += draft.profiles
            await self._append(job, Piece(profiles if data else [], data))
            profiles = [] if data else profiles
            number += 1
        raise StoppedError

    async def _append(self, job: ExportJob, piece: Piece) -> None:
        async with self._database.transaction() as tx:
            if not await ExportStore(tx).append(job.plan.export_id, self._holder, self._lease_s, piece):
                raise StoppedError

    async def _pseudonyms(self, job: ExportJob) -> Pseudonyms | None:
        if not job.plan.pseudonymise:
            return None
        async with self._database.snapshot() as tx:
            personal = await exporting.personal_traits(tx)
        return pseudonyms_of(job.key, [*personal, *self._identifying])

    async def _batch(
        self, job: ExportJob, writer: FileWriter, pseudonyms: Pseudonyms | None, after: bytes
    ) -> bytes | None:
        """Write the next customers; returns the last one that was looked at, None at the end."""
        async with self._database.snapshot() as tx:
            looked_at, customers = await exporting.read_batch(
                tx, job.plan, after, most=_BATCH_PROFILES, now_us=to_us(now())
            )
        if not looked_at:
            return None
        data = await asyncio.to_thread(self._written, job, writer, pseudonyms, customers)
        written = [customer.profile.profile for customer in customers]
        withheld, is_draft = len(looked_at) - len(written), job.plan.format == PARQUET
        await self._keep(job, Progress(looked_at[-1], written, withheld, data, is_draft))
        return looked_at[-1]

    def _written(
        self, job: ExportJob, writer: FileWriter, pseudonyms: Pseudonyms | None, customers: Sequence[Customer]
    ) -> bytes:
        rows = [
            row_of(customer, profile_id(customer.profile.profile), job.plan, self._namespaces, pseudonyms)
            for customer in customers
        ]
        return writer.write(rows)

    async def _keep(self, job: ExportJob, done: Progress) -> None:
        async with self._database.transaction() as tx:
            if not await ExportStore(tx).advance(job.plan.export_id, self._holder, self._lease_s, done):
                raise StoppedError

    async def _end(self, job: ExportJob, state: State, *, failure: str = "") -> None:
        async with self._database.transaction() as tx:
            store = ExportStore(tx)
            current = await store.find(job.plan.export_id, lock=True)
            if current is not None and current.state is State.RUNNING:
                await store.end(job.plan.export_id, state, end_time_us=to_us(now()), failure=failure)
