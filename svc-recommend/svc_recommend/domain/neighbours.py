# SPDX-License-Identifier: Apache-2.0
"""Which items the same customers deal with, kept up to date item by item.

With w the summed weight of a customer's interactions with an item, t the time of the last one and n the number of items
in the customer's history, the customer's interest in the item is

    v = ln(1 + w) * 2^((t - epoch) / (2 * half-life)) / n^(1/4)

and the similarity of items i and j is the cosine of their columns of interest, shrunk where few customers support it:

    s(i, j) = sum(v_i * v_j) / sqrt(sum(v_i^2) * sum(v_j^2)) * c / (c + shrinkage),   c customers dealt with both

The cosine over customers is that of item-based filtering (Sarwar et al. 2001; Linden et al. 2003), the factor with c is
significance weighting (Herlocker et al. 1999; Bell and Koren 2007), the decay that of Ding and Li 2005, written as a
forward decay (Cormode et al. 2009) so that nothing changes by waiting; 1 / n^(1/4) makes two items of a long history
weaker evidence than two of a short one (Breese et al. 1998). The sum of v_i^2 is how popular item i is these days.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svc_recommend.domain.customers import CustomerKey
from svc_recommend.domain.histories import Histories, Numbering
from svc_recommend.domain.interests import Column, Floats, Interests, Positions
from svc_recommend.domain.items import ItemId

DIGITS = 6
"""Similarities are rounded, so that the order of a sum cannot change the order of neighbours."""

_HASTE = 16
"""How many times more an item changes that a customer dealt with than one that is in the same history."""


@dataclass(frozen=True)
class Parameters:
    """How neighbourhoods are made; the defaults were tuned by `bench/recommend_quality.py`."""

    half_life_days: float = 14.0
    """After how long an interaction counts half."""
    shrinkage: float = 2.0
    """Number of common customers at which a similarity counts half of its cosine."""
    most_neighbours: int = 50
    """Neighbours that are kept of each item."""
    most_items: int = 50
    """Items of one customer that count: the latest."""
    most_customers: int = 500
    """Customers of one item that are looked at: those with most interest, which are mostly the latest."""
    tolerance: float = 0.02
    """Relative change of an item's popularity from which its neighbours are worked out anew too."""


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """An item, how popular it is, and the items close to it as columns, closest first, ties by id."""

    item_id: ItemId
    popularity: float | None = None
    """Base-2 logarithm, comparable between items and over time; None when nobody is interested."""
    neighbour_ids: Sequence[ItemId] = ()
    similarities: Sequence[float] = ()
    """From 0 to 1."""
    customer_counts: Sequence[int] = ()
    """Customers who dealt with both."""


