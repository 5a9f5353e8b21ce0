# SPDX-License-Identifier: Apache-2.0
"""Rows that are gathered for a file which can only be written as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row, opened

from svc_profile.domain.events import FragmentKey
from svc_profile.store.sealed import DRAFTED, row_of

_NEXT = """
SELECT (SELECT coalesce(max(number) + 1, 0) FROM export_drafts d WHERE d.export_id = j.export_id)
FROM export_jobs j WHERE export_id = :export_id FOR UPDATE
"""
_ADD = """
INSERT INTO export_drafts (export_id, number, data, profiles)
VALUES (:export_id, :number, :data, CAST(:profiles AS uuid[]))
"""
_READ = "SELECT data, profiles FROM export_drafts WHERE export_id = :export_id AND number = :number"
_FORGET = "DELETE FROM export_drafts WHERE export_id = :export_id"


@dataclass(frozen=True)
class Piece:
    """Data, and the customers who are in them."""

    profiles: Sequence[FragmentKey]
    data: bytes


class DraftStore:
    """Keeps the drafts of exports, numbered from 0."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, export_id: str, piece: Piece) -> bool:
        """Add a draft behind the others; False when the export is gone."""
        number = await self._tx.value(_NEXT, export_id=export_id)
        if number is None:
            return False
        await self._tx.execute(
            _ADD,
            export_id=export_id,
            number=number,
            data=self._tx.sealer.seal(DRAFTED, row_of(export_id, number), piece.data),
            profiles=[UUID(profile) for profile in piece.profiles],
        )
        return True

    async def read(self, export_id: str, number: int) -> Piece | None:
        """Return a draft."""
        row = await self._tx.row(_READ, export_id=export_id, number=number)
        if row is None:
            return None
        (data,) = await opened(self._tx, [Row(DRAFTED, row_of(export_id, number), row.data, is_foreign=True)])
        return Piece([profile.bytes for profile in row.profiles], data or b"")

    async def forget(self, export_id: str) -> None:
        """Forget the drafts of an export."""
        await self._tx.execute(_FORGET, export_id=export_id)
