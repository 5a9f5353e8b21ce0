# SPDX-License-Identifier: Apache-2.0
"""Catalogue, popularity and neighbourhoods in the memory of a process that answers, laid out for fast reading."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svc_recommend.domain.items import Item, ItemId
from svc_recommend.domain.neighbours import Neighbourhood

Places = NDArray[np.int64]
"""Places of items on the shelf."""

NOBODY = -np.inf
"""Popularity of an item that nobody is interested in."""


@dataclass(frozen=True, slots=True)
class Close:
    """The neighbours of one item by their places, closest first."""

    places: NDArray[np.int32]
    similarities: NDArray[np.float32]
    customer_counts: NDArray[np.int32]


class Shelf:
    """What can be recommended now."""

    def __init__(self) -> None:
        self._place_of: dict[ItemId, int] = {}
        self._ids: list[ItemId] = []
        self._items: list[Item | None] = []
        self._close: list[Close | None] = []
        self._visible = np.zeros(1024, bool)
        self._popularity = np.full(1024, NOBODY)
        self._id_ranks = np.zeros(0, np.int64)
        self._members: dict[str, Places] = {}
        self._popular: Places = np.zeros(0, np.int64)
        self._popular_by_category: dict[str, Places] = {}
        self._incoming: dict[int, Item | None] = {}
        self._popularity_changed = False

    def put_items(self, items: Iterable[Item]) -> None:
        """Take items over from the catalogue, from the next `arrange` on."""
        for item in items:
            self._incoming[self._place(item.item_id)] = item

    def remove_items(self, item_ids: Iterable[ItemId]) -> None:
        """Take items that left the catalogue off the shelf; what was learnt about them stays."""
        for item_id in item_ids:
            self._incoming[self._place(item_id)] = None

    def put_neighbourhoods(self, neighbourhoods: Iterable[Neighbourhood]) -> None:
        """Take over what was learnt about items, in the catalogue or not."""
        for neighbourhood in neighbourhoods:
            place = self._place(neighbourhood.item_id)
            self._popularity[place] = NOBODY if neighbourhood.popularity is None else neighbourhood.popularity
            self._close[place] = self._pack(neighbourhood)
            self._popularity_changed = True

    def _pack(self, neighbourhood: Neighbourhood) -> Close | None:
        if not neighbourhood.neighbour_ids:
            return None
        return Close(
            np.array([self._place(item_id) for item_id in neighbourhood.neighbour_ids], np.int32),
            np.array(neighbourhood.similarities, np.float32),
            np.array(neighbourhood.customer_counts, np.int32),
        )

    def arrange(self) -> None:
        """Put everything in order after changes."""
        if not self._incoming and not self._popularity_changed:
            return
        if self._incoming:
            self._arrange_items()
        count = len(self._ids)
        known = np.flatnonzero(self._visible[:count] & (self._popularity[:count] > NOBODY))
        self._popular = known[np.lexsort((self._id_ranks[known], -self._popularity[known]))]
        self._popular_by_category = {}
        self._popularity_changed = False

    def _arrange_items(self) -> None:
        for place, item in self._incoming.items():
            self._items[place] = item
            self._visible[place] = item is not None and not item.hidden
        self._incoming = {}
        in_order = [place for place, item in enumerate(self._items) if item is not None]
        in_order.sort(key=self._ids.__getitem__)
        self._id_ranks = np.zeros(len(self._visible), np.int64)
        self._id_ranks[in_order] = np.arange(len(in_order))
        members: dict[str, list[int]] = {}
        for place in in_order:
            for category in dict.fromkeys(self._item(place).categories):
                members.setdefault(category, []).append(place)
        self._members = {category: np.array(places, np.int64) for category, places in members.items()}

    def __len__(self) -> int:
        return len(self._ids)

    def find(self, item_id: ItemId) -> int | None:
        """Return the place of an item, also of one that is not in the catalogue; None when nobody heard of it."""
        return self._place_of.get(item_id)

    def item(self, place: int) -> Item | None:
        """Return the item at a place; None when it is not in the catalogue."""
        return self._items[place]

    def close_to(self, place: int) -> Close | None:
        """Return the neighbours of the item at a place."""
        return self._close[place]

    def popularity(self, places: Places) -> NDArray[np.float64]:
        """Return how popular items are, as a base-2 logarithm."""
        return self._popularity[places]

    def by_id(self, places: Places) -> NDArray[np.int64]:
        """Return numbers that sort items of the catalogue by id."""
        return self._id_ranks[places]

    def offered(self, category: str) -> NDArray[np.bool_]:
        """Return which places may be recommended: in the catalogue, not hidden, of the category if one is given."""
        count = len(self._ids)
        if not category:
            return self._visible[:count].copy()
        offered = np.zeros(count, bool)
        members = self._members.get(category)
        if members is not None:
            offered[members] = self._visible[members]
        return offered

    def popular(self, category: str) -> Places:
        """Return the places of visible items that customers are interested in, most popular first, ties by id."""
        if not category:
            return self._popular
        popular = self._popular_by_category.get(category)
        if popular is None:
            members = self._members.get(category, np.zeros(0, np.int64))
            popular = self._popular[np.isin(self._popular, members)]
            self._popular_by_category[category] = popular
        return popular

    def _item(self, place: int) -> Item:
        item = self._items[place]
        if item is None:
            raise LookupError(f"no item at place {place}")
        return item

    def _place(self, item_id: ItemId) -> int:
        place = self._place_of.get(item_id)
        if place is None:
            place = self._place_of[item_id] = len(self._ids)
            self._ids.append(item_id)
            self._items.append(None)
            self._close.append(None)
            if place == len(self._visible):
                self._visible = np.concatenate([self._visible, np.zeros_like(self._visible)])
                self._popularity = np.concatenate([self._popularity, np.full_like(self._popularity, NOBODY)])
        return place
