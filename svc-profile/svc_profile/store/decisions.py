# SPDX-License-Identifier: Apache-2.0
"""What people decided about identity. Written under the identity lock only."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from sqlalchemy import Row

from svc_profile.domain.decisions import Decision, DecisionKind, Note, Record, Side
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.profiles import KnownAs
from svc_profile.store.sealed import DECIDED, REVOKED, opened_reasons, revealed, sealed_reason

_SHOWN = 100
_HELD = 2
"""Sides that are held together; the third one, of bystanders, is not."""

_ABOUT = """
SELECT m.decision_id, m.fragment_id, m.side, d.kind
FROM decision_members m JOIN identity_decisions d USING (decision_id)
WHERE m.fragment_id = ANY (CAST(:fragments AS uuid[])) AND m.is_active
ORDER BY m.decision_id, m.fragment_id
"""

_PUT = """
INSERT INTO identity_decisions (kind, actor, reason, decided_time_us)
SELECT kind, :actor, :reason, :time_us FROM unnest(CAST(:kinds AS text[])) WITH ORDINALITY AS g (kind, place)
ORDER BY place RETURNING decision_id
"""

_PUT_MEMBERS = """
INSERT INTO decision_members (decision_id, fragment_id, side, hub)
SELECT * FROM unnest(
    CAST(:decisions AS bigint[]), CAST(:fragments AS uuid[]), CAST(:sides AS smallint[]), CAST(:hubs AS uuid[])
)
"""

_REVOKE = """
WITH members AS (
    UPDATE decision_members SET is_active = false WHERE decision_id = ANY (CAST(:decisions AS bigint[]))
)
UPDATE identity_decisions SET revoked_time_us = :time_us, revoked_by = :actor, revoked_reason = :reason
WHERE decision_id = ANY (CAST(:decisions AS bigint[]))
"""

_PAGE = """
SELECT * FROM identity_decisions
WHERE (CAST(:before AS bigint) IS NULL OR decision_id < :before)
    AND (CAST(:fragments AS uuid[]) IS NULL OR decision_id IN (
        SELECT decision_id FROM decision_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
    ))
ORDER BY decision_id DESC LIMIT :most
"""

_SOME = "SELECT * FROM identity_decisions WHERE decision_id = ANY (CAST(:decisions AS bigint[])) ORDER BY decision_id"

_SIDES = """
SELECT m.decision_id, m.side, m.size, m.fragment_id, f.namespace, f.value, f.first_seen_us, f.last_seen_us
FROM (
    SELECT decision_id, side, fragment_id, count(*) OVER (PARTITION BY decision_id, side) AS size,
        row_number() OVER (PARTITION BY decision_id, side ORDER BY fragment_id) AS place
    FROM decision_members WHERE decision_id = ANY (CAST(:decisions AS bigint[]))
) AS m JOIN fragments f USING (fragment_id)
WHERE m.place <= :most ORDER BY m.decision_id, m.side, f.namespace, f.value
"""


class DecisionStore:
    """Keeps decisions, those that stand and those that were taken back."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def about(self, fragments: Collection[FragmentKey]) -> list[Decision]:
        """Return the decisions that stand about some fragments, as far as these are concerned."""
        if not fragments:
            return []
        return _decisions(await self._tx.rows(_ABOUT, fragments=[UUID(fragment) for fragment in fragments]))

    async def put(self, sides_of: Sequence[tuple[tuple[FragmentKey, ...], ...]], note: Note) -> list[Decision]:
        """Keep new decisions by their sides, all taken at once."""
        if not sides_of:
            return []
        rows = await self._tx.rows(
            _PUT,
            kinds=[Decision(0, sides).kind for sides in sides_of],
            actor=storable_text(note.actor),
            reason=sealed_reason(self._tx, DECIDED, storable_text(note.reason), note.time_us),
            time_us=note.time_us,
        )
        numbers = sorted(row.decision_id for row in rows)
        made = [Decision(number, sides) for number, sides in zip(numbers, sides_of, strict=True)]
        await self._put_members(made)
        return made

    async def _put_members(self, made: Iterable[Decision]) -> None:
        members = [
            (decision.decision_id, UUID(fragment), number, UUID(side[0] if number < _HELD else fragment))
            for decision in made
            for number, side in enumerate(decision.sides)
            for fragment in dict.fromkeys(side)
        ]
        decisions, fragments, sides, hubs = map(list, zip(*members, strict=True))
        await self._tx.execute(_PUT_MEMBERS, decisions=decisions, fragments=fragments, sides=sides, hubs=hubs)

    async def revoke(self, decisions: Collection[int], note: Note) -> None:
        """Take decisions back."""
        if decisions:
            await self._tx.execute(
                _REVOKE,
                decisions=list(decisions),
                actor=storable_text(note.actor),
                reason=sealed_reason(self._tx, REVOKED, storable_text(note.reason), note.time_us),
                time_us=note.time_us,
            )

    async def records(self, decisions: Collection[int]) -> list[Record]:
        """Return some decisions as they are told, oldest first."""
        rows = await self._tx.rows(_SOME, decisions=list(decisions)) if decisions else []
        return await self._told(rows)

    async def page(self, *, of: Collection[FragmentKey] | None, before: int | None, most: int) -> list[Record]:
        """Return decisions, newest first, about some fragments or about anybody."""
        fragments = None if of is None else [UUID(fragment) for fragment in of]
        return await self._told(await self._tx.rows(_PAGE, fragments=fragments, before=before, most=most))

    async def _told(self, rows: Sequence[Row[Any]]) -> list[Record]:
        if not rows:
            return []
        shown = await self._tx.rows(_SIDES, decisions=[row.decision_id for row in rows], most=_SHOWN)
        shown = await revealed(self._tx, shown, {"value": "fragment_id"})
        sides: dict[tuple[int, int], list[Row[Any]]] = {}
        for row in shown:
            sides.setdefault((row.decision_id, row.side), []).append(row)
        decided = await opened_reasons(self._tx, [(DECIDED, row.reason, row.decided_time_us) for row in rows])
        revoked = await opened_reasons(self._tx, [(REVOKED, row.revoked_reason, row.revoked_time_us) for row in rows])
        return [_record(row, why, sides) for row, why in zip(rows, zip(decided, revoked, strict=True), strict=True)]


def _decisions(rows: Sequence[Any]) -> list[Decision]:
    sides: dict[int, list[list[FragmentKey]]] = {}
    for row in rows:
        of = sides.setdefault(row.decision_id, [[]] if row.kind == DecisionKind.MERGE else [[], [], []])
        of[row.side].append(row.fragment_id.bytes)
    return [Decision(number, tuple(map(tuple, of))) for number, of in sides.items()]


def _record(row: Row[Any], why: tuple[str, str], sides: Mapping[tuple[int, int], list[Row[Any]]]) -> Record:
    kind = DecisionKind(row.kind)
    numbers = (0,) if kind is DecisionKind.MERGE else (0, 1, 2)
    return Record(
        decision_id=row.decision_id,
        kind=kind,
        note=Note(row.actor, why[0], row.decided_time_us),
        revoked=(None if row.revoked_time_us is None else Note(row.revoked_by, why[1], row.revoked_time_us)),
        sides=tuple(_side(sides[row.decision_id, number]) for number in numbers if (row.decision_id, number) in sides),
    )


def _side(rows: Sequence[Row[Any]]) -> Side:
    known = (KnownAs(r.fragment_id.bytes, r.namespace, r.value, r.first_seen_us, r.last_seen_us) for r in rows)
    return Side(tuple(known), rows[0].size)
