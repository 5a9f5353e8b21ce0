# SPDX-License-Identifier: Apache-2.0
"""What each customer lately dealt with, packed, so that a million customers fit into memory.

Histories are kept by fragment, as events own them; a customer is the fold of the fragments that map to it, so a merge
or a split is a change of mapping here too. Everything is a function of the summed interactions and the mapping alone:
whatever the order and the batching of the changes, the same histories come out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from svc_recommend.domain import packed
from svc_recommend.domain.customers import CustomerKey, FragmentKey
from svc_recommend.domain.items import ItemId


@dataclass(frozen=True)
class Changes:
    """Sums of fragments and items after they changed, as columns, in the order in which they changed."""

    fragment_ids: Sequence[FragmentKey]
    item_ids: Sequence[ItemId]
    weights: Sequence[int]
    """In thousandths."""
    last_times_us: Sequence[int]

    def __len__(self) -> int:
        return len(self.fragment_ids)


class Numbering:
    """Numbers for item ids, in order of appearance, and ranks that do not depend on that order."""

    def __init__(self) -> None:
        self.ids: list[ItemId] = []
        self._number_of: dict[ItemId, int] = {}
        self._ranks = np.zeros(1024, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ranks(self) -> NDArray[np.int64]:
        """The rank of each number: chance, but the same in every process."""
        return self._ranks

    def number(self, item_id: ItemId) -> int:
        """Return the number of an item; a new one gets the next."""
        number = self._number_of.get(item_id)
        if number is None:
            number = self._number_of[item_id] = len(self.ids)
            self.ids.append(item_id)
            if number == len(self._ranks):
                self._ranks = np.concatenate([self._ranks, np.zeros_like(self._ranks)])
            digest = blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            self._ranks[number] = int.from_bytes(digest, signed=True)
        return number


class Histories:
    """The latest items of every fragment, and which customer each fragment belongs to."""

    def __init__(self, numbering: Numbering, most_items: int) -> None:
        self._numbering = numbering
        self._most_items = most_items
        self._packed: dict[FragmentKey, bytes] = {}
        self._customer_of: dict[FragmentKey, CustomerKey] = {}
        self._members: dict[CustomerKey, set[FragmentKey]] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, fragment_id: FragmentKey) -> bool:
        return fragment_id in self._packed

    def __iter__(self) -> Iterator[FragmentKey]:
        return iter(self._packed)

    def customer_of(self, fragment_id: FragmentKey) -> CustomerKey:
        """Return the customer that a fragment belongs to: itself, unless it was placed elsewhere."""
        return self._customer_of.get(fragment_id, fragment_id)

    def place(self, fragment_id: FragmentKey, customer_id: CustomerKey) -> None:
        """Let a fragment belong to a customer from now on."""
        self._leave(fragment_id)
        if customer_id != fragment_id:
            self._customer_of[fragment_id] = customer_id
        if customer_id not in self._members:
            self._members[customer_id] = set() if customer_id in self._customer_of else {customer_id}
        self._members[customer_id].add(fragment_id)

    def forget(self, fragment_id: FragmentKey) -> None:
        """Let go of a fragment."""
        self._packed.pop(fragment_id, None)
        self._leave(fragment_id)

    def _leave(self, fragment_id: FragmentKey) -> None:
        customer_id = self._customer_of.pop(fragment_id, fragment_id)
        members = self._members.get(customer_id)
        if members is not None:
            members.discard(fragment_id)
            if not members:
                del self._members[customer_id]

    def put(self, changes: Changes) -> set[CustomerKey]:
        """Take over sums, later ones over earlier ones; return the customers whose histories changed."""
        position = {fragment_id: number for number, fragment_id in enumerate(dict.fromkeys(changes.fragment_ids))}
        known_owners, known = packed.unpack([self._packed.get(fragment_id, b"") for fragment_id in position])
        fresh = np.zeros(len(changes), packed.ROW)
        fresh["item"] = [self._numbering.number(item_id) for item_id in changes.item_ids]
        fresh["weight"] = np.clip(np.array(changes.weights, np.int64), -packed.MOST_WEIGHT, packed.MOST_WEIGHT)
        fresh["time_us"] = changes.last_times_us
        fresh_owners = np.fromiter((position[fragment] for fragment in changes.fragment_ids), np.int64, len(changes))
        owners, rows = packed.newest(np.append(known_owners, fresh_owners), np.append(known, fresh))
        owners, rows = packed.latest(owners, rows, self._most_items, self._numbering.ranks)
        self._packed.update(zip(position, packed.pack(owners, rows, len(position)), strict=True))
        return {self.customer_of(fragment_id) for fragment_id in position}

    def of(self, customer_ids: Sequence[CustomerKey]) -> tuple[packed.Owners, packed.Rows]:
        """Return the latest items of customers over all their fragments, each once, whatever its weight."""
        pieces = [self._of_one(customer_id) for customer_id in customer_ids]
        owners, rows = packed.summed(*packed.unpack(pieces))
        return packed.latest(owners, rows, self._most_items, self._numbering.ranks)

    def _of_one(self, customer_id: CustomerKey) -> bytes:
        members = self._members.get(customer_id)
        if members is None:
            return b"" if customer_id in self._customer_of else self._packed.get(customer_id, b"")
        return b"".join(self._packed[member] for member in members if member in self._packed)
