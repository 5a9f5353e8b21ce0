# SPDX-License-Identifier: Apache-2.0
"""Imports, the pieces of their files, and the rows that were not taken."""

from collections.abc import Sequence
from typing import Any

from chassis.database import Transaction
from chassis.encryption.vault import Row as Sealed
from chassis.encryption.vault import opened
from sqlalchemy import Row

from svc_profile.domain.imports import KEPT_REJECTS, ImportJob, ImportPlan, Progress, RejectedRow, State
from svc_profile.store.sealed import REFUSED_ROW, REFUSED_RULE, UPLOADED, opened_refused, row_of

_ADD = """
INSERT INTO import_jobs (
    import_id, request_id, kind, format, gzip, source, mapping, state, batch_rows, create_time_us
) VALUES (
    :import_id, nullif(:request_id, ''), :kind, :format, :gzip, :source, :mapping, :state, :batch_rows, :create_time_us
) ON CONFLICT DO NOTHING
"""
_GET = "SELECT * FROM import_jobs WHERE import_id = :import_id"
_LOCK = "SELECT * FROM import_jobs WHERE import_id = :import_id FOR UPDATE"
_BY_REQUEST = "SELECT * FROM import_jobs WHERE request_id = :request_id"
_PAGE = """
SELECT * FROM import_jobs WHERE :before = '' OR import_id < :before ORDER BY import_id DESC LIMIT :most
"""
_MOVE = """
UPDATE import_jobs SET state = :state, failure = :failure, end_time_us = :end_time_us, attempts = 0,
    lease_holder = '', lease_until = '-infinity'
WHERE import_id = :import_id
"""

# A holder that dies no longer prolongs its lease. The number of attempts falls back to 0 with each batch that is done.
_CLAIM = """
UPDATE import_jobs SET lease_holder = :holder, lease_until = now() + make_interval(secs => :seconds),
    attempts = attempts + 1
WHERE import_id = (
    SELECT import_id FROM import_jobs WHERE state = 2 AND lease_until < now()
    ORDER BY create_time_us LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *
"""
_ADVANCE = """
UPDATE import_jobs SET lease_until = now() + make_interval(secs => :seconds), attempts = 0,
    next_offset = :next_offset, read_bytes = :read_bytes, read_rows = :read_rows,
    taken_events = taken_events + :taken_events, repeated_events = repeated_events + :repeated_events,
    rejected_rows = rejected_rows + :rejected_rows, working_us = working_us + :working_us
WHERE import_id = :import_id AND lease_holder = :holder AND state = 2
"""
_PROLONG = """
UPDATE import_jobs SET lease_until = now() + make_interval(secs => :seconds)
WHERE import_id = :import_id AND lease_holder = :holder AND state = 2
"""
_RELEASE = """
UPDATE import_jobs SET lease_until = '-infinity', lease_holder = '',
    attempts = CASE WHEN :broke THEN attempts ELSE 0 END
WHERE import_id = :import_id AND lease_holder = :holder
"""
_NAME_FILE = "UPDATE import_jobs SET file_key = :file_key WHERE import_id = :import_id AND lease_holder = :holder"

_ADD_CHUNK = "INSERT INTO import_chunks (import_id, first_byte, data) VALUES (:import_id, :first_byte, :data)"
_RECEIVED = "UPDATE import_jobs SET received_bytes = :received_bytes WHERE import_id = :import_id"
_CHUNK = """
SELECT first_byte, data FROM import_chunks WHERE import_id = :import_id AND first_byte <= :offset
ORDER BY first_byte DESC LIMIT 1
"""
_FORGET_FILE = "DELETE FROM import_chunks WHERE import_id = :import_id"

