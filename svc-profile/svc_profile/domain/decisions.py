# SPDX-License-Identifier: Apache-2.0
"""What people decided about identity. A decision is evidence: events never undo it, a later decision may."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import KnownAs


class DecisionKind(StrEnum):
    """What was decided."""

    MERGE = "merge"
    """The fragments of its one side are one customer, whatever limits say."""
    SPLIT = "split"
    """The fragments of each of its first two sides are one customer, and these are two customers. The third side holds
    bystanders, who would join one of the two by evidence that was refused until then: they are kept apart from both."""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A decision that stands. Where two contradict each other, the one with the higher id, the newer one, wins."""

    decision_id: int
    sides: tuple[tuple[FragmentKey, ...], ...]
    """One side for a merge, two for a split, with bystanders three."""

    @property
    def kind(self) -> DecisionKind:
        """What was decided."""
        return DecisionKind.MERGE if len(self.sides) == 1 else DecisionKind.SPLIT


class Side(NamedTuple):
    """Some names that a decision is about."""

    known_as: tuple[KnownAs, ...]
    """As many as can be shown."""
    size: int


@dataclass(frozen=True)
class Note:
    """Who decides, why and when."""

    actor: str
    reason: str
    time_us: int


@dataclass(frozen=True)
class Record:
    """A decision as it is told: who decided what about whom, and whether it stands."""

    decision_id: int
    kind: DecisionKind
    note: Note
    revoked: Note | None
    sides: tuple[Side, ...]
