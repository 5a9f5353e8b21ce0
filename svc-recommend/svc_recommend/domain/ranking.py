# SPDX-License-Identifier: Apache-2.0
"""Choose what to recommend to one customer, from what the customer did and what is on the shelf."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svc_recommend.domain.interactions import THOUSANDTHS
from svc_recommend.domain.interests import DAY_US
from svc_recommend.domain.items import Item, ItemId
from svc_recommend.domain.reasons import ReasonType
from svc_recommend.domain.shelf import Close, Places, Shelf


@dataclass(frozen=True, slots=True)
class Deed:
    """What one customer did with one item, over all fragments."""

    item_id: ItemId
    weight: int
    """Summed weight in thousandths."""
    last_time_us: int
    bought: bool

    def joined(self, other: "Deed") -> "Deed":
        """Return this and what was done with the same item under another fragment."""
        return Deed(
            self.item_id,
            self.weight + other.weight,
            max(self.last_time_us, other.last_time_us),
            self.bought or other.bought,
        )


@dataclass(frozen=True)
class Taste:
    """How a customer's interactions are weighed; the defaults were tuned by `bench/recommend_quality.py`."""

    most_sources: int = 50
    """Latest items of the customer that lead to recommendations."""
    half_life_days: float = 30.0
    """After how long before the customer's latest interaction another one counts half."""
    popularity_power: float = 0.5
    """Exponent with which an item's popularity counts: 0 not at all, 1 as much as its similarity."""
    source_share: float = 0.5
    """Largest share of the answer that one source may lead to while there is anything else."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item and why."""

    item: Item
    score: float
    """Falls from one recommendation to the next; comparable within one answer only."""
    reason: ReasonType
    source: Item | None
    """The customer's own item that led to it; None for a popular one."""


@dataclass(frozen=True, slots=True)
class Similar:
    """An item close to another."""

    item: Item
    similarity: float
    """From 0 to 1."""
    customer_count: int
    """Customers who dealt with both."""


@dataclass(frozen=True, slots=True)
class Slate:
    """Recommendations for one customer."""

    recommendations: tuple[Recommendation, ...]
    """Best first."""
    personalized: bool
    """Whether it depends on what this customer did."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: int
    score: float
    source: int


@dataclass(frozen=True, slots=True)
class _Source:
    place: int
    close: Close
    strength: float
    bought: bool


def recommend(shelf: Shelf, deeds: Sequence[Deed], size: int, category: str, taste: Taste) -> Slate:
    """Return up to `size` items that the customer has not dealt with: similar ones first, then popular ones.

    Equal scores are ordered by id, so that equal knowledge gives equal answers.
    """
    known = [place for deed in deeds if (place := shelf.find(deed.item_id)) is not None]
    offered = shelf.offered(category)
    offered[known] = False
    sources = _sources(shelf, deeds, taste)
    candidates = _candidates(shelf, sources, offered, taste, most=size * 4)
    kept, spare = _guard(candidates, most_of_one=max(1, math.floor(size * taste.source_share)))
    chosen = kept[:size]
    offered[[candidate.place for candidate in candidates]] = False
    popular = _popular(shelf, category, offered, size - len(chosen))
    recommendations = [_because(shelf, candidate, sources[candidate.source]) for candidate in chosen]
    recommendations += _because_popular(shelf, popular, below=recommendations[-1].score if recommendations else 1.0)
    missing = size - len(recommendations)
    recommendations += [_because(shelf, candidate, sources[candidate.source]) for candidate in spare[:missing]]
    return Slate(_falling(recommendations), any(shelf.item(place) for place in known))


def similar(shelf: Shelf, item_id: ItemId, size: int) -> list[Similar]:
    """Return the visible neighbours of an item, closest first."""
    place = shelf.find(item_id)
    close = None if place is None else shelf.close_to(place)
    if close is None:
        return []
    offered = shelf.offered("")
    found: list[Similar] = []
    triples = zip(close.places.tolist(), close.similarities.tolist(), close.customer_counts.tolist(), strict=True)
    for near, similarity, count in triples:
        item = shelf.item(near)
        if item is not None and offered[near]:
            found.append(Similar(item, similarity, count))
    return found[:size]


def _sources(shelf: Shelf, deeds: Sequence[Deed], taste: Taste) -> list[_Source]:
    """Return the customer's items that have neighbours, each with how much it counts."""
    liked = sorted((deed for deed in deeds if deed.weight > 0), key=lambda deed: (-deed.last_time_us, deed.item_id))
    sources: list[_Source] = []
    for deed in liked:
        place = shelf.find(deed.item_id)
        close = None if place is None or shelf.item(place) is None else shelf.close_to(place)
        if place is None or close is None:
            continue
        age_days = (liked[0].last_time_us - deed.last_time_us) / DAY_US
        strength = math.log1p(deed.weight / THOUSANDTHS) * 2.0 ** (-age_days / taste.half_life_days)
        sources.append(_Source(place, close, strength, deed.bought))
        if len(sources) == taste.most_sources:
            break
    return sources


