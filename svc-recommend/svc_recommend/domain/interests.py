# SPDX-License-Identifier: Apache-2.0
"""How much each customer is interested in each item, by customer and by item."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from svc_recommend.domain import packed
from svc_recommend.domain.customers import CustomerKey
from svc_recommend.domain.histories import Histories
from svc_recommend.domain.interactions import THOUSANDTHS

Floats = NDArray[np.float64]
Numbers = NDArray[np.int32]
Positions = NDArray[np.int64]

EPOCH_US = 1_577_836_800_000_000
"""2020-01-01: where forward decay counts from."""

ERA_HALF_LIVES = 512
"""Another epoch is taken a whole era later or earlier: a factor that is a power of 2, so that nothing is rounded."""

DAY_US = 86_400_000_000


@dataclass(slots=True)
class Column:
    """The customers of one item, in the order of their keys, and their interest."""

    customers: Numbers = field(default_factory=lambda: np.zeros(0, np.int32))
    interest: Floats = field(default_factory=lambda: np.zeros(0))
    settled_at: int = 0
    """Number of the last reading that it takes into account."""


class Interests:
    """The matrix of customers and items, kept in both directions.

    Reading a customer's history anew costs the same whoever the customer is; columns catch up when they are asked for.
    """

    def __init__(self, histories: Histories, half_life_days: float) -> None:
        self._histories = histories
        self._half_life_us = half_life_days * DAY_US
        self._era: int | None = None
        self._number_of: dict[CustomerKey, int] = {}
        self._keys = np.zeros(1024, np.uint64)
        self._read_at = np.zeros(1024, np.int64)
        self._items: list[bytes] = []
        self._interest: list[bytes] = []
        self._columns: dict[int, Column] = {}
        self._joined: dict[int, list[int]] = {}
        self._readings = 0

    @property
    def shift(self) -> int:
        """Base-2 logarithm of what squares of interest were divided by, to stay within what a float can be."""
        return ERA_HALF_LIVES * (self._era or 0)

    def reread(self, customer_ids: Sequence[CustomerKey]) -> Numbers:
        """Take over the histories of customers; return the items in them, now or before, as often as they occur."""
        self._readings += 1
        numbers = [self._number(customer_id) for customer_id in customer_ids]
        self._read_at[numbers] = self._readings
        old_items, old_owners = self._items_of(numbers)
        owners, items, interest = self._interest_in(customer_ids)
        old_keys, new_keys = packed.keys(old_owners, old_items), packed.keys(owners, items)
        joined = ~packed.are_in(new_keys, old_keys)
        for item, owner in zip(items[joined].tolist(), owners[joined].tolist(), strict=True):
            self._joined.setdefault(item, []).append(numbers[owner])
        for number, its_items, its_interest in zip(
            numbers,
            packed.split(owners, items.tobytes(), 4, len(numbers)),
            packed.split(owners, interest.tobytes(), 8, len(numbers)),
            strict=True,
        ):
            self._items[number], self._interest[number] = its_items, its_interest
        left = ~packed.are_in(old_keys, new_keys)
        return np.concatenate([items, old_items[left]])

    def _interest_in(self, customer_ids: Sequence[CustomerKey]) -> tuple[Positions, Numbers, Floats]:
        owners, rows = self._histories.of(customer_ids)
        liked = rows["weight"] > 0
        owners, rows = owners[liked], rows[liked]
        lengths = np.bincount(owners, minlength=1)
        half_lives = (rows["time_us"] - EPOCH_US) / self._half_life_us
        if self._era is None and len(rows):
            self._era = math.floor(half_lives.max() / ERA_HALF_LIVES)
        decay = np.exp2((half_lives - self.shift) / 2)
        interest = np.log1p(rows["weight"] / THOUSANDTHS) * decay * lengths[owners] ** -0.25
        return owners, np.ascontiguousarray(rows["item"], np.int32), interest

    def gather(self, numbers: Sequence[int]) -> tuple[Numbers, Floats, Positions]:
        """Return items, interest and position of the customer, over the histories of some customers."""
        items, owners = self._items_of(numbers)
        interest = np.frombuffer(b"".join([self._interest[number] for number in numbers]), np.float64)
        return items, interest, owners

    def _items_of(self, numbers: Sequence[int]) -> tuple[Numbers, Positions]:
        histories = [self._items[number] for number in numbers]
        lengths = np.fromiter(map(len, histories), np.int64, len(histories)) // 4
        return np.frombuffer(b"".join(histories), np.int32), np.repeat(np.arange(len(numbers)), lengths)

    def column(self, item: int) -> Column:
        """Return the column of an item, brought up to date with its customers."""
        column = self._columns.get(item)
        if column is None:
            column = self._columns[item] = Column()
        if column.settled_at < self._readings:
            self._settle(item, column)
        return column

    def _settle(self, item: int, column: Column) -> None:
        kept = self._read_at[column.customers] <= column.settled_at
        column.settled_at = self._readings
        changed = np.unique(np.append(column.customers[~kept], np.array(self._joined.pop(item, ()), np.int32)))
        if not len(changed):
            return
        items, interest, owners = self.gather(changed.tolist())
        mine = items == item
        customers, interest = changed[owners[mine]], interest[mine]
        order = np.argsort(self._keys[customers], kind="stable")
        before = column.customers[kept]
        at = np.searchsorted(self._keys[before], self._keys[customers[order]])
        column.customers = np.insert(before, at, customers[order])
        column.interest = np.insert(column.interest[kept], at, interest[order])

    def strongest(self, column: Column, most: int) -> Positions:
        """Return the positions in a column of the customers with most interest, in the order of their keys."""
        if len(column.customers) <= most:
            return np.arange(len(column.customers))
        order = np.lexsort((self._keys[column.customers], -column.interest))
        return np.sort(order[:most])

    def _number(self, customer_id: CustomerKey) -> int:
        number = self._number_of.get(customer_id)
        if number is None:
            number = self._number_of[customer_id] = len(self._items)
            self._items.append(b"")
            self._interest.append(b"")
            if number == len(self._keys):
                self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
                self._read_at = np.concatenate([self._read_at, np.zeros_like(self._read_at)])
            self._keys[number] = int.from_bytes(customer_id[:8])
        return number
