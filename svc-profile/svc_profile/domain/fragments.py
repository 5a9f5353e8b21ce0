# SPDX-License-Identifier: Apache-2.0
"""What was learnt under one identifier: a fold that no order, delay or grouping of the events can change.

Times fold by minimum and maximum, counts and money by sum, groups by union, and a trait keeps the value of the latest
event, by event time and then by event key, unless its definition says otherwise. Each event is folded once; who judges
that is the table of events.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from svc_profile.domain.events import WITHHELD, Event, FragmentKey, Name
from svc_profile.domain.traits import NO_POLICIES, Policies, Trait, join_into, stated

MAX_TRAITS = 2_000
MAX_COUNTED_NAMES = 2_000
MAX_GROUPS = 2_000
MAX_DEPTH = 16

V = TypeVar("V")


class Fragment(msgspec.Struct, gc=False):
    """What was learnt under one identifier; `absorb` adds what another fold of the same identifier learnt.

    Being seen and owning are kept apart: a shared device is seen with many people and owns nobody's order.
    """

    name: Name
    first_seen_us: int
    """Earliest event that carried the identifier, whichever fragment owns the event."""
    last_seen_us: int
    first_event_us: int | None = None
    """Earliest event that the fragment owns; None when it owns none."""
    last_event_us: int | None = None
    counts: dict[str, int] = {}
    traits: dict[str, Trait] = {}
    revenue: dict[str, Decimal] = {}
    groups: set[str] = set()

    def see(self, time_us: int) -> None:
        """Note an event that carried the identifier."""
        if time_us < self.first_seen_us:
            self.first_seen_us = time_us
        if time_us > self.last_seen_us:
            self.last_seen_us = time_us

    def own(self, event: Event, policies: Policies = NO_POLICIES) -> None:
        """Learn what an event tells that the fragment owns."""
        time_us = event.time_us
        if self.first_event_us is None or time_us < self.first_event_us:
            self.first_event_us = time_us
        if self.last_event_us is None or time_us > self.last_event_us:
            self.last_event_us = time_us
        name = event.counted_name
        self.counts[name] = self.counts.get(name, 0) + 1
        if event.traits:
            self.take_traits(stated(event.traits, time_us, event.key.hex(), event.source, policies), policies)
        if event.amount is not None:
            self.take_revenue(dict([event.amount]))
        if event.group_id:
            self.take_groups({event.group_id})

    def take_counts(self, counts: dict[str, int]) -> None:
        """Add what was counted elsewhere."""
        few, many = (self.counts, counts) if len(self.counts) < len(counts) else (counts, self.counts)
        total = dict(many)
        for name, count in few.items():
            total[name] = total.get(name, 0) + count
        self.counts = first_names(total, MAX_COUNTED_NAMES)

    def take_traits(self, traits: dict[str, Trait], policies: Policies = NO_POLICIES) -> None:
        """Add what was stated elsewhere."""
        join_into(self.traits, traits, policies)
        self.traits = first_names(self.traits, MAX_TRAITS)

    def take_revenue(self, revenue: dict[str, Decimal]) -> None:
        """Add money by currency."""
        for currency, value in revenue.items():
            self.revenue[currency] = self.revenue.get(currency, Decimal(0)) + value

    def take_groups(self, groups: Iterable[str]) -> None:
        """Belong to further groups."""
        self.groups |= set(groups)
        if len(self.groups) > MAX_GROUPS:
            self.groups = set(sorted(self.groups)[:MAX_GROUPS])

    def absorb(self, other: "Fragment", policies: Policies = NO_POLICIES) -> None:
        """Add what another fold of the same identifier learnt."""
        self.first_seen_us = min(self.first_seen_us, other.first_seen_us)
        self.last_seen_us = max(self.last_seen_us, other.last_seen_us)
        self.first_event_us = earlier(self.first_event_us, other.first_event_us)
        self.last_event_us = later(self.last_event_us, other.last_event_us)
        self.take_counts(other.counts)
        self.take_traits(other.traits, policies)
        self.take_revenue(other.revenue)
        self.take_groups(other.groups)


def learn(events: Iterable[Event], policies: Policies = NO_POLICIES) -> dict[FragmentKey, Fragment]:
    """Fold distinct events into the fragments that they carry and own."""
    fragments: dict[FragmentKey, Fragment] = {}
    for event in events:
        time_us = event.time_us
        for name in event.names.seen:
            fragment = fragments.get(name.fragment)
            if fragment is None:
                fragments[name.fragment] = Fragment(name, time_us, time_us)
            else:
                fragment.see(time_us)
        owner = event.diverted
        if owner is None:
            fragments[event.names.seen[0].fragment].own(event, policies)
        elif owner is not WITHHELD:
            fragment = fragments.setdefault(owner.fragment, Fragment(owner, time_us, time_us))
            fragment.see(time_us)
            fragment.own(event, policies)
    return fragments


def first_names(values: dict[str, V], limit: int) -> dict[str, V]:
    """Keep the first names in alphabetical order, so that a flood of names cannot grow a row without end.

    A name among the first of all is among the first of every part, so its value is exact in whatever order the parts
    come together.
    """
    if len(values) <= limit:
        return values
    return {name: values[name] for name in sorted(values)[:limit]}


def earlier(one: int | None, other: int | None) -> int | None:
    """Return the earlier of two times that may be missing."""
    return min((time for time in (one, other) if time is not None), default=None)


def later(one: int | None, other: int | None) -> int | None:
    """Return the later of two times that may be missing."""
    return max((time for time in (one, other) if time is not None), default=None)


def storable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Bring a JSON value into a shape that PostgreSQL takes: no NUL characters, no abyss of brackets."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, (dict, list)) and depth == 0:
        return None
    if isinstance(value, dict):
        return {storable_text(k): storable(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [storable(v, depth - 1) for v in value]
    return value


def storable_text(text: str) -> str:
    """Leave out NUL characters, which PostgreSQL has no place for."""
    return text.replace("\x00", "") if "\x00" in text else text
