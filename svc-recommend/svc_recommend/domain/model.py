# SPDX-License-Identifier: Apache-2.0
"""All that is learnt from customers' histories, in the memory of the one process that works it out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from svc_recommend.domain.customers import CustomerKey, FragmentKey
from svc_recommend.domain.histories import Changes, Histories, Numbering
from svc_recommend.domain.neighbours import Neighbourhood, Neighbourhoods, Parameters

_CUSTOMERS_AT_ONCE = 200


class Model:
    """Histories and neighbourhoods of all customers, or, when they are too many, of a sample.

    The sample is chosen by customer id, which is a keyed hash: every process chooses the same, and chance decides.
    """

    def __init__(self, parameters: Parameters, most_fragments: int) -> None:
        self._most_fragments = most_fragments
        self._numbering = Numbering()
        self._histories = Histories(self._numbering, parameters.most_items)
        self._neighbourhoods = Neighbourhoods(self._histories, self._numbering, parameters)
        self._share_bits = 0

    @property
    def share(self) -> float:
        """Share of the customers that is learnt from."""
        return 2.0**-self._share_bits

    @property
    def due_count(self) -> int:
        """Number of items whose neighbourhoods are due."""
        return self._neighbourhoods.due_count

    def __contains__(self, fragment_id: FragmentKey) -> bool:
        return fragment_id in self._histories

    def learns_from(self, fragment_id: FragmentKey) -> bool:
        """Tell whether the customer of a fragment is in the sample."""
        return self._is_sampled(self._histories.customer_of(fragment_id))

    def _is_sampled(self, customer_id: CustomerKey) -> bool:
        return int.from_bytes(customer_id[8:]) & ((1 << self._share_bits) - 1) == 0

    def place(self, customer_of: Mapping[FragmentKey, CustomerKey]) -> Iterator[None]:
        """Let fragments belong to other customers, a step at a time."""
        touched: set[CustomerKey] = set()
        for fragment_id, customer_id in customer_of.items():
            before = self._histories.customer_of(fragment_id)
            if before == customer_id:
                continue
            self._histories.place(fragment_id, customer_id)
            if not self._is_sampled(customer_id):
                self._histories.forget(fragment_id)
            touched |= {before, customer_id}
        yield from self._reread(touched)

    def put(self, changes: Changes) -> Iterator[None]:
        """Take over changed sums of the sampled customers, a step at a time."""
        wanted = changes if not self._share_bits else self._sampled(changes)
        touched = self._histories.put(wanted)
        yield
        yield from self._reread(touched)
        self._neighbourhoods.hasten(wanted.item_ids)
        while len(self._histories) > self._most_fragments:
            yield from self._halve()

    def forget(self, fragment_ids: Iterable[FragmentKey]) -> Iterator[None]:
        """Let go of fragments, and learn anew from what their customers still have, a step at a time."""
        known = [fragment_id for fragment_id in fragment_ids if fragment_id in self._histories]
        customers = {self._histories.customer_of(fragment_id) for fragment_id in known}
        for fragment_id in known:
            self._histories.forget(fragment_id)
        yield from self._reread(customers)

    def _sampled(self, changes: Changes) -> Changes:
        kept = np.flatnonzero([self.learns_from(fragment_id) for fragment_id in changes.fragment_ids]).tolist()
        return Changes(
            [changes.fragment_ids[row] for row in kept],
            [changes.item_ids[row] for row in kept],
            [changes.weights[row] for row in kept],
            [changes.last_times_us[row] for row in kept],
        )

    def _halve(self) -> Iterator[None]:
        self._share_bits += 1
        self._neighbourhoods.share = self.share
        unwanted = [fragment_id for fragment_id in self._histories if not self.learns_from(fragment_id)]
        customers = {self._histories.customer_of(fragment_id) for fragment_id in unwanted}
        for fragment_id in unwanted:
            self._histories.forget(fragment_id)
        yield from self._reread(customers)

    def _reread(self, customer_ids: Iterable[CustomerKey]) -> Iterator[None]:
        every = sorted(customer_ids)
        for start in range(0, len(every), _CUSTOMERS_AT_ONCE):
            self._neighbourhoods.reread(every[start : start + _CUSTOMERS_AT_ONCE])
            yield

    def settle(self) -> Iterator[None]:
        """Get ready for the first neighbourhood after everything was put, a step at a time."""
        return self._neighbourhoods.settle_all()

    def refresh(self, most: int) -> Sequence[Neighbourhood]:
        """Work out up to `most` of the neighbourhoods that are due."""
        return self._neighbourhoods.refresh(most)
