# SPDX-License-Identifier: Apache-2.0
"""The list of suppressed identifiers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.suppressions import Suppression, suppression_id

_ADD = """
INSERT INTO suppressions (suppression_id, namespace, data_request_id, created_time)
SELECT id, namespace, :data_request_id, :now
FROM unnest(CAST(:ids AS uuid[]), CAST(:namespaces AS text[])) AS g (id, namespace) ORDER BY id
ON CONFLICT DO NOTHING
"""

_SUPPRESSED = "SELECT suppression_id FROM suppressions WHERE suppression_id = ANY (CAST(:ids AS uuid[]))"

_PAGE = """
SELECT suppression_id, namespace, data_request_id, created_time FROM suppressions
WHERE CAST(:before_time AS timestamptz) IS NULL
    OR created_time < :before_time OR (created_time = :before_time AND suppression_id > CAST(:after_id AS uuid))
ORDER BY created_time DESC, suppression_id LIMIT :most
"""


class SuppressionStore:
    """Keeps which identifiers are not collected any more."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, namespaces: Mapping[FragmentKey, str], data_request_id: str, now: datetime) -> None:
        """Suppress the identifiers of fragments, given with their kind."""
        await self._tx.execute(
            _ADD,
            ids=[UUID(suppression_id(fragment)) for fragment in namespaces],
            namespaces=list(namespaces.values()),
            data_request_id=data_request_id,
            now=now,
        )

    async def suppressed(self, fragments: Collection[FragmentKey]) -> set[FragmentKey]:
        """Return those of some fragments whose identifiers are suppressed."""
        # Most platforms have erased nobody yet, and then hashing a batch of newcomers would be for nothing.
        if not fragments or not await self._tx.value("SELECT EXISTS (SELECT FROM suppressions)"):
            return set()
        fragment_of = {suppression_id(fragment): fragment for fragment in fragments}
        rows = await self._tx.rows(_SUPPRESSED, ids=[UUID(each) for each in fragment_of])
        return {fragment_of[row.suppression_id.bytes] for row in rows}

    async def lift(self, fragment: FragmentKey) -> bool:
        """Let an identifier be collected again; tells whether it was suppressed."""
        lifted = await self._tx.execute(
            "DELETE FROM suppressions WHERE suppression_id = :id", id=UUID(suppression_id(fragment))
        )
        return lifted > 0

    async def page(self, before: tuple[datetime, bytes] | None, most: int) -> Sequence[Suppression]:
        """Return suppressions, newest first, after a position of the list."""
        rows = await self._tx.rows(
            _PAGE,
            before_time=before[0] if before else None,
            after_id=UUID(before[1]) if before else None,
            most=most,
        )
        return [
            Suppression(row.suppression_id.bytes, row.namespace, row.data_request_id, row.created_time) for row in rows
        ]

    async def count(self, data_request_id: str) -> int:
        """Return how many identifiers an erasure suppressed."""
        count: int = await self._tx.value(
            "SELECT count(*) FROM suppressions WHERE data_request_id = :id", id=data_request_id
        )
        return count
