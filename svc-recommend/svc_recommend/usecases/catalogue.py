# SPDX-License-Identifier: Apache-2.0
"""Keep the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chassis.database import Transaction
from chassis.errors import NotFound

from svc_recommend.domain.items import Item, ItemId, check_items
from svc_recommend.store.items import ItemStore


@dataclass(frozen=True)
class Upserted:
    """What became of a batch of items."""

    created_count: int
    updated_count: int


async def upsert_items(tx: Transaction, items: Sequence[Item], now: datetime) -> Upserted:
    """Create or replace items, all or none."""
    check_items(items)
    known = await ItemStore(tx).put(items, now)
    return Upserted(len(items) - known, known)


async def get_item(tx: Transaction, item_id: ItemId) -> Item:
    """Return an item."""
    item = None if _is_no_id(item_id) else await ItemStore(tx).find(item_id)
    if item is None:
        raise NotFound("there is no such item", metadata={"item_id": item_id})
    return item


async def list_items(tx: Transaction, *, after: ItemId, category: str, most: int) -> list[Item]:
    """Return items by id, of one category when one is given."""
    if "\x00" in category or _is_no_id(after):
        return []
    return await ItemStore(tx).page(after=after, category=category, most=most)


async def delete_item(tx: Transaction, item_id: ItemId) -> None:
    """Take an item out of the catalogue."""
    if _is_no_id(item_id) or not await ItemStore(tx).delete(item_id):
        raise NotFound("there is no such item", metadata={"item_id": item_id})


def _is_no_id(text: str) -> bool:
    # PostgreSQL cannot hold the character, so that no item has it in its id.
    return "\x00" in text
