# SPDX-License-Identifier: Apache-2.0
"""Links that were refused because they would have joined two people, until somebody decides about them."""

from collections.abc import Collection
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.claims import Pair
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.evidence import confidence
from svc_profile.domain.identity import Conflict
from svc_profile.domain.profiles import KnownAs
from svc_profile.store.sealed import revealed

_CONFLICTS = """
SELECT l.child, l.parent, l.parent_namespace, l.rule, l.source, l.message_id, l.claim_time_us,
    f.namespace, f.value, f.first_seen_us, f.last_seen_us,
    coalesce(c.profile_id, l.child) AS profile_id, coalesce(p.profile_id, l.parent) AS claiming_profile_id
FROM links l
JOIN fragments f ON f.fragment_id = l.child
LEFT JOIN fragment_profiles c ON c.fragment_id = l.child
LEFT JOIN fragment_profiles p ON p.fragment_id = l.parent
WHERE l.refused
    AND coalesce(c.profile_id, l.child) <> coalesce(p.profile_id, l.parent)
    AND (CAST(:before_us AS bigint) IS NULL
        OR l.claim_time_us < :before_us
        OR (l.claim_time_us = :before_us AND (l.child, l.parent) > (CAST(:child AS uuid), CAST(:parent AS uuid))))
    AND NOT EXISTS (
        SELECT FROM decision_members a JOIN decision_members b USING (decision_id)
        WHERE a.fragment_id = l.child AND b.fragment_id = l.parent AND a.side + b.side = 1 AND a.is_active
    )
    {of_profile}
ORDER BY l.claim_time_us DESC, l.child, l.parent LIMIT :most
"""

_OF_PAIR = "AND l.child = :child AND l.parent = :parent"

_OF_PROFILE = """
    AND (l.child = ANY (CAST(:fragments AS uuid[])) OR l.parent = ANY (CAST(:fragments AS uuid[])))
"""


class ConflictStore:
    """Reads conflicts."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def page(
        self,
        *,
        of: Collection[FragmentKey] | None,
        before: tuple[int, FragmentKey, FragmentKey] | None,
        most: int,
    ) -> list[Conflict]:
        """Return refused links between different people, newest claim first, after a position of the list."""
        rows = await self._tx.rows(
            _CONFLICTS.format(of_profile="" if of is None else _OF_PROFILE),
            before_us=before[0] if before else None,
            child=UUID(before[1]) if before else None,
            parent=UUID(before[2]) if before else None,
            most=most,
            **({} if of is None else {"fragments": [UUID(fragment) for fragment in of]}),
        )
        return [_conflict(row) for row in await revealed(self._tx, rows, {"value": "child"})]

    async def find(self, pair: Pair) -> Conflict | None:
        """Return the conflict about a pair, None when there is none or somebody has decided about it."""
        child, parent = (UUID(end) for end in pair)
        sql = _CONFLICTS.format(of_profile=_OF_PAIR)
        row = await self._tx.row(sql, before_us=None, child=child, parent=parent, most=1)
        return None if row is None else _conflict(row)


def _conflict(row: Any) -> Conflict:
    return Conflict(
        identifier=KnownAs(row.child.bytes, row.namespace, row.value, row.first_seen_us, row.last_seen_us),
        profile=row.profile_id.bytes,
        claiming_profile=row.claiming_profile_id.bytes,
        rule=row.rule,
        source=row.source,
        message_id=row.message_id,
        claim_time_us=row.claim_time_us,
        pair=(row.child.bytes, row.parent.bytes),
        confidence=confidence(row.rule, row.namespace, row.parent_namespace),
    )
