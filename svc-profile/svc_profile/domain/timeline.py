# SPDX-License-Identifier: Apache-2.0
"""What happened with a customer, of all kinds, in one list: newest first, then by kind, then by id."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.heard import Feedback
from svc_profile.domain.interactions import Kept
from svc_profile.domain.ledger import Record
from svc_profile.domain.views import RecentEvent


class EntryKind(IntEnum):
    """What happened; the numbers are those of the contract."""

    EVENT = 1
    INTERACTION = 2
    FEEDBACK = 3
    CONSENT = 4
    LINK = 5
    DECISION = 6


@dataclass(frozen=True)
class LinkMade:
    """Evidence that two identifiers of the customer are one person."""

    child: FragmentKey
    parent: FragmentKey
    rule: str
    identifier: tuple[str, str]
    """Namespace and value of the one that was found to belong to the other."""
    linked_to: tuple[str, str]
    claim_time_us: int


@dataclass(frozen=True)
class DecisionMade:
    """Somebody merged or split the customer, or took that back."""

    decision_id: int
    kind: str
    """`merge` or `split`."""
    revoked: bool
    actor: str
    reason: str
    time_us: int


Detail = RecentEvent | Kept | Feedback | Record | LinkMade | DecisionMade


@dataclass(frozen=True)
class TimelineEntry:
    """One thing that happened."""

    time_us: int
    kind: EntryKind
    entry_id: str
    """Names it among those of its kind."""
    detail: Detail


@dataclass(frozen=True)
class Position:
    """Where an entry stands in the list."""

    time_us: int
    kind: int
    entry_id: str


@dataclass(frozen=True)
class Wanted:
    """Which part of the list is asked for."""

    kinds: Collection[int] = ()
    """None is all."""
    start_us: int | None = None
    end_us: int | None = None
    """Before this time."""
    after: Position | None = None
    """The last entry of the page before."""

    def has(self, kind: EntryKind) -> bool:
        """Tell whether a kind is wanted."""
        return not self.kinds or kind in self.kinds

    def begin_of(self, kind: EntryKind) -> tuple[int, str] | None:
        """Return a position in the list of one kind: what follows it there, by (time, id), follows in the whole list.

        The empty id stands after all ids of its time.
        """
        ends = [] if self.end_us is None else [(self.end_us, "")]
        if self.after is not None:
            time_us = self.after.time_us
            if kind == self.after.kind:
                ends.append((time_us, self.after.entry_id))
            else:
                ends.append((time_us + (1 if kind > self.after.kind else 0), ""))
        return min(ends, default=None)


def arrange(entries: Iterable[TimelineEntry], wanted: Wanted, most: int) -> list[TimelineEntry]:
    """Put the newest entries of each kind, each kind in its own order, into one list."""
    inside = (entry for entry in entries if wanted.start_us is None or entry.time_us >= wanted.start_us)
    return sorted(inside, key=lambda entry: (-entry.time_us, entry.kind))[:most]