def _candidates(
    shelf: Shelf, sources: Sequence[_Source], offered: NDArray[np.bool_], taste: Taste, most: int
) -> list[_Candidate]:
    """Add up what each source says about its neighbours; the source that says most is the reason."""
    if not sources:
        return []
    places = np.concatenate([source.close.places for source in sources])
    lengths = [len(source.close.places) for source in sources]
    origin = np.repeat(np.arange(len(sources)), lengths)
    said = np.concatenate([source.close.similarities for source in sources]) * np.repeat(
        np.array([source.strength for source in sources]), lengths
    )
    allowed = offered[places]
    places, origin, said = places[allowed], origin[allowed], said[allowed]
    if not len(places):
        return []
    order = np.lexsort((-origin, said, places))
    places, origin, said = places[order], origin[order], said[order]
    ends = np.append(np.flatnonzero(places[1:] != places[:-1]), len(places) - 1)
    starts = np.append(0, ends[:-1] + 1)
    scores = np.add.reduceat(said, starts) * _factor(shelf, places[ends], taste.popularity_power)
    best = np.lexsort((shelf.by_id(places[ends]), -scores))[:most]
    columns = (places[ends][best].tolist(), scores[best].tolist(), origin[ends][best].tolist())
    return [_Candidate(place, score, source) for place, score, source in zip(*columns, strict=True)]


def _factor(shelf: Shelf, places: Places, power: float) -> NDArray[np.float64]:
    """Return how much popularity adds, at most 1; popularity is the exponent already."""
    popularity = shelf.popularity(places)
    return np.exp2(power * (popularity - popularity.max())) if np.isfinite(popularity.max()) else np.ones(len(places))


def _guard(candidates: Sequence[_Candidate], most_of_one: int) -> tuple[list[_Candidate], list[_Candidate]]:
    """Set aside what one source leads to beyond its share."""
    led: dict[int, int] = {}
    kept: list[_Candidate] = []
    spare: list[_Candidate] = []
    for candidate in candidates:
        count = led[candidate.source] = led.get(candidate.source, 0) + 1
        (kept if count <= most_of_one else spare).append(candidate)
    return kept, spare


def _popular(shelf: Shelf, category: str, offered: NDArray[np.bool_], count: int) -> list[int]:
    """Return the most popular places that are offered, looking no further than needed."""
    if count <= 0:
        return []
    popular = shelf.popular(category)
    found: list[int] = []
    step = 4 * count
    for start in range(0, len(popular), step):
        piece = popular[start : start + step]
        found += piece[offered[piece]].tolist()
        if len(found) >= count:
            break
    return found[:count]


def _because(shelf: Shelf, candidate: _Candidate, source: _Source) -> Recommendation:
    reason = ReasonType.BOUGHT if source.bought else ReasonType.VIEWED
    return Recommendation(_item(shelf, candidate.place), candidate.score, reason, _item(shelf, source.place))


def _because_popular(shelf: Shelf, places: Sequence[int], below: float) -> list[Recommendation]:
    if not places:
        return []
    popularity = shelf.popularity(np.array(places, np.int64))
    scores = (below * np.exp2(popularity - popularity[0])).tolist()
    return [
        Recommendation(_item(shelf, place), score, ReasonType.POPULAR, None)
        for place, score in zip(places, scores, strict=True)
    ]


def _falling(recommendations: Sequence[Recommendation]) -> tuple[Recommendation, ...]:
    """Let no score exceed the one before it, where the guard changed the order."""
    fallen: list[Recommendation] = []
    most = math.inf
    for each in recommendations:
        most = min(most, each.score)
        fallen.append(each if each.score == most else Recommendation(each.item, most, each.reason, each.source))
    return tuple(fallen)


def _item(shelf: Shelf, place: int) -> Item:
    item = shelf.item(place)
    if item is None:
        raise LookupError(f"no item at place {place}")
    return item
