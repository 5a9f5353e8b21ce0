# SPDX-License-Identifier: Apache-2.0
"""What a decision about identity changes, for whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from svc_profile.domain.decisions import Record
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.heard import Membership
from svc_profile.domain.profiles import fold_profile
from svc_profile.domain.purposes import Consent
from svc_profile.domain.traits import Policies
from svc_profile.domain.views import View

SHOWN = 100
"""Most customers that are shown before and after."""

Homes = Mapping[FragmentKey, FragmentKey]
"""The profile of each of some fragments."""


class Resolution(Enum):
    """How a conflict is resolved."""

    MERGE = auto()
    KEEP_APART = auto()
    MOVE = auto()


@dataclass(frozen=True)
class Customers:
    """Customers whom a decision concerns, as many as are shown."""

    views: Sequence[View]
    count: int


@dataclass(frozen=True)
class Decided:
    """What a decision changed."""

    before: Customers
    after: Customers
    made: Sequence[Record]
    revoked: Sequence[Record]
    placements: Mapping[FragmentKey, Sequence[FragmentKey]]
    """The fragments of each customer after it who is shown."""


def members_of(homes: Homes) -> dict[FragmentKey, list[FragmentKey]]:
    """Return the fragments of each profile, of as many profiles as are shown."""
    members: dict[FragmentKey, list[FragmentKey]] = {}
    for fragment, profile in homes.items():
        members.setdefault(profile, []).append(fragment)
    return {profile: members[profile] for profile in sorted(members)[:SHOWN]}


@dataclass(frozen=True)
class Showing:
    """What is known under some fragments, to be shown as the customers that they make up."""

    learnt: Mapping[FragmentKey, Fragment]
    segments: Mapping[FragmentKey, Sequence[Membership]]
    """Of each profile as they were."""
    policies: Policies
    homes: Homes
    """Where the fragments belonged."""

    def customers(self, homes: Homes, consents: Mapping[FragmentKey, Sequence[Consent]]) -> Customers:
        """Show the customers that the fragments make up when each belongs to the profile that is given."""
        shown = members_of(homes)
        views = [self._view(profile, members, consents.get(profile, ())) for profile, members in shown.items()]
        return Customers(views, len(set(homes.values())))

    def _view(self, profile: FragmentKey, fragments: Sequence[FragmentKey], consents: Sequence[Consent]) -> View:
        sources = {self.homes[fragment] for fragment in fragments}
        segments = {each.segment_id: each for source in sorted(sources) for each in self.segments.get(source, ())}
        return View(
            profile_id=profile,
            profile=fold_profile(profile, [self.learnt[fragment] for fragment in fragments], self.policies),
            consents=consents,
            segments=sorted(segments.values(), key=lambda each: (each.name, each.segment_id)),
        )
