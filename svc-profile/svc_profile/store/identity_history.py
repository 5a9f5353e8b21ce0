# SPDX-License-Identifier: Apache-2.0
"""How a customer became one person, and what people decided about it, newest first."""

from collections.abc import Collection

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.timeline import DecisionMade, LinkMade
from svc_profile.store.sealed import DECIDED, REVOKED, opened_reasons, revealed

# Fragments that nobody is known by are of the machine. A pair has one link, whatever number of events speak for it.
_LINKS = """
SELECT l.child, l.parent, l.rule, l.claim_time_us, c.namespace, c.value,
    p.namespace AS parent_namespace, p.value AS parent_value
FROM links l JOIN fragments c ON c.fragment_id = l.child JOIN fragments p ON p.fragment_id = l.parent
WHERE l.eligible AND c.namespace <> :derived
    AND l.child = ANY (CAST(:fragments AS uuid[])) AND l.parent = ANY (CAST(:fragments AS uuid[]))
    AND (CAST(:before_us AS bigint) IS NULL
        OR (l.claim_time_us, l.child, l.parent)
            < (CAST(:before_us AS bigint), CAST(:child AS uuid), CAST(:parent AS uuid)))
ORDER BY l.claim_time_us DESC, l.child DESC, l.parent DESC LIMIT :most
"""

_DECISIONS = """
WITH about AS (
    SELECT DISTINCT decision_id FROM decision_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
), steps AS (
    SELECT decision_id, kind, false AS revoked, actor, reason, decided_time_us AS time_us
    FROM identity_decisions JOIN about USING (decision_id)
    UNION ALL
    SELECT decision_id, kind, true, revoked_by, revoked_reason, revoked_time_us
    FROM identity_decisions JOIN about USING (decision_id) WHERE revoked_time_us IS NOT NULL
)
SELECT * FROM steps
WHERE CAST(:before_us AS bigint) IS NULL
    OR (time_us, decision_id, revoked)
        < (CAST(:before_us AS bigint), CAST(:decision AS bigint), CAST(:revoked AS boolean))
ORDER BY time_us DESC, decision_id DESC, revoked DESC LIMIT :most
"""


class IdentityHistoryStore:
    """Reads how a customer came together."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def links(
        self,
        fragments: Collection[FragmentKey],
        *,
        before: tuple[int, FragmentKey, FragmentKey] | None,
        most: int,
    ) -> list[LinkMade]:
        """Return the links inside a customer, before a position (time, child, parent)."""
        rows = await self._tx.rows(
            _LINKS,
            derived=DERIVED,
            fragments=[UUID(fragment) for fragment in fragments],
            before_us=before[0] if before else None,
            child=UUID(before[1]) if before else None,
            parent=UUID(before[2]) if before else None,
            most=most,
        )
        rows = await revealed(self._tx, rows, {"value": "child", "parent_value": "parent"})
        return [
            LinkMade(
                child=row.child.bytes,
                parent=row.parent.bytes,
                rule=row.rule,
                identifier=(row.namespace, row.value),
                linked_to=(row.parent_namespace, row.parent_value),
                claim_time_us=row.claim_time_us,
            )
            for row in rows
        ]

    async def decisions(
        self, fragments: Collection[FragmentKey], *, before: tuple[int, int, bool] | None, most: int
    ) -> list[DecisionMade]:
        """Return what was decided about a customer and taken back, before a position (time, decision, taken back)."""
        rows = await self._tx.rows(
            _DECISIONS,
            fragments=[UUID(fragment) for fragment in fragments],
            before_us=before[0] if before else None,
            decision=before[1] if before else None,
            revoked=before[2] if before else None,
            most=most,
        )
        reasons = await opened_reasons(
            self._tx, [(REVOKED if row.revoked else DECIDED, row.reason, row.time_us) for row in rows]
        )
        return [
            DecisionMade(row.decision_id, row.kind, row.revoked, row.actor or "", reason, row.time_us)
            for row, reason in zip(rows, reasons, strict=True)
        ]
