# SPDX-License-Identifier: Apache-2.0
"""The access log: who asked for what about whom, written before the answer leaves.

Calls that run at the same time share one INSERT (group commit), so that the log costs an answer one round trip and the
database far less than one commit each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.database import Database, Transaction
from chassis.together import Together

_FORGET_AT_ONCE = 10_000

# An answer does not wait for the disk: the row is PostgreSQL's before the answer leaves, whatever becomes of this
# process; only a crash of PostgreSQL itself may lose the accesses of its last half second.
_WRITE = """
INSERT INTO access_log (caller, method, purpose, fragment_id, outcome, trace_id)
SELECT g.* FROM (SELECT set_config('synchronous_commit', 'off', true)) AS soon CROSS JOIN unnest(
    CAST(:callers AS text[]), CAST(:methods AS text[]), CAST(:purposes AS smallint[]),
    CAST(:fragments AS uuid[]), CAST(:outcomes AS smallint[]), CAST(:traces AS text[])
) AS g
"""

_PAGE = """
SELECT * FROM access_log
WHERE (CAST(:before AS bigint) IS NULL OR access_id < :before)
    AND (CAST(:fragments AS uuid[]) IS NULL OR fragment_id = ANY (CAST(:fragments AS uuid[])))
    AND (CAST(:caller AS text) = '' OR caller = :caller)
    AND (CAST(:start AS timestamptz) IS NULL OR access_time >= :start)
    AND (CAST(:end AS timestamptz) IS NULL OR access_time < :end)
ORDER BY access_id DESC LIMIT :most
"""

# The customer may have been asked for under any name; a fragment without a row in fragment_profiles is its own.
_NAMES = """
WITH customer AS (
    SELECT coalesce(
        (SELECT profile_id FROM fragment_profiles WHERE fragment_id = :fragment), CAST(:fragment AS uuid)
    ) AS profile_id
)
SELECT profile_id AS fragment_id FROM customer
UNION SELECT CAST(:fragment AS uuid)
UNION SELECT m.fragment_id FROM fragment_profiles m JOIN customer USING (profile_id)
"""

_FORGET = """
DELETE FROM access_log WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM access_log WHERE access_time < now() - make_interval(days => CAST(:days AS integer)) LIMIT :most
))
"""


@dataclass(frozen=True)
class Access:
    """One access to personal data."""

    caller: str
    method: str
    """Full name of the method."""
    purpose: int
    fragment_id: UUID | None
    """The fragment that the reference named; None when the method is about many."""
    outcome: int
    trace_id: str = ""
    access_id: int = 0
    """Its number, growing; 0 until it is written."""
    access_time: datetime | None = None


@dataclass(frozen=True)
class Wanted:
    """Which accesses are asked for."""

    fragment_id: UUID | None = None
    caller: str = ""
    start: datetime | None = None
    end: datetime | None = None


class AccessLog:
    """Writes the access log of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = Together(self._insert)

    async def write(self, access: Access) -> None:
        """Return when the access is on record; raises when it cannot be."""
        await self._writing.answer(access)

    async def _insert(self, accesses: Sequence[Access]) -> Sequence[None]:
        async with self._database.snapshot() as tx:
            await tx.execute(
                _WRITE,
                callers=[access.caller for access in accesses],
                methods=[access.method for access in accesses],
                purposes=[access.purpose for access in accesses],
                fragments=[access.fragment_id for access in accesses],
                outcomes=[access.outcome for access in accesses],
                traces=[access.trace_id for access in accesses],
            )
        return [None] * len(accesses)


async def list_accesses(tx: Transaction, wanted: Wanted, *, before: int | None, most: int) -> list[Access]:
    """Return accesses, newest first; those about a customer under whatever name."""
    fragments = None
    if wanted.fragment_id is not None:
        fragments = [row.fragment_id for row in await tx.rows(_NAMES, fragment=wanted.fragment_id)]
    rows = await tx.rows(
        _PAGE,
        before=before,
        fragments=fragments,
        caller=wanted.caller,
        start=wanted.start,
        end=wanted.end,
        most=most,
    )
    return [_read(row) for row in rows]


async def forget_accesses(tx: Transaction, days: int) -> bool:
    """Forget some accesses that are past their time; tells whether there may be more."""
    return await tx.execute(_FORGET, days=days, most=_FORGET_AT_ONCE) == _FORGET_AT_ONCE


def _read(row: Any) -> Access:
    return Access(
        caller=row.caller,
        method=row.method,
        purpose=row.purpose,
        fragment_id=row.fragment_id,
        outcome=row.outcome,
        trace_id=row.trace_id,
        access_id=row.access_id,
        access_time=row.access_time,
    )
