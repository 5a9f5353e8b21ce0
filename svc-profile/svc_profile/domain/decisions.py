# SPDX-License-Identifier: Apache-2.0
"""What people decided about identity. A decision is evidence: events never undo it, a later decision may."""

from enum import StrEnum

import msgspec

from svc_profile.domain.events import FragmentKey


class DecisionKind(StrEnum):
    """What was decided."""

    MERGE = "merge"
    """The fragments of its one side are one customer, whatever limits say."""
    SPLIT = "split"
    """The fragments of each side are one customer, and the two sides are two customers."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A decision that stands. Where two contradict each other, the one with the higher id, the newer one, wins."""

    decision_id: int
    sides: tuple[tuple[FragmentKey, ...], ...]
    """One side for a merge, two for a split."""

    @property
    def kind(self) -> DecisionKind:
        """What was decided."""
        return DecisionKind.MERGE if len(self.sides) == 1 else DecisionKind.SPLIT

    def crosses(self, one: frozenset[FragmentKey], other: frozenset[FragmentKey]) -> bool:
        """Tell whether a merge holds something of both together, or a split keeps something of them apart."""
        if len(self.sides) == 1:
            return not one.isdisjoint(self.sides[0]) and not other.isdisjoint(self.sides[0])
        near, far = self.sides
        return (not one.isdisjoint(near) and not other.isdisjoint(far)) or (
            not one.isdisjoint(far) and not other.isdisjoint(near)
        )
