# SPDX-License-Identifier: Apache-2.0
"""What people decided about identity. Written under the identity lock only."""

from collections.abc import Collection, Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.decisions import Decision, DecisionKind
from svc_profile.domain.events import FragmentKey

_ABOUT = """
SELECT m.decision_id, m.fragment_id, m.side, d.kind
FROM decision_members m JOIN identity_decisions d USING (decision_id)
WHERE m.fragment_id = ANY (CAST(:fragments AS uuid[])) AND m.is_active
ORDER BY m.decision_id, m.fragment_id
"""


class DecisionStore:
    """Keeps decisions, those that stand and those that were revoked."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def about(self, fragments: Collection[FragmentKey]) -> list[Decision]:
        """Return the decisions that stand about some fragments, as far as these are concerned."""
        if not fragments:
            return []
        return _decisions(await self._tx.rows(_ABOUT, fragments=[UUID(fragment) for fragment in fragments]))


def _decisions(rows: Sequence[Any]) -> list[Decision]:
    sides: dict[int, list[list[FragmentKey]]] = {}
    for row in rows:
        of = sides.setdefault(row.decision_id, [[]] if row.kind == DecisionKind.MERGE else [[], []])
        of[row.side].append(row.fragment_id.bytes)
    return [Decision(number, tuple(map(tuple, of))) for number, of in sides.items()]
