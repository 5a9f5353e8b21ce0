# SPDX-License-Identifier: Apache-2.0
"""Which fragments are one customer: a function of the set of events, in whatever order they arrive.

The claims that count are taken in order of event time, and one that would put two user ids into one customer is
refused (Kruskal's algorithm with a constraint). See docs/adr/0002-identity-is-a-function-of-the-events.md.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from svc_profile.domain.claims import Admission, Claim, Link, Pair
from svc_profile.domain.events import UNIQUE_NAMESPACES, FragmentKey
from svc_profile.domain.profiles import KnownAs


class Member(NamedTuple):
    """What identity asks of a fragment."""

    first_seen_us: int
    namespace: str
    profile: FragmentKey
    """Where the fragment belonged so far."""


class Standing(NamedTuple):
    """How a fragment stands in its customer."""

    member: Member
    profile_first_seen_us: int
    """How old the fragment is that names the customer."""
    is_parent: bool
    """True when other fragments may hang on to this one."""


def newcomer(fragment: FragmentKey, first_seen_us: int, namespace: str) -> Standing:
    """Return a fragment that did not exist before: a customer by itself."""
    return Standing(Member(first_seen_us, namespace, fragment), first_seen_us, is_parent=False)


class Placement(NamedTuple):
    """Where a fragment belongs; of two placements of a fragment the higher revision is the newer."""

    profile: FragmentKey
    revision: int


@dataclass(frozen=True)
class Component:
    """Fragments that eligible links connect, with those links."""

    members: Mapping[FragmentKey, Member]
    links: Mapping[Pair, Link]


@dataclass(frozen=True)
class Surroundings:
    """The fragments around new claims, told apart by how much hangs on them."""

    members: Mapping[FragmentKey, Member]
    leaves: Mapping[FragmentKey, Claim]
    """Children that hang on nothing but their claim and are younger than the customer whom they come to: nothing else
    depends on them, so that a customer with 100,000 devices need not be looked at for one more."""
    seeds: frozenset[FragmentKey]
    """Fragments around which everything has to be looked at."""


@dataclass(frozen=True)
class Resolution:
    """Who is who among some fragments."""

    profile_of: Mapping[FragmentKey, FragmentKey]
    refused: frozenset[Pair]


@dataclass(frozen=True)
class Merge:
    """Profiles that became one."""

    profile: FragmentKey
    absorbed: tuple[FragmentKey, ...]
    evidence_us: int
    """Time of the latest event among the new evidence."""


@dataclass(frozen=True)
class Change:
    """What follows from new claims."""

    links: Sequence[Link]
    """Links to be written."""
    moved: Mapping[FragmentKey, FragmentKey]
    """Fragments that belong to another profile now."""
    merges: Sequence[Merge]


@dataclass(frozen=True)
class Conflict:
    """A link that was refused because it would have joined two people."""

    identifier: KnownAs
    profile: FragmentKey
    """Whose the identifier is."""
    claiming_profile: FragmentKey
    rule: str
    source: str
    message_id: str
    claim_time_us: int
    pair: Pair


def resolve(members: Mapping[FragmentKey, Member], claims: Iterable[Claim]) -> Resolution:
    """Join fragments along eligible claims, in their order, and name each customer after the earliest fragment."""
    group = {fragment: fragment for fragment in members}
    unique = {fragment: UNIQUE_NAMESPACES & {member.namespace} for fragment, member in members.items()}
    refused = set()
    for claim in sorted(claims, key=lambda claim: claim.order):
        child, parent = _find(group, claim.child), _find(group, claim.parent)
        if child == parent:
            continue
        if unique[child] & unique[parent]:
            refused.add(claim.pair)
            continue
        group[child] = parent
        unique[parent] = unique[parent] | unique[child]
    return Resolution(_named_after_earliest(members, group), frozenset(refused))


def _find(group: dict[FragmentKey, FragmentKey], fragment: FragmentKey) -> FragmentKey:
    while group[fragment] != fragment:
        group[fragment] = group[group[fragment]]
        fragment = group[fragment]
    return fragment


def _named_after_earliest(
    members: Mapping[FragmentKey, Member], group: dict[FragmentKey, FragmentKey]
) -> dict[FragmentKey, FragmentKey]:
    earliest: dict[FragmentKey, tuple[int, FragmentKey]] = {}
    for fragment, member in members.items():
        root, candidate = _find(group, fragment), (member.first_seen_us, fragment)
        earliest[root] = min(earliest.get(root, candidate), candidate)
    return {fragment: earliest[_find(group, fragment)][1] for fragment in members}


def survey(
    admission: Admission, standings: Mapping[FragmentKey, Standing], older: Collection[FragmentKey]
) -> Surroundings:
    """Tell fragments that merely join a customer from those around which identities may change.

    `standings` holds the ends of the claims that count, and the fragments that turned out to be older.
    """
    counting = [link.claim for link in admission.links.values() if link.eligible]
    unbound = _unbound(admission, counting)
    leaves = {
        claim.child: claim
        for claim in counting
        if claim.child in unbound and _hangs_on(standings[claim.child], claim, standings[claim.parent])
    }
    seeds = {end for claim in counting if claim.child not in leaves for end in claim.pair}
    seeds |= {fragment for fragment in older if _renames(fragment, standings[fragment])}
    return Surroundings({f: standing.member for f, standing in standings.items()}, leaves, frozenset(seeds))


def _unbound(admission: Admission, counting: Sequence[Claim]) -> set[FragmentKey]:
    """Return the children of one claim that nothing else holds."""
    times = Counter(claim.child for claim in counting)
    parents = {claim.parent for claim in counting}
    return {child for child, count in times.items() if count == 1} - parents - admission.bound


def _hangs_on(child: Standing, claim: Claim, parent: Standing) -> bool:
    return (
        not child.is_parent
        and child.member.namespace not in UNIQUE_NAMESPACES
        and (child.member.first_seen_us, claim.child) > (parent.profile_first_seen_us, parent.member.profile)
    )


def _renames(fragment: FragmentKey, standing: Standing) -> bool:
    """Tell whether the customer has to be named after this fragment from now on."""
    return (standing.member.first_seen_us, fragment) < (standing.profile_first_seen_us, standing.member.profile)


def reconcile(component: Component, admission: Admission, around: Surroundings, new: Collection[FragmentKey]) -> Change:
    """Find out anew who is who around new claims; `new` fragments did not exist before.

    `component` is what eligible links connect with those seeds that are not new. A leaf of one of its members is
    decided with it; the others join the customer of their parent.
    """
    members = {**component.members, **{seed: around.members[seed] for seed in around.seeds if seed in new}}
    inside = {child for child, claim in around.leaves.items() if claim.parent in members}
    members |= {child: around.members[child] for child in inside}
    links = {**component.links, **admission.links}
    resolution = resolve(members, [k.claim for k in links.values() if k.eligible and k.claim.child in members])
    after = dict(resolution.profile_of)
    before = {fragment: member.profile for fragment, member in members.items()}
    for child in around.leaves.keys() - inside:
        home = around.members[around.leaves[child].parent].profile
        after |= {child: home, home: home}
        before |= {child: around.members[child].profile, home: home}
    decided = [
        Link(link.claim, link.eligible, refused=not link.eligible or pair in resolution.refused)
        for pair, link in links.items()
    ]
    return Change(
        links=[link for link in decided if component.links.get(link.claim.pair) != link],
        moved={fragment: after[fragment] for fragment, profile in before.items() if after[fragment] != profile},
        merges=_merges(before, after, admission, new),
    )


def _merges(
    before: Mapping[FragmentKey, FragmentKey],
    after: Mapping[FragmentKey, FragmentKey],
    admission: Admission,
    new: Collection[FragmentKey],
) -> list[Merge]:
    """Find ids that named different customers before and name the same one now; a newcomer is nobody's loss."""
    together: dict[FragmentKey, list[FragmentKey]] = {}
    for profile in {profile for fragment, profile in before.items() if fragment not in new}:
        together.setdefault(after[profile], []).append(profile)
    evidence = sorted((link.claim.time_us, after[pair[0]]) for pair, link in admission.links.items() if link.eligible)
    latest = {profile: time_us for time_us, profile in evidence}
    fallback = evidence[-1][0] if evidence else 0
    return [
        Merge(profile, tuple(sorted(set(formerly) - {profile})), latest.get(profile, fallback))
        for profile, formerly in sorted(together.items())
        if len(formerly) > 1
    ]
