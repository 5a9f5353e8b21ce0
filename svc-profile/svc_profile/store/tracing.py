# SPDX-License-Identifier: Apache-2.0
"""What only the truth call asks: where an event may have come from, and what it is evidence for."""

from collections.abc import Collection

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.traces import LinkMade

_SOURCES = """
SELECT DISTINCT source FROM tracked_events
UNION SELECT source FROM rejected_events WHERE message_id = :message_id
"""

# Every link of an event has one of the event's own fragments as parent.
_EVIDENCE = """
SELECT child_namespace, parent_namespace, rule, refused FROM links
WHERE parent = ANY (CAST(:fragments AS uuid[])) AND event_key = :event_key
ORDER BY child_namespace, parent_namespace
"""


class TraceStore:
    """Looks for traces of events."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def sources(self, message_id: str) -> set[str]:
        """Return the sources of all events that were ever resolved, and of rejected ones with a message id."""
        return {row.source for row in await self._tx.rows(_SOURCES, message_id=message_id)}

    async def evidence(self, event_key: bytes, fragments: Collection[FragmentKey]) -> list[LinkMade]:
        """Return the links between the fragments of an event that rest on it."""
        rows = await self._tx.rows(
            _EVIDENCE, event_key=UUID(event_key), fragments=[UUID(fragment) for fragment in fragments]
        )
        return [LinkMade(row.child_namespace, row.parent_namespace, row.rule, row.refused) for row in rows]
