# SPDX-License-Identifier: Apache-2.0
"""Groups of customers: accounts out of `group` events, households that staff declares.

All folds by minimum, maximum and the latest statement, so that any order and any repetition of the events, and of the
decisions of staff with their times, ends in the same groups. Members are fragments; whose they are is asked of the
mapping, so a merge or a split of customers moves memberships by itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.fragments import MAX_TRAITS, first_names
from svc_profile.domain.traits import Policy, Trait, answers, fold_of, join_into, stated

ACCOUNT, HOUSEHOLD = "account", "household"
MAX_KIND_LENGTH = 100

STAFF = "staff"
"""Source of what staff states; no event has it."""

_STAFF_FIRST = {name: fold_of(Policy.SOURCE_PRIORITY, (STAFF,)) for name in ("kind", "name")}
"""What staff declared, no event takes back: a browser may send events."""


class Group(msgspec.Struct, gc=False):
    """What is known of one group."""

    group_id: str
    first_seen_us: int
    last_seen_us: int
    traits: dict[str, Trait] = {}

    @property
    def kind(self) -> str:
        """What its traits call its kind, such as `account` or `household`."""
        for name in ("kind", "type"):
            trait = self.traits.get(name)
            if trait is not None and isinstance(trait.value, str) and trait.value:
                return trait.value.lower()[:MAX_KIND_LENGTH]
        return ACCOUNT

    @property
    def is_declared(self) -> bool:
        """True when staff declared what kind it is."""
        return "kind" in self.traits and self.traits["kind"].source == STAFF

    @property
    def values(self) -> dict[str, Any]:
        """The latest value of each trait."""
        return answers(self.traits)

    def absorb(self, other: "Group") -> None:
        """Add what was learnt elsewhere."""
        self.first_seen_us = min(self.first_seen_us, other.first_seen_us)
        self.last_seen_us = max(self.last_seen_us, other.last_seen_us)
        join_into(self.traits, other.traits, _STAFF_FIRST)
        self.traits = first_names(self.traits, MAX_TRAITS)


class Belonging(msgspec.Struct, frozen=True, gc=False):
    """When the events of one fragment named one group."""

    first_us: int
    last_us: int

    def joined(self, other: "Belonging") -> "Belonging":
        """Put two spans together."""
        return Belonging(min(self.first_us, other.first_us), max(self.last_us, other.last_us))


MemberKey = tuple[str, FragmentKey]
"""A group and a fragment; rows are locked in this order."""


@dataclass(frozen=True)
class LearntGroups:
    """What a batch of events taught about groups."""

    groups: Mapping[str, Group]
    members: Mapping[MemberKey, Belonging]


def learn_groups(events: Iterable[Event]) -> LearntGroups:
    """Fold `group` events, in any order; one that comes twice changes nothing."""
    groups: dict[str, Group] = {}
    members: dict[MemberKey, Belonging] = {}
    for event in events:
        if not event.group_id:
            continue
        time_us = event.time_us
        traits = stated(event.group_traits, time_us, event.key.hex(), event.source)
        learnt = Group(event.group_id, time_us, time_us, first_names(traits, MAX_TRAITS))
        if event.group_id in groups:
            groups[event.group_id].absorb(learnt)
        else:
            groups[event.group_id] = learnt
        member, span = (event.group_id, event.owner.fragment), Belonging(time_us, time_us)
        members[member] = members[member].joined(span) if member in members else span
    return LearntGroups(groups, members)


@dataclass(frozen=True)
class Ruling:
    """What staff decided about one fragment's place in a group; the latest holds, until a later event names it."""

    group_id: str
    fragment: FragmentKey
    member: bool
    role: str
    decided_us: int


@dataclass(frozen=True)
class Member:
    """A customer in a group."""

    profile: FragmentKey
    role: str
    first_us: int
    last_us: int


@dataclass(frozen=True)
class Membership:
    """A group that a customer belongs to."""

    group: Group
    role: str
    first_us: int
    last_us: int
