# SPDX-License-Identifier: Apache-2.0
"""Exports of data subjects: the parts that the services sent, and the pieces of the finished file."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from chassis.database import Transaction
from chassis.encryption.vault import Row, opened

from svc_profile.domain.data_requests import Part
from svc_profile.store.sealed import PART, PIECE, row_of

_ADD_PART = """
INSERT INTO data_export_parts (data_request_id, service, attempt, number, file, last, rows, stream_sequence)
SELECT data_request_id, :service, :attempt, CAST(:number AS integer), :file, CAST(:last AS boolean),
    CAST(:rows AS bytea), CAST(:stream_sequence AS bigint)
FROM data_requests WHERE data_request_id = :data_request_id AND state = 2
ON CONFLICT DO NOTHING
"""

# One whole run of each service.
_WHOLE = """
SELECT service, min(attempt) AS attempt FROM (
    SELECT service, attempt FROM data_export_parts WHERE data_request_id = :id
    GROUP BY service, attempt HAVING bool_or(last) AND count(*) = max(number) + 1
) AS runs GROUP BY service ORDER BY service
"""

_FILES = """
SELECT file, count(*) AS parts FROM data_export_parts
WHERE data_request_id = :id AND service = :service AND attempt = :attempt AND file <> ''
GROUP BY file ORDER BY file
"""

_NUMBERS = """
SELECT number FROM data_export_parts
WHERE data_request_id = :id AND service = :service AND attempt = :attempt AND file = :file ORDER BY number
"""

_ROWS = """
SELECT rows FROM data_export_parts
WHERE data_request_id = :id AND service = :service AND attempt = :attempt AND number = :number
"""


@dataclass(frozen=True)
class Run:
    """A whole run of one service."""

    service: str
    attempt: str


class DataExportStore:
    """Keeps parts and pieces."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add_part(self, part: Part) -> None:
        """Keep a part of a request that is running."""
        row_id = row_of(part.data_request_id, part.service, part.attempt, part.number)
        await self._tx.execute(_ADD_PART, **vars(part) | {"rows": self._tx.sealer.seal(PART, row_id, part.rows)})

    async def whole_runs(self, data_request_id: str) -> list[Run]:
        """Return one whole run of each service that has answered."""
        rows = await self._tx.rows(_WHOLE, id=data_request_id)
        return [Run(row.service, row.attempt) for row in rows]

    async def files(self, data_request_id: str, run: Run) -> list[str]:
        """Return the files of a run."""
        rows = await self._tx.rows(_FILES, id=data_request_id, service=run.service, attempt=run.attempt)
        return [row.file for row in rows]

    async def parts(self, data_request_id: str, run: Run, file: str) -> AsyncIterator[bytes]:
        """Return the rows of a file, part by part."""
        given = {"id": data_request_id, "service": run.service, "attempt": run.attempt}
        for row in await self._tx.rows(_NUMBERS, **given, file=file):
            row_id = row_of(data_request_id, run.service, run.attempt, row.number)
            sealed = Row(PART, row_id, await self._tx.value(_ROWS, **given, number=row.number))
            (rows,) = await opened(self._tx, [sealed])
            yield rows or b""

    async def sequences(self, data_request_id: str) -> Sequence[int]:
        """Return where the parts stand in the stream."""
        rows = await self._tx.rows(
            "SELECT stream_sequence FROM data_export_parts WHERE data_request_id = :id", id=data_request_id
        )
        return [row.stream_sequence for row in rows]

    async def forget_parts(self, data_request_id: str) -> None:
        """Let go of what the services sent."""
        await self._tx.execute("DELETE FROM data_export_parts WHERE data_request_id = :id", id=data_request_id)

    async def clear(self, data_request_id: str) -> None:
        """Let go of the pieces of a file, so that it can be written from the beginning."""
        await self._tx.execute("DELETE FROM data_export_chunks WHERE data_request_id = :id", id=data_request_id)

    async def add_chunk(self, data_request_id: str, index: int, data: bytes) -> None:
        """Keep a piece of the file."""
        await self._tx.execute(
            "INSERT INTO data_export_chunks VALUES (:id, :index, :data, :size_bytes)",
            id=data_request_id,
            index=index,
            data=self._tx.sealer.seal(PIECE, row_of(data_request_id, index), data),
            size_bytes=len(data),
        )

    async def chunk(self, data_request_id: str, index: int) -> bytes | None:
        """Return a piece of the file, None when there is none."""
        sealed: bytes | None = await self._tx.value(
            "SELECT data FROM data_export_chunks WHERE data_request_id = :id AND index = :index",
            id=data_request_id,
            index=index,
        )
        (data,) = await opened(self._tx, [Row(PIECE, row_of(data_request_id, index), sealed, is_foreign=True)])
        return data

    async def size(self, data_request_id: str) -> tuple[int, int]:
        """Return the number of pieces and their bytes."""
        row = await self._tx.row(
            """
            SELECT count(*) AS pieces, CAST(coalesce(sum(size_bytes), 0) AS bigint) AS size_bytes
            FROM data_export_chunks WHERE data_request_id = :id
            """,
            id=data_request_id,
        )
        return (row.pieces, row.size_bytes) if row else (0, 0)

    async def expire(self, days: int) -> None:
        """Let go of files that were finished some days ago."""
        await self._tx.execute(
            """
            DELETE FROM data_export_chunks WHERE data_request_id IN (
                SELECT data_request_id FROM data_requests
                WHERE kind = 1 AND done_time < now() - make_interval(days => CAST(:days AS integer))
            )
            """,
            days=days,
        )
