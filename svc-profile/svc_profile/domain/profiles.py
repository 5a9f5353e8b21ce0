# SPDX-License-Identifier: Apache-2.0
"""A customer as one person: the fold of the fragments that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.traits import NO_POLICIES, Policies, answers


@dataclass(frozen=True)
class KnownAs:
    """One name of the customer, and when it was used."""

    fragment: FragmentKey
    namespace: str
    value: str
    first_seen_us: int
    last_seen_us: int


@dataclass(frozen=True)
class Profile:
    """A customer."""

    profile: FragmentKey
    fragments: tuple[FragmentKey, ...]
    """All of them, also those that nobody is known by."""
    known_as: tuple[KnownAs, ...]
    traits: dict[str, Any]
    first_seen_us: int
    last_seen_us: int
    counts: dict[str, int]
    revenue: dict[str, Decimal]
    groups: tuple[str, ...]


def fold_profile(profile: FragmentKey, fragments: Sequence[Fragment], policies: Policies = NO_POLICIES) -> Profile:
    """Put the fragments of one customer together; at least one is needed, their order is of no matter."""
    whole = Fragment(fragments[0].name, fragments[0].first_seen_us, fragments[0].last_seen_us)
    for fragment in fragments:
        whole.absorb(fragment, policies)
    first_us, last_us = whole.first_event_us, whole.last_event_us
    return Profile(
        profile=profile,
        fragments=tuple(sorted(fragment.name.fragment for fragment in fragments)),
        known_as=tuple(
            sorted(
                (known_as(each) for each in fragments if each.name.namespace != DERIVED),
                key=lambda known: (known.namespace, known.value),
            )
        ),
        traits=answers(whole.traits, policies),
        first_seen_us=whole.first_seen_us if first_us is None else first_us,
        last_seen_us=whole.last_seen_us if last_us is None else last_us,
        counts=whole.counts,
        revenue=whole.revenue,
        groups=tuple(sorted(whole.groups)),
    )


def known_as(fragment: Fragment) -> KnownAs:
    """Return the name that a fragment was learnt under."""
    name = fragment.name
    return KnownAs(name.fragment, name.namespace, name.value, fragment.first_seen_us, fragment.last_seen_us)
