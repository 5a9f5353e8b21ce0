# SPDX-License-Identifier: Apache-2.0
"""What customers did with items, read from their events and summed so that no order of the events matters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec

from svc_recommend.domain.customers import FragmentKey
from svc_recommend.domain.items import MAX_ID_LENGTH, ItemId

THOUSANDTHS = 1000
"""Weights are summed as whole thousandths: sums of integers are the same in every order."""

MAX_WEIGHT = 1000.0
MAX_DIGITS = 30


class Kind(IntEnum):
    """What a customer did with an item; the number is its column in an `Interactions` row."""

    VIEWED = 0
    """Looked at it: viewed, clicked, shared."""
    WANTED = 1
    """Meant to have it: cart and wishlist, in and out."""
    BOUGHT = 2
    """Bought it, or gave it back."""
    RATED = 3
    """Said how good it is: the weight counts in full for 5 stars, not at all for 3, against the item for 1."""


@dataclass(frozen=True)
class EventWeight:
    """What one kind of event says about a customer's interest in an item."""

    kind: Kind
    weight: float
    """Below 0 when it speaks against the item."""


DEFAULT_WEIGHTS: Mapping[str, EventWeight] = {
    "Product Viewed": EventWeight(Kind.VIEWED, 1),
    "Product Clicked": EventWeight(Kind.VIEWED, 1),
    "Product Shared": EventWeight(Kind.VIEWED, 2),
    "Product Added": EventWeight(Kind.WANTED, 3),
    "Product Removed": EventWeight(Kind.WANTED, -3),
    "Product Added to Wishlist": EventWeight(Kind.WANTED, 2),
    "Product Removed from Wishlist": EventWeight(Kind.WANTED, -2),
    "Wishlist Product Added to Cart": EventWeight(Kind.WANTED, 3),
    "Order Completed": EventWeight(Kind.BOUGHT, 5),
    "Order Refunded": EventWeight(Kind.BOUGHT, -5),
    "Order Cancelled": EventWeight(Kind.BOUGHT, -5),
    "Product Reviewed": EventWeight(Kind.RATED, 3),
    "Product Rated": EventWeight(Kind.RATED, 3),
}
"""Events of the Segment e-commerce specification (v2) that name items; not lists, because to be shown is not to act."""


@dataclass(slots=True)
class Interactions:
    """All that one fragment of a customer did with one item. Adding up is commutative and associative."""

    weights: list[int]
    """Summed thousandths by `Kind`."""
    first_time_us: int
    last_time_us: int
    viewed_time_us: int | None = None
    """When it was last viewed."""
    bought_time_us: int | None = None
    """When it was last bought."""

    def add(self, kind: Kind, weight: int, time_us: int) -> None:
        """Add one event."""
        self.weights[kind] += weight
        if time_us < self.first_time_us:
            self.first_time_us = time_us
        elif time_us > self.last_time_us:
            self.last_time_us = time_us
        if weight > 0 and kind is _VIEWED:
            self.viewed_time_us = _later(self.viewed_time_us, time_us)
        elif weight > 0 and kind is _BOUGHT:
            self.bought_time_us = _later(self.bought_time_us, time_us)


def _later(known: int | None, time_us: int) -> int:
    return time_us if known is None else max(known, time_us)


_VIEWED, _BOUGHT, _RATED = Kind.VIEWED, Kind.BOUGHT, Kind.RATED
"""Looked up once: an attribute of an enumeration costs as much as a sum."""


class Learner:
    """Sums the interactions of a batch of events, by fragment and item."""

    def __init__(self, weights: Mapping[str, EventWeight]) -> None:
        self._weights = {
            name: (given.kind, round(given.weight * THOUSANDTHS)) for name, given in weights.items() if given.weight
        }
        self.learnt: dict[tuple[FragmentKey, ItemId], Interactions] = {}

    def heeds(self, event_name: str) -> bool:
        """Tell whether events of this name teach anything."""
        return event_name in self._weights

    def learn(self, fragment_id: FragmentKey, event_name: str, properties: bytes, time_us: int) -> None:
        """Add one event of a name that is heeded; properties that cannot be read teach nothing."""
        kind, weight = self._weights[event_name]
        for item_id, rating in read_properties(properties):
            summed = self.learnt.get((fragment_id, item_id))
            if summed is None:
                summed = self.learnt[fragment_id, item_id] = Interactions([0, 0, 0, 0], time_us, time_us)
            summed.add(kind, weight if kind is not _RATED else round(weight * rating), time_us)


def taught(weights: Mapping[str, EventWeight], event_name: str, properties: bytes) -> list[tuple[ItemId, Kind, float]]:
    """Return what one event teaches: items, what was done with each, and what that adds to the interest in it."""
    learner = Learner(weights)
    if not learner.heeds(event_name):
        return []
    learner.learn(b"", event_name, properties, 0)
    return [
        (item_id, kind, weight / THOUSANDTHS)
        for (_, item_id), summed in learner.learnt.items()
        for kind, weight in zip(Kind, summed.weights, strict=True)
        if weight
    ]


class _Properties(msgspec.Struct):
    product_id: Any = None
    sku: Any = None
    item_id: Any = None
    products: Any = None
    rating: Any = None


_decode = msgspec.json.Decoder(_Properties).decode


def read_properties(data: bytes) -> Sequence[tuple[ItemId, float]]:
    """Return the items that an event names, each once, with what its rating says, from -1 to 1."""
    if not data:
        return ()
    try:
        properties = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    item_id = _first_id((properties.product_id, properties.sku, properties.item_id))
    rating = 0.0 if properties.rating is None else _approval(properties.rating)
    if not isinstance(properties.products, list):
        return ((item_id, rating),) if item_id else ()
    ids = dict.fromkeys(_ids(item_id, properties.products))
    return [(each, rating) for each in ids]


def _ids(item_id: ItemId | None, products: Sequence[Any]) -> Iterator[ItemId]:
    if item_id:
        yield item_id
    for product in products:
        if isinstance(product, dict):
            found = _first_id((product.get("product_id"), product.get("sku"), product.get("item_id")))
            if found:
                yield found


def _first_id(values: Sequence[Any]) -> ItemId | None:
    """Return the first usable id; numbers are taken as their digits, because many shops send them so."""
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MAX_DIGITS:
            value = str(value)
        if isinstance(value, str):
            text = value.strip()
            if 0 < len(text) <= MAX_ID_LENGTH and "\x00" not in text:
                return ItemId(text)
    return None


def _approval(value: Any) -> float:
    """Put stars on a scale from -1 (one star) over 0 (three) to 1 (five); 0 for what is no rating."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0.0
    try:
        stars = float(value)
    except (ValueError, OverflowError):
        return 0.0
    return min(max((stars - 3) / 2, -1.0), 1.0) if math.isfinite(stars) else 0.0
