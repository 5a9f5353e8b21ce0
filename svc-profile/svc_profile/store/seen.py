# SPDX-License-Identifier: Apache-2.0
"""Which events were seen before: the one judge of duplicates on the platform."""

from collections.abc import Mapping

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

# Keys go in in their order, so that two replicas with the same duplicates never wait for each other in a circle.
# The answer names only the keys that were there already: hardly any.
_REMEMBER = """
WITH given AS (
    SELECT * FROM unnest(CAST(:keys AS uuid[]), CAST(:batches AS uuid[])) AS g (event_key, batch_id)
), fresh AS (
    INSERT INTO seen_messages (event_key, batch_id) SELECT event_key, batch_id FROM given ORDER BY event_key
    ON CONFLICT DO NOTHING RETURNING event_key
)
SELECT event_key FROM given WHERE event_key NOT IN (SELECT event_key FROM fresh)
"""

# A statement of its own: it sees what another replica has committed while the first one waited for it.
_FOUND = "SELECT event_key, batch_id FROM seen_messages WHERE event_key = ANY (CAST(:keys AS uuid[]))"

_FORGET = """
DELETE FROM seen_messages WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM seen_messages WHERE seen_day < current_date - CAST(:days AS integer) LIMIT :most
))
"""


class SeenStore:
    """Remembers events by key, and the message that each came in."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def remember(self, batch_of: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Remember the batch of each event key; return the keys that were known already, with their batch."""
        keys = sorted(batch_of)
        batches = {batch: UUID(batch) for batch in set(batch_of.values())}
        rows = await self._tx.rows(
            _REMEMBER, keys=[UUID(key) for key in keys], batches=[batches[batch_of[key]] for key in keys]
        )
        if not rows:
            return {}
        found = await self._tx.rows(_FOUND, keys=[row[0] for row in rows])
        return {row.event_key.bytes: row.batch_id.bytes for row in found}

    async def forget(self, *, days: int, most: int) -> int:
        """Forget what was seen more than some days ago; returns how many were forgotten, at most `most`."""
        return await self._tx.execute(_FORGET, days=days, most=most)