_REJECT = """
INSERT INTO import_rejects (import_id, row_number, position, field, rule, body)
SELECT CAST(:import_id AS text), * FROM unnest(
    CAST(:rows AS bigint[]), CAST(:positions AS integer[]), CAST(:fields AS text[]), CAST(:rules AS text[]),
    CAST(:bodies AS text[])
) LIMIT greatest(0, :kept - (SELECT rejected_rows FROM import_jobs WHERE import_id = CAST(:import_id AS text)))
ON CONFLICT DO NOTHING
"""
_REJECTS = """
SELECT import_id, row_number, position, field, rule, body FROM import_rejects
WHERE import_id = :import_id AND (row_number, position) > (CAST(:row AS bigint), CAST(:position AS integer))
ORDER BY row_number, position LIMIT :most
"""

_FORGET_UPLOADS = """
UPDATE import_jobs SET state = 6, end_time_us = :now_us WHERE state IN (1, 3, 5) AND create_time_us < :before_us
RETURNING import_id
"""
_FORGET_FILES = "DELETE FROM import_chunks WHERE import_id = ANY (CAST(:import_ids AS text[]))"
_FORGET_JOBS = "DELETE FROM import_jobs WHERE state IN (4, 5, 6) AND end_time_us < :before_us"


class ImportStore:
    """Keeps imports."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, plan: ImportPlan, *, request_id: str, batch_rows: int, create_time_us: int) -> ImportJob | None:
        """Keep a new import; return the one that has the request's id already, if any."""
        added = await self._tx.execute(
            _ADD,
            import_id=plan.import_id,
            request_id=request_id,
            kind=plan.kind,
            format=plan.format,
            gzip=plan.gzip,
            source=plan.source,
            mapping=plan.mapping,
            state=State.UPLOADING,
            batch_rows=batch_rows,
            create_time_us=create_time_us,
        )
        return None if added else _read(await self._tx.row(_BY_REQUEST, request_id=request_id))

    async def find(self, import_id: str, *, lock: bool = False) -> ImportJob | None:
        """Return an import."""
        row = await self._tx.row(_LOCK if lock else _GET, import_id=import_id)
        return _read(row) if row else None

    async def page(self, *, before: str, most: int) -> list[ImportJob]:
        """Return imports, newest first."""
        return [_read(row) for row in await self._tx.rows(_PAGE, before=before, most=most)]

    async def move(self, import_id: str, state: State, *, failure: str = "", end_time_us: int | None = None) -> None:
        """Change what an import is doing; whoever works on it notices at its next batch."""
        await self._tx.execute(_MOVE, import_id=import_id, state=state, failure=failure, end_time_us=end_time_us)

    async def claim(self, holder: str, lease_seconds: float) -> tuple[int, ImportJob] | None:
        """Take the import that has waited longest and that nobody works on, and say how often it was tried."""
        row = await self._tx.row(_CLAIM, holder=holder, seconds=lease_seconds)
        return (row.attempts, _read(row)) if row else None

    async def advance(
        self, import_id: str, holder: str, lease_seconds: float, done: Progress, *, rejected_rows: int
    ) -> bool:
        """Remember that a batch is done; False when the import is no longer the holder's."""
        return bool(
            await self._tx.execute(
                _ADVANCE,
                import_id=import_id,
                holder=holder,
                seconds=lease_seconds,
                next_offset=done.next_offset,
                read_bytes=done.read_bytes,
                read_rows=done.read_rows,
                taken_events=done.taken_events,
                repeated_events=done.repeated_events,
                rejected_rows=rejected_rows,
                working_us=done.working_us,
            )
        )

    async def prolong(self, import_id: str, holder: str, lease_seconds: float) -> bool:
        """Keep an import; False when it is no longer the holder's."""
        return bool(await self._tx.execute(_PROLONG, import_id=import_id, holder=holder, seconds=lease_seconds))

    async def release(self, import_id: str, holder: str, *, broke: bool) -> None:
        """Let somebody else take an import at once; unless it broke, that was no attempt."""
        await self._tx.execute(_RELEASE, import_id=import_id, holder=holder, broke=broke)

    async def name_file(self, import_id: str, holder: str, file_key: str) -> None:
        """Remember the name of a complete file."""
        await self._tx.execute(_NAME_FILE, import_id=import_id, holder=holder, file_key=file_key)

    async def add_chunk(self, import_id: str, first_byte: int, data: bytes) -> None:
        """Keep the next piece of a file."""
        sealed = self._tx.sealer.seal(UPLOADED, row_of(import_id, first_byte), data)
        await self._tx.execute(_ADD_CHUNK, import_id=import_id, first_byte=first_byte, data=sealed)
        await self._tx.execute(_RECEIVED, import_id=import_id, received_bytes=first_byte + len(data))

    async def chunk(self, import_id: str, offset: int) -> tuple[int, bytes] | None:
        """Return the piece that holds a byte, and where it begins."""
        row = await self._tx.row(_CHUNK, import_id=import_id, offset=offset)
        if row is None:
            return None
        sealed = Sealed(UPLOADED, row_of(import_id, row.first_byte), row.data, is_foreign=True)
        (data,) = await opened(self._tx, [sealed])
        return row.first_byte, data or b""

    async def forget_file(self, import_id: str) -> None:
        """Forget the pieces of a file."""
        await self._tx.execute(_FORGET_FILE, import_id=import_id)

    async def reject(self, import_id: str, rejected: Sequence[RejectedRow]) -> None:
        """Keep rows that were not taken, as long as there are not too many."""
        if not rejected:
            return
        seal = self._tx.sealer.seal_text
        keys = [row_of(import_id, each.row, position) for position, each in enumerate(rejected)]
        await self._tx.execute(
            _REJECT,
            import_id=import_id,
            kept=KEPT_REJECTS,
            rows=[each.row for each in rejected],
            positions=list(range(len(rejected))),
            fields=[each.field for each in rejected],
            rules=[seal(REFUSED_RULE, key, each.rule) for key, each in zip(keys, rejected, strict=True)],
            bodies=[seal(REFUSED_ROW, key, each.body) for key, each in zip(keys, rejected, strict=True)],
        )

    async def rejects(
        self, import_id: str, *, after: tuple[int, int], most: int
    ) -> list[tuple[tuple[int, int], RejectedRow]]:
        """Return rows that were not taken, in the order of the file, each with its position in the list."""
        rows: Sequence[Any] = await self._tx.rows(
            _REJECTS, import_id=import_id, row=after[0], position=after[1], most=most
        )
        return [
            ((row.row_number, row.position), RejectedRow(row.row_number, row.field, rule, body))
            for row, (rule, body) in zip(rows, await opened_refused(self._tx, rows), strict=True)
        ]

    async def forget_uploads(self, *, before_us: int, now_us: int) -> None:
        """End imports that nobody went on with, and forget their files."""
        rows = await self._tx.rows(_FORGET_UPLOADS, before_us=before_us, now_us=now_us)
        await self._tx.execute(_FORGET_FILES, import_ids=[row[0] for row in rows])

    async def forget(self, *, before_us: int) -> None:
        """Forget imports that ended long ago, with their rejected rows."""
        await self._tx.execute(_FORGET_JOBS, before_us=before_us)


def _read(row: Row[Any] | None) -> ImportJob:
    if row is None:
        raise LookupError("the import is gone")
    return ImportJob(
        plan=ImportPlan(row.import_id, row.kind, row.format, row.gzip, row.source, row.mapping),
        state=State(row.state),
        progress=Progress(
            row.received_bytes,
            row.read_bytes,
            row.next_offset,
            row.read_rows,
            row.taken_events,
            row.repeated_events,
            row.rejected_rows,
            row.working_us,
        ),
        create_time_us=row.create_time_us,
        end_time_us=row.end_time_us,
        failure=row.failure,
        batch_rows=row.batch_rows,
        file_key=row.file_key,
    )