class Neighbourhoods:
    """The neighbourhoods of all items, and which of them are due to be worked out anew."""

    def __init__(self, histories: Histories, numbering: Numbering, parameters: Parameters) -> None:
        self._numbering = numbering
        self._parameters = parameters
        self._interests = Interests(histories, parameters.half_life_days)
        self._turn = 0
        self._due_since = np.zeros(1024, np.int64)
        """Turn at which each item became due; 0 when it is not."""
        self._changes = np.zeros(1024, np.int64)
        """Customers of each item that were read since it was worked out."""
        self._squares = np.zeros(1024)
        """Sum of squared interest in each item."""
        self._announced = np.zeros(1024)
        """The same as the item's companions know it."""
        self._customers = np.zeros(1024, np.int64)
        self.share = 1.0
        """Share of all customers that the histories are of."""

    @property
    def due_count(self) -> int:
        """Number of items whose neighbourhoods are due."""
        return int(np.count_nonzero(self._due_since))

    def reread(self, customer_ids: Sequence[CustomerKey]) -> None:
        """Take over the histories of customers; every item in them, now or before, becomes due."""
        self._turn += 1
        self._make_room()
        items = self._interests.reread(customer_ids)
        self._changes += np.bincount(items, minlength=len(self._changes))
        self._make_due(items)

    def hasten(self, item_ids: Iterable[ItemId]) -> None:
        """Let items that customers just dealt with come before others in the same customers' histories."""
        items = [self._numbering.number(item_id) for item_id in item_ids]
        self._changes += _HASTE * np.bincount(np.array(items, np.int64), minlength=len(self._changes))

    def _make_due(self, items: NDArray[np.integer]) -> None:
        new = items[self._due_since[items] == 0]
        self._due_since[new] = self._turn

    def _make_room(self) -> None:
        while len(self._due_since) < len(self._numbering):
            for name in ("_due_since", "_changes", "_squares", "_announced", "_customers"):
                values = getattr(self, name)
                setattr(self, name, np.concatenate([values, np.zeros_like(values)]))

    def settle_all(self) -> Iterator[None]:
        """Sum up every item, a step at a time, before the first neighbourhood is worked out."""
        for item in range(len(self._numbering)):
            self._sum_up(item)
            # All neighbourhoods are due, so nobody has worked with another popularity.
            self._announced[item] = self._squares[item]
            yield

    def refresh(self, most: int) -> list[Neighbourhood]:
        """Work out up to `most` neighbourhoods that are due: half of them the most changed, half the longest due."""
        self._turn += 1
        chosen = self._choose(most)
        self._due_since[chosen] = 0
        self._changes[chosen] = 0
        columns = [self._sum_up(item) for item in chosen.tolist()]
        found = [self._neighbourhood(item, column) for item, column in zip(chosen.tolist(), columns, strict=True)]
        # They were worked out with what the others of this turn are now.
        again = chosen[self._due_since[chosen] == self._turn]
        self._due_since[again] = 0
        return found

    def _choose(self, most: int) -> Positions:
        due = np.flatnonzero(self._due_since)
        if len(due) <= most:
            return due
        longest = due[np.argsort(self._due_since[due], kind="stable")]
        first, rest = longest[: most - most // 2], longest[most - most // 2 :]
        change = self._changes[rest] / (1 + self._customers[rest])
        return np.concatenate([first, rest[np.argsort(-change, kind="stable")][: most // 2]])

    def _sum_up(self, item: int) -> Column:
        column = self._interests.column(item)
        self._squares[item] = np.dot(column.interest, column.interest)
        self._customers[item] = len(column.customers)
        return column

    def _neighbourhood(self, item: int, column: Column) -> Neighbourhood:
        squares = float(self._squares[item])
        popularity = round(math.log2(squares) + self._interests.shift, DIGITS) if squares > 0 else None
        companions, dots, counts = self._companions(item, column)
        self._announce(item, companions)
        # A companion that was never summed up yet will announce itself.
        known = self._squares[companions] > 0
        companions, dots, counts = companions[known], dots[known], counts[known]
        cosine = dots / (np.sqrt(self._squares[companions]) * math.sqrt(squares or 1.0))
        shrunk = np.minimum(cosine, 1.0) * counts / (counts + self._parameters.shrinkage)
        closest = self._closest(companions, np.round(shrunk, DIGITS), counts)
        return Neighbourhood(
            self._numbering.ids[item],
            popularity,
            [item_id for _, item_id, _ in closest],
            [-negative for negative, _, _ in closest],
            [max(1, round(count)) for _, _, count in closest],
        )

    def _companions(self, item: int, column: Column) -> tuple[Positions, Floats, Floats]:
        """Return the items that the customers of an item dealt with, the products of interest, and how many did."""
        chosen = self._interests.strongest(column, self._parameters.most_customers)
        interest = column.interest[chosen]
        items, others, owners = self._interests.gather(column.customers[chosen].tolist())
        counts = np.bincount(items, minlength=item + 1)
        dots: Floats = np.bincount(items, interest[owners] * others, minlength=item + 1).astype(np.float64)
        counts[item] = 0
        companions: Positions = np.flatnonzero(counts)
        more = 1.0
        if len(chosen) < len(column.customers):
            more = float(self._squares[item]) / float(np.dot(interest, interest))
        together = counts.astype(np.float64) * (more / self.share)
        return companions, dots[companions] * more, together[companions]

    def _announce(self, item: int, companions: Positions) -> None:
        """Let the companions be worked out anew too when this item's popularity is not what they know."""
        change = abs(self._squares[item] - self._announced[item])
        if change > self._parameters.tolerance * self._announced[item]:
            self._announced[item] = self._squares[item]
            self._make_due(companions)

    def _closest(self, companions: Positions, similarity: Floats, counts: Floats) -> list[tuple[float, ItemId, float]]:
        """Return the most similar companions as (negative similarity, id, count), which is how they are sorted."""
        most = self._parameters.most_neighbours
        near = similarity > 0
        if len(companions) > most:
            near &= similarity >= np.partition(similarity, -most)[-most]
        ids = [self._numbering.ids[companion] for companion in companions[near].tolist()]
        return sorted(zip((-similarity[near]).tolist(), ids, counts[near].tolist(), strict=True))[:most]
