# SPDX-License-Identifier: Apache-2.0
"""Which messages brought events that were known already: nothing is learnt from those, and somebody may ask why."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.traces import Repeated

# A message that is delivered once more has said so before.
_PUT = """
INSERT INTO repetitions (event_key, batch_id, received_time_us)
SELECT * FROM unnest(CAST(:keys AS uuid[]), CAST(:batches AS uuid[]), CAST(:times AS bigint[]))
ON CONFLICT DO NOTHING
"""

_OF = """
SELECT event_key, count(*) AS message_count, max(received_time_us) AS last_us FROM repetitions
WHERE event_key = ANY (CAST(:keys AS uuid[])) GROUP BY event_key
"""

_FORGET = """
DELETE FROM repetitions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM repetitions WHERE seen_day < current_date - CAST(:days AS integer) LIMIT :most
))
"""


class Repetition(NamedTuple):
    """An event that a message brought, though an earlier one had, or the same one at an earlier position."""

    event_key: bytes
    batch_id: bytes
    received_time_us: int


class RepetitionStore:
    """Remembers repetitions: each message once for each event, however often it is delivered."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, repetitions: Iterable[Repetition]) -> None:
        """Remember some; in their order, so that two who do the same wait for each other in a line."""
        ordered = sorted(repetitions)
        if ordered:
            await self._tx.execute(
                _PUT,
                keys=[UUID(each.event_key) for each in ordered],
                batches=[UUID(each.batch_id) for each in ordered],
                times=[each.received_time_us for each in ordered],
            )

    async def of(self, event_keys: Iterable[bytes]) -> Mapping[bytes, Repeated]:
        """Return how often events came again, by key; of one that did not, nothing."""
        rows = await self._tx.rows(_OF, keys=[UUID(key) for key in event_keys])
        return {row.event_key.bytes: Repeated(row.message_count, row.last_us) for row in rows}

    async def forget(self, *, days: int, most: int) -> int:
        """Forget what was seen more than some days ago; returns how many, at most `most`."""
        return await self._tx.execute(_FORGET, days=days, most=most)
