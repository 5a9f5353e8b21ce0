# SPDX-License-Identifier: Apache-2.0
"""Bring files in: prepare, upload, start, stop, and take one batch of rows after the other."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid, NotFound

from svc_profile.domain.imports import BATCH_ROWS, ENDED, ImportJob, ImportPlan, Progress, RejectedRow, State
from svc_profile.store.imports import ImportStore

_DAY_US = 86_400_000_000


async def create_import(tx: Transaction, plan: ImportPlan, *, request_id: str, now_us: int) -> ImportJob:
    """Prepare an import; a repeated request is answered with the import that it made."""
    store = ImportStore(tx)
    existing = await store.add(plan, request_id=request_id, batch_rows=BATCH_ROWS, create_time_us=now_us)
    if existing is not None and replace(existing.plan, import_id=plan.import_id) != plan:
        raise Invalid.field("request_id", "was used for another import")
    return existing or await get_import(tx, plan.import_id)


async def get_import(tx: Transaction, import_id: str) -> ImportJob:
    """Return an import."""
    return _found(await ImportStore(tx).find(import_id))


async def list_imports(tx: Transaction, *, before: str, most: int) -> list[ImportJob]:
    """Return imports, newest first."""
    return await ImportStore(tx).page(before=before, most=most)


async def upload_chunk(tx: Transaction, import_id: str, *, offset: int, data: bytes) -> int:
    """Add bytes to a file and return how many there are; what has arrived before is not kept twice."""
    store = ImportStore(tx)
    job = _found(await store.find(import_id, lock=True))
    received = job.progress.received_bytes
    if offset + len(data) <= received:
        return received
    if job.state is not State.UPLOADING:
        raise _wrong_state(job, "takes no more bytes")
    if offset > received:
        raise FailedPrecondition(
            f"the file has {received} bytes so far, so the next piece begins there",
            reason="UPLOAD_GAP",
            metadata={"received_bytes": str(received)},
        )
    await store.add_chunk(import_id, received, data[received - offset :])
    return offset + len(data)


async def start_import(tx: Transaction, import_id: str, *, total_bytes: int) -> ImportJob:
    """Start to read a complete file; does nothing when that was done."""
    store = ImportStore(tx)
    job = _found(await store.find(import_id, lock=True))
    received = job.progress.received_bytes
    if total_bytes and total_bytes != received:
        raise FailedPrecondition(
            f"{received} of {total_bytes} bytes have arrived",
            reason="UPLOAD_INCOMPLETE",
            metadata={"received_bytes": str(received)},
        )
    if job.state is not State.UPLOADING:
        return job
    if not received:
        raise FailedPrecondition("the file is empty", reason="UPLOAD_INCOMPLETE", metadata={"received_bytes": "0"})
    await store.move(import_id, State.RUNNING)
    return await get_import(tx, import_id)


async def pause_import(tx: Transaction, import_id: str) -> ImportJob:
    """Stop an import after the rows in hand."""
    return await _move(tx, import_id, State.PAUSED, allowed={State.RUNNING})


async def resume_import(tx: Transaction, import_id: str) -> ImportJob:
    """Go on with an import that was paused, or that failed."""
    return await _move(tx, import_id, State.RUNNING, allowed={State.PAUSED, State.FAILED})


async def cancel_import(tx: Transaction, import_id: str, *, now_us: int) -> ImportJob:
    """End an import for good and forget its file."""
    allowed = set(State) - ENDED
    job = await _move(tx, import_id, State.CANCELLED, allowed=allowed, end_time_us=now_us)
    await ImportStore(tx).forget_file(import_id)
    return job


async def list_rejects(
    tx: Transaction, import_id: str, *, after: tuple[int, int], most: int
) -> list[tuple[tuple[int, int], RejectedRow]]:
    """Return rows that were not taken, in the order of the file."""
    await get_import(tx, import_id)
    return await ImportStore(tx).rejects(import_id, after=after, most=most)


async def name_file(tx: Transaction, job: ImportJob, holder: str, digest: bytes) -> ImportJob:
    """Name a complete file by its bytes and its mapping, so that its rows get the same message ids every time."""
    about = f"{job.plan.kind}:{job.plan.format}:".encode() + job.plan.mapping
    file_key = "file-" + blake2b(digest + about, digest_size=12).hexdigest()
    await ImportStore(tx).name_file(job.plan.import_id, holder, file_key)
    return replace(job, file_key=file_key)


async def import_batch(
    tx: Transaction, import_id: str, rejected: Sequence[RejectedRow], learn: Callable[[Transaction], Awaitable[int]]
) -> int:
    """Learn from the events of a batch and keep its rejected rows; returns how many events were new.

    A batch that is done again after a crash is answered as the first time.
    """
    await ImportStore(tx).reject(import_id, rejected)
    return await learn(tx)


async def advance(
    tx: Transaction, job: ImportJob, holder: str, lease_seconds: float, done: Progress, *, rejected_rows: int
) -> bool:
    """Remember that a batch is done; False when the import was stopped or is somebody else's."""
    return await ImportStore(tx).advance(job.plan.import_id, holder, lease_seconds, done, rejected_rows=rejected_rows)


async def complete(tx: Transaction, import_id: str, holder: str, lease_seconds: float, *, now_us: int) -> None:
    """End an import whose last row was read, and forget its file, unless it was stopped or is somebody else's."""
    store = ImportStore(tx)
    if await store.prolong(import_id, holder, lease_seconds):
        await store.move(import_id, State.COMPLETED, end_time_us=now_us)
        await store.forget_file(import_id)


async def fail(tx: Transaction, import_id: str, holder: str, lease_seconds: float, *, why: str, now_us: int) -> None:
    """End an import that cannot be read on, unless it was stopped or is somebody else's."""
    store = ImportStore(tx)
    if await store.prolong(import_id, holder, lease_seconds):
        await store.move(import_id, State.FAILED, failure=why, end_time_us=now_us)


async def forget_imports(tx: Transaction, *, now_us: int, upload_days: int, kept_days: int) -> None:
    """End uploads that were abandoned, and forget imports that ended long ago."""
    store = ImportStore(tx)
    await store.forget_uploads(before_us=now_us - upload_days * _DAY_US, now_us=now_us)
    await store.forget(before_us=now_us - kept_days * _DAY_US)


async def _move(
    tx: Transaction, import_id: str, state: State, *, allowed: set[State], end_time_us: int | None = None
) -> ImportJob:
    store = ImportStore(tx)
    job = _found(await store.find(import_id, lock=True))
    if job.state is state:
        return job
    if job.state not in allowed:
        raise _wrong_state(job, f"cannot become {state.name.lower()}")
    await store.move(import_id, state, end_time_us=end_time_us)
    return await get_import(tx, import_id)


def _found(job: ImportJob | None) -> ImportJob:
    if job is None:
        raise NotFound("no such import")
    return job


def _wrong_state(job: ImportJob, what: str) -> FailedPrecondition:
    return FailedPrecondition(f"an import that is {job.state.name.lower()} {what}", reason="WRONG_STATE")
