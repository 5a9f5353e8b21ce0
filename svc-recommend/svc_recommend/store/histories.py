# SPDX-License-Identifier: Apache-2.0
"""What the refresher reads: changes of histories since it last looked, and whole histories."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.consent import PERSONALIZATION, refused
from chassis.database import Transaction
from sqlalchemy import Row

from svc_recommend.domain.customers import CustomerKey, FragmentKey
from svc_recommend.domain.histories import Changes

_TAKE = """
DELETE FROM history_changes WHERE change_id = ANY (ARRAY(
    SELECT change_id FROM history_changes ORDER BY change_id LIMIT :most
))
RETURNING change_id, fragment_ids, item_ids, weights, last_times_us, moved_fragment_ids, forgotten_fragment_ids
"""

# Who has refused personalisation is read with histories that weigh nothing.
_WHOLE = """
SELECT fragment_id, array_agg(item_id) AS item_ids, array_agg(last_time_us) AS last_times_us,
    array_agg(viewed_weight + wanted_weight + bought_weight + rated_weight) AS weights
FROM interactions WHERE {condition} GROUP BY fragment_id ORDER BY fragment_id LIMIT :most
"""

_NOBODY = bytes(16)


@dataclass(frozen=True)
class Taken:
    """What changed since it was last taken."""

    changes: Changes
    moved: frozenset[FragmentKey]
    """Fragments that belong to another customer now."""
    forgotten: frozenset[FragmentKey]
    """Fragments whose histories are no more."""
    row_count: int


class HistoryStore:
    """Reads histories for the refresher."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def claim(self, holder: str) -> bool:
        """Say who works the neighbourhoods out from now on; tells whether it was the same one before."""
        before = await self._tx.value("SELECT holder FROM refreshers WHERE name = 'neighbourhoods' FOR UPDATE")
        if before == holder:
            return True
        await self._tx.execute("UPDATE refreshers SET holder = :holder WHERE name = 'neighbourhoods'", holder=holder)
        return False

    async def take(self, most: int) -> Taken:
        """Take the oldest noted changes away."""
        rows = sorted(await self._tx.rows(_TAKE, most=most), key=lambda row: row.change_id)
        moved = frozenset(fragment_id.bytes for row in rows for fragment_id in row.moved_fragment_ids)
        forgotten = frozenset(fragment_id.bytes for row in rows for fragment_id in row.forgotten_fragment_ids)
        return Taken(_joined(rows), moved, forgotten, len(rows))

    async def forget_changes(self) -> None:
        """Take all noted changes away, because everything is going to be read."""
        await self._tx.execute("DELETE FROM history_changes")

    async def customers_of(self, fragment_ids: Sequence[FragmentKey]) -> Mapping[FragmentKey, CustomerKey]:
        """Return the customer of each fragment that was ever placed."""
        rows = await self._tx.rows(
            """
            SELECT fragment_id, profile_id FROM fragment_profiles
            WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
            """,
            fragments=[UUID(each) for each in fragment_ids],
        )
        return {row.fragment_id.bytes: row.profile_id.bytes for row in rows}

    async def whole(self, fragment_ids: Sequence[FragmentKey]) -> Changes:
        """Return the whole histories of fragments."""
        condition = "fragment_id = ANY (CAST(:fragments AS uuid[]))"
        return await self._heeding(
            await self._tx.rows(
                _WHOLE.format(condition=condition),
                fragments=[UUID(each) for each in fragment_ids],
                most=len(fragment_ids),
            )
        )

    async def page(self, after: FragmentKey | None, most: int) -> Changes:
        """Return the whole histories of the next fragments by id."""
        condition = "fragment_id > :after" if after else "fragment_id >= :after"
        rows = await self._tx.rows(_WHOLE.format(condition=condition), after=UUID(after or _NOBODY), most=most)
        return await self._heeding(rows)

    async def _heeding(self, rows: Sequence[Row[Any]]) -> Changes:
        """Spread histories; of who has refused personalisation nothing counts."""
        silent = await refused(self._tx, [row.fragment_id for row in rows], PERSONALIZATION)
        return _spread(rows, silent)


def _joined(rows: Sequence[Row[Any]]) -> Changes:
    return Changes(
        [fragment_id.bytes for row in rows for fragment_id in row.fragment_ids],
        [item_id for row in rows for item_id in row.item_ids],
        [weight for row in rows for weight in row.weights],
        [time_us for row in rows for time_us in row.last_times_us],
    )


def _spread(rows: Sequence[Row[Any]], silent: Collection[Any]) -> Changes:
    return Changes(
        [fragment_id for row in rows for fragment_id in [row.fragment_id.bytes] * len(row.item_ids)],
        [item_id for row in rows for item_id in row.item_ids],
        [0 if row.fragment_id in silent else weight for row in rows for weight in row.weights],
        [time_us for row in rows for time_us in row.last_times_us],
    )
