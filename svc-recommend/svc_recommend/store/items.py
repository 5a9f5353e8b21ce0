# SPDX-License-Identifier: Apache-2.0
"""The catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from chassis.database import Transaction
from sqlalchemy import Row

from svc_recommend.domain.items import Item, ItemId
from svc_recommend.store.revisions import Position, next_revision

_COLUMNS = """
    item_id, title, categories, price, currency, url, image_url, hidden,
    CAST(attributes AS text) AS attributes, updated_time
"""

# Categories travel as JSON, because unnest flattens an array of arrays. A row that was deleted is new when it comes
# back. Sorted, so that two callers never wait for each other in a circle.
_PUT = """
WITH given AS (
    SELECT item_id, title, price, currency, url, image_url, hidden, CAST(attributes AS jsonb) AS attributes,
        ARRAY(SELECT jsonb_array_elements_text(CAST(categories AS jsonb))) AS categories
    FROM unnest(
        CAST(:item_ids AS text[]), CAST(:titles AS text[]), CAST(:categories AS text[]), CAST(:prices AS float8[]),
        CAST(:currencies AS text[]), CAST(:urls AS text[]), CAST(:image_urls AS text[]), CAST(:hidden AS boolean[]),
        CAST(:attributes AS text[])
    ) AS g (item_id, title, categories, price, currency, url, image_url, hidden, attributes)
), known AS (
    SELECT count(*) AS count FROM items JOIN given USING (item_id) WHERE NOT items.deleted
), written AS (
    INSERT INTO items AS i (
        item_id, title, categories, price, currency, url, image_url, hidden, attributes, deleted, updated_time, revision
    )
    SELECT item_id, title, categories, price, currency, url, image_url, hidden, attributes, false, :now, :revision
    FROM given ORDER BY item_id COLLATE "C"
    ON CONFLICT (item_id) DO UPDATE SET
        title = excluded.title, categories = excluded.categories, price = excluded.price, currency = excluded.currency,
        url = excluded.url, image_url = excluded.image_url, hidden = excluded.hidden, attributes = excluded.attributes,
        deleted = false, updated_time = excluded.updated_time, revision = excluded.revision
)
SELECT count FROM known
"""

_DELETE = """
UPDATE items SET deleted = true, title = '', categories = '{}', url = '', image_url = '', attributes = '{}',
    revision = :revision
WHERE item_id = :item_id AND NOT deleted
"""

_PAGE = f"""
SELECT {_COLUMNS} FROM items
WHERE NOT deleted AND item_id > :after AND (:category = '' OR categories @> ARRAY[CAST(:category AS text)])
ORDER BY item_id LIMIT :most
"""  # noqa: S608  the columns are the ones above

_CHANGED = f"""
SELECT {_COLUMNS}, deleted, revision FROM items
WHERE (revision, item_id) > (:revision, :item_id) ORDER BY revision, item_id LIMIT :most
"""  # noqa: S608  the columns are the ones above

_encode = msgspec.json.encode


@dataclass(frozen=True)
class ChangedItems:
    """A piece of what changed in the catalogue."""

    items: Sequence[Item]
    deleted: Sequence[ItemId]
    position: Position


class ItemStore:
    """Keeps the catalogue; what was deleted leaves a mark, so that every process hears of it."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, items: Sequence[Item], now: datetime) -> int:
        """Create or replace items; return how many there were already."""
        # The revision first: its row lock lets one writer at a time in, so that the count is right too.
        revision = await next_revision(self._tx, "items")
        known: int = await self._tx.value(
            _PUT,
            item_ids=[item.item_id for item in items],
            titles=[item.title for item in items],
            categories=[_encode(item.categories).decode() for item in items],
            prices=[item.price for item in items],
            currencies=[item.currency for item in items],
            urls=[item.url for item in items],
            image_urls=[item.image_url for item in items],
            hidden=[item.hidden for item in items],
            attributes=[item.attributes for item in items],
            now=now,
            revision=revision,
        )
        return known

    async def find(self, item_id: ItemId) -> Item | None:
        """Return an item of the catalogue."""
        row = await self._tx.row(
            f"SELECT {_COLUMNS} FROM items WHERE item_id = :item_id AND NOT deleted",  # noqa: S608
            item_id=item_id,
        )
        return None if row is None else _item(row)

    async def page(self, *, after: ItemId, category: str, most: int) -> list[Item]:
        """Return items by id, of one category when one is given."""
        return [_item(row) for row in await self._tx.rows(_PAGE, after=after, category=category, most=most)]

    async def delete(self, item_id: ItemId) -> bool:
        """Take an item out of the catalogue; tells whether it was in it."""
        revision = await next_revision(self._tx, "items")
        return await self._tx.execute(_DELETE, item_id=item_id, revision=revision) > 0

    async def changed(self, since: Position, most: int) -> ChangedItems:
        """Return what was written after a position, oldest change first."""
        rows = await self._tx.rows(_CHANGED, revision=since.revision, item_id=since.item_id, most=most)
        return ChangedItems(
            [_item(row) for row in rows if not row.deleted],
            [ItemId(row.item_id) for row in rows if row.deleted],
            Position(rows[-1].revision, rows[-1].item_id) if rows else since,
        )


def _item(row: Row[Any]) -> Item:
    return Item(
        item_id=ItemId(row.item_id),
        title=row.title,
        categories=tuple(row.categories),
        price=row.price,
        currency=row.currency,
        url=row.url,
        image_url=row.image_url,
        hidden=row.hidden,
        attributes=row.attributes,
        updated_time=row.updated_time,
    )
