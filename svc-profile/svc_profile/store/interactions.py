# SPDX-License-Identifier: Apache-2.0
"""Contacts of staff with customers, by the fragment that each was created for."""

from collections.abc import Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import opened_texts
from sqlalchemy import Row

from svc_profile.domain.fragments import storable_text
from svc_profile.domain.interactions import Choice, Interaction, Kept, Kind, Status
from svc_profile.store.sealed import OUTCOME, SUBJECT, TEXT

_INSERT = """
INSERT INTO interactions (
    interaction_id, request_id, fragment_id, kind, status, subject, text, outcome, actor, updated_by,
    interaction_time_us, created_time_us, updated_time_us, closed_time_us
) VALUES (
    :interaction_id, :request_id, :fragment_id, :kind, :status, :subject, :text, :outcome, :actor, :updated_by,
    :interaction_time_us, :created_time_us, :updated_time_us, :closed_time_us
)
ON CONFLICT (request_id) DO NOTHING
"""

_UPDATE = """
UPDATE interactions SET status = :status, subject = :subject, text = :text, outcome = :outcome,
    updated_by = :updated_by, interaction_time_us = :interaction_time_us, updated_time_us = :updated_time_us,
    closed_time_us = :closed_time_us
WHERE interaction_id = :interaction_id
"""

_SELECT = """
SELECT i.*, coalesce(m.profile_id, i.fragment_id) AS profile_id
FROM interactions i LEFT JOIN fragment_profiles m USING (fragment_id)
"""

_BY_ID = _SELECT + " WHERE i.interaction_id = :interaction_id"
_LOCKED = _SELECT + " WHERE i.interaction_id = :interaction_id FOR NO KEY UPDATE OF i"
_BY_REQUEST = _SELECT + " WHERE i.request_id = :request_id"

_PAGE = (
    _SELECT
    + """
WHERE (CAST(:fragments AS uuid[]) IS NULL OR i.fragment_id = ANY (CAST(:fragments AS uuid[])))
    AND (CAST(:statuses AS smallint[]) IS NULL OR i.status = ANY (CAST(:statuses AS smallint[])))
    AND (CAST(:kinds AS smallint[]) IS NULL OR i.kind = ANY (CAST(:kinds AS smallint[])))
    AND (:actor = '' OR i.actor = :actor)
    AND (CAST(:before_us AS bigint) IS NULL
        OR (i.interaction_time_us, i.interaction_id) < (CAST(:before_us AS bigint), CAST(:before_id AS text)))
ORDER BY i.interaction_time_us DESC, i.interaction_id DESC LIMIT :most
"""
)


class InteractionStore:
    """Keeps interactions."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put_new(self, interaction: Interaction, request_id: str) -> bool:
        """Keep an interaction; tells whether it is the first one of its request id."""
        values = self._columns(interaction)
        return bool(await self._tx.execute(_INSERT, request_id=request_id or None, **values))

    async def put(self, interaction: Interaction) -> None:
        """Write an interaction as it is now."""
        values = self._columns(interaction)
        for fixed in ("fragment_id", "kind", "actor", "created_time_us"):
            del values[fixed]
        await self._tx.execute(_UPDATE, **values)

    async def find(self, interaction_id: str, *, lock: bool = False) -> Kept | None:
        """Return one interaction, locked against other changes when asked."""
        row = await self._tx.row(_LOCKED if lock else _BY_ID, interaction_id=interaction_id)
        return None if row is None else (await self._read([row]))[0]

    async def find_by_request(self, request_id: str) -> Kept | None:
        """Return what was created for a request id."""
        row = await self._tx.row(_BY_REQUEST, request_id=request_id)
        return None if row is None else (await self._read([row]))[0]

    async def page(self, choice: Choice, most: int) -> Sequence[Kept]:
        """Return up to `most` interactions, newest first."""
        before = choice.before or (None, None)
        fragments = choice.fragments
        rows = await self._tx.rows(
            _PAGE,
            fragments=None if fragments is None else [UUID(fragment) for fragment in fragments],
            statuses=list(choice.statuses) or None,
            kinds=list(choice.kinds) or None,
            actor=choice.actor,
            before_us=before[0],
            before_id=before[1],
            most=most,
        )
        return await self._read(rows)

    async def _read(self, rows: Sequence[Row[Any]]) -> list[Kept]:
        sealed = [
            (column, row.interaction_id.encode(), text)
            for row in rows
            for column, text in ((SUBJECT, row.subject), (TEXT, row.text), (OUTCOME, row.outcome))
        ]
        texts = iter(await opened_texts(self._tx, sealed))
        return [_read(row, subject=next(texts), text=next(texts), outcome=next(texts)) for row in rows]

    def _columns(self, interaction: Interaction) -> dict[str, Any]:
        seal, row_id = self._tx.sealer.seal_text, interaction.interaction_id.encode()
        return _columns(interaction) | {
            "subject": seal(SUBJECT, row_id, storable_text(interaction.subject)),
            "text": seal(TEXT, row_id, storable_text(interaction.text)),
            "outcome": seal(OUTCOME, row_id, interaction.outcome),
        }


def _columns(interaction: Interaction) -> dict[str, Any]:
    return {
        "interaction_id": interaction.interaction_id,
        "fragment_id": UUID(interaction.fragment),
        "kind": int(interaction.kind),
        "status": int(interaction.status),
        "actor": interaction.actor,
        "updated_by": interaction.updated_by,
        "interaction_time_us": interaction.interaction_time_us,
        "created_time_us": interaction.created_time_us,
        "updated_time_us": interaction.updated_time_us,
        "closed_time_us": interaction.closed_time_us,
    }


def _read(row: Row[Any], *, subject: str, text: str, outcome: str) -> Kept:
    interaction = Interaction(
        interaction_id=row.interaction_id,
        fragment=row.fragment_id.bytes,
        kind=Kind(row.kind),
        status=Status(row.status),
        subject=subject,
        text=text,
        outcome=outcome,
        actor=row.actor,
        updated_by=row.updated_by,
        interaction_time_us=row.interaction_time_us,
        created_time_us=row.created_time_us,
        updated_time_us=row.updated_time_us,
        closed_time_us=row.closed_time_us,
    )
    return Kept(interaction, row.profile_id.bytes)
