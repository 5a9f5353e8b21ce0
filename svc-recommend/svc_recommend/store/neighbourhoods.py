# SPDX-License-Identifier: Apache-2.0
"""Neighbourhoods: written by the refresher, read by every process that answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from chassis.database import Transaction

from svc_recommend.domain.items import ItemId
from svc_recommend.domain.neighbours import Neighbourhood
from svc_recommend.store.revisions import Position, next_revision

_PUT = """
INSERT INTO neighbourhoods AS n (item_id, popularity, neighbours, revision)
SELECT item_id, popularity, CAST(neighbours AS jsonb), :revision FROM unnest(
    CAST(:item_ids AS text[]), CAST(:popularities AS float8[]), CAST(:neighbours AS text[])
) AS g (item_id, popularity, neighbours)
ORDER BY item_id COLLATE "C"
ON CONFLICT (item_id) DO UPDATE SET
    popularity = excluded.popularity, neighbours = excluded.neighbours, revision = excluded.revision
"""

_CHANGED = """
SELECT item_id, popularity, CAST(neighbours AS text) AS neighbours, revision FROM neighbourhoods
WHERE (revision, item_id) > (:revision, :item_id) ORDER BY revision, item_id LIMIT :most
"""

# An item that nobody deals with any more is in no history, so nobody would find its neighbourhood due.
_EMPTY_ORPHANS = """
UPDATE neighbourhoods AS n SET popularity = NULL, neighbours = '[[], [], []]', revision = :revision
WHERE popularity IS NOT NULL AND NOT EXISTS (SELECT FROM interactions i WHERE i.item_id = n.item_id)
"""

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(tuple[list[ItemId], list[float], list[int]]).decode
"""Ids, similarities, counts: as columns they are read without an object for each neighbour."""


@dataclass(frozen=True)
class ChangedNeighbourhoods:
    """A piece of the neighbourhoods that changed."""

    neighbourhoods: Sequence[Neighbourhood]
    position: Position


class NeighbourhoodStore:
    """Keeps the neighbourhood of each item."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, neighbourhoods: Sequence[Neighbourhood]) -> None:
        """Replace the neighbourhoods of items."""
        if not neighbourhoods:
            return
        await self._tx.execute(
            _PUT,
            item_ids=[each.item_id for each in neighbourhoods],
            popularities=[each.popularity for each in neighbourhoods],
            neighbours=[
                _encode((each.neighbour_ids, each.similarities, each.customer_counts)).decode()
                for each in neighbourhoods
            ],
            revision=await next_revision(self._tx, "neighbourhoods"),
        )

    async def empty_orphans(self) -> None:
        """Let items that nobody deals with any more have no neighbours."""
        await self._tx.execute(_EMPTY_ORPHANS, revision=await next_revision(self._tx, "neighbourhoods"))

    async def changed(self, since: Position, most: int) -> ChangedNeighbourhoods:
        """Return what was written after a position, oldest change first."""
        rows = await self._tx.rows(_CHANGED, revision=since.revision, item_id=since.item_id, most=most)
        found = [Neighbourhood(ItemId(row.item_id), row.popularity, *_decode(row.neighbours)) for row in rows]
        return ChangedNeighbourhoods(found, Position(rows[-1].revision, rows[-1].item_id) if rows else since)
