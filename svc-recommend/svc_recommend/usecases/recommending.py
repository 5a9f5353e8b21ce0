# SPDX-License-Identifier: Apache-2.0
"""Recommend from what is in memory and what the customer did until now."""

import asyncio

from chassis.database import Database, Transaction
from chassis.errors import NotFound, Unavailable
from chassis.identity import FragmentId, ProfileId

from svc_recommend.domain import ranking
from svc_recommend.domain.items import ItemId
from svc_recommend.domain.ranking import Similar, Slate, Taste
from svc_recommend.domain.shelf import Shelf
from svc_recommend.store.interactions import InteractionStore
from svc_recommend.store.items import ItemStore
from svc_recommend.store.neighbourhoods import NeighbourhoodStore
from svc_recommend.store.revisions import Position, current_revisions

_LOOK_S = 0.5
_ITEMS_AT_ONCE = 2_000
_NEIGHBOURHOODS_AT_ONCE = 250


async def recommend_items(
    tx: Transaction,
    shelf: Shelf,
    fragment_id: FragmentId,
    *,
    size: int,
    category: str,
    taste: Taste,
    is_impersonal: bool = False,
) -> tuple[ProfileId, Slate]:
    """Recommend to the customer whom a fragment belongs to; one read of what the customer did until now.

    An impersonal answer reads nothing, and is what somebody nobody has heard of would get.
    """
    if is_impersonal:
        return ProfileId(fragment_id), ranking.recommend(shelf, (), size, category, taste)
    profile_id, deeds = await InteractionStore(tx).of_customer(fragment_id)
    return profile_id, ranking.recommend(shelf, deeds, size, category, taste)


def list_similar_items(shelf: Shelf, item_id: ItemId, size: int) -> list[Similar]:
    """Return the items close to an item of the catalogue."""
    place = shelf.find(item_id)
    if place is None or shelf.item(place) is None:
        raise NotFound("there is no such item", metadata={"item_id": item_id})
    return ranking.similar(shelf, item_id, size)


class ShelfKeeper:
    """Keeps the shelf of one process like the database says, reading only what changed."""

    def __init__(self, database: Database) -> None:
        self.shelf = Shelf()
        self._database = database
        self._lock = asyncio.Lock()
        self._items = Position()
        self._neighbourhoods = Position()
        self._is_wanted = self._is_filled = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look for changes now."""
        self._woken.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for changes until stopped."""
        self._is_wanted = True
        while not stopping.is_set():
            await self.update()
            self._is_filled = True
            try:
                await asyncio.wait_for(self._woken.wait(), _LOOK_S)
            except TimeoutError:
                continue
            finally:
                self._woken.clear()

    async def check(self) -> None:
        """Raise `Unavailable` in a process that answers and has not read everything yet."""
        if self._is_wanted and not self._is_filled:
            raise Unavailable("the catalogue is still being read")

    async def update(self) -> None:
        """Take over what changed."""
        async with self._lock, self._database.snapshot() as tx:
            revisions = await current_revisions(tx)
            if revisions["items"] > self._items.revision:
                await self._update_items(tx)
            if revisions["neighbourhoods"] > self._neighbourhoods.revision:
                await self._update_neighbourhoods(tx)
            self.shelf.arrange()

    async def _update_items(self, tx: Transaction) -> None:
        store = ItemStore(tx)
        while (changed := await store.changed(self._items, _ITEMS_AT_ONCE)).position != self._items:
            self.shelf.put_items(changed.items)
            self.shelf.remove_items(changed.deleted)
            self._items = changed.position

    async def _update_neighbourhoods(self, tx: Transaction) -> None:
        store = NeighbourhoodStore(tx)
        at_once = _NEIGHBOURHOODS_AT_ONCE
        while (changed := await store.changed(self._neighbourhoods, at_once)).position != self._neighbourhoods:
            self.shelf.put_neighbourhoods(changed.neighbourhoods)
            self._neighbourhoods = changed.position
