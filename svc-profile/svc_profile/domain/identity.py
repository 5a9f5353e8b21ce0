# SPDX-License-Identifier: Apache-2.0
"""Which fragments are one customer: a function of the set of events, in whatever order they arrive.

What people decided comes first. Then the claims that count are taken in order of event time, and one that would put
more names of a type into one customer than its limit allows, or join what people keep apart, is refused (Kruskal's
algorithm with constraints). See docs/adr/0002-identity-is-a-function-of-the-events.md.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from chassis.identifiers import BUILT_IN, IdentifierTypes

from svc_profile.domain.changes import NOTHING_NEW, Change, Move, News, change_of
from svc_profile.domain.claims import DERIVED, Admission, Claim, Link, Pair
from svc_profile.domain.decisions import Decision
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.groups import Groups
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
    is_held: bool
    """True when other fragments may hang on to this one, or people decided about it."""


def newcomer(fragment: FragmentKey, first_seen_us: int, namespace: str) -> Standing:
    """Return a fragment that did not exist before: a customer by itself."""
    return Standing(Member(first_seen_us, namespace, fragment), first_seen_us, is_held=False)


class Placement(NamedTuple):
    """Where a fragment belongs; of two placements of a fragment the higher revision is the newer."""

    profile: FragmentKey
    revision: int


@dataclass(frozen=True)
class Component:
    """Fragments that eligible links and decisions connect, with those links and all decisions about the fragments."""

    members: Mapping[FragmentKey, Member]
    links: Mapping[Pair, Link]
    decisions: Sequence[Decision] = ()


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
    confidence: float


def resolve(
    members: Mapping[FragmentKey, Member],
    claims: Iterable[Claim],
    decisions: Iterable[Decision] = (),
    types: IdentifierTypes = BUILT_IN,
) -> Resolution:
    """Join fragments along eligible claims, in their order, and name each customer after the earliest fragment."""
    ordered = sorted(claims, key=lambda claim: claim.order)
    groups = gather(members, ordered, decisions, types)
    refused = frozenset(claim.pair for claim in ordered if not groups.join(claim.child, claim.parent))
    return Resolution(_named_after_earliest(members, groups), refused)


def gather(
    members: Mapping[FragmentKey, Member],
    claims: Sequence[Claim],
    decisions: Iterable[Decision],
    types: IdentifierTypes,
) -> Groups:
    """Put together what is one customer before any claim is heard: forced links, then decisions, the newest first."""
    forced = [claim for claim in claims if claim.is_forced]
    leaves = {claim.child for claim in forced}
    groups = Groups({f: "" if f in leaves else member.namespace for f, member in members.items()}, types.limits)
    for claim in forced:
        groups.force(claim.child, claim.parent)
    for decision in sorted(decisions, key=lambda decision: -decision.decision_id):
        groups.obey(decision)
    return groups


def _named_after_earliest(members: Mapping[FragmentKey, Member], groups: Groups) -> dict[FragmentKey, FragmentKey]:
    earliest: dict[FragmentKey, tuple[int, FragmentKey]] = {}
    for fragment, member in members.items():
        # A derived fragment may be gone tomorrow, and hangs on one that is known.
        if member.namespace != DERIVED:
            root, candidate = groups.root(fragment), (member.first_seen_us, fragment)
            earliest[root] = min(earliest.get(root, candidate), candidate)
    return {fragment: earliest[groups.root(fragment)][1] for fragment in members}


def survey(
    admission: Admission,
    standings: Mapping[FragmentKey, Standing],
    older: Collection[FragmentKey],
    types: IdentifierTypes = BUILT_IN,
) -> Surroundings:
    """Tell fragments that merely join a customer from those around which identities may change.

    `standings` holds the ends of the claims that count, and the fragments that turned out to be older.
    """
    counting = [link.claim for link in admission.links.values() if link.eligible]
    unbound = _unbound(admission, counting)
    leaves = {
        claim.child: claim
        for claim in counting
        if claim.child in unbound
        and standings[claim.child].member.namespace not in types.limits
        and _hangs_on(standings[claim.child], claim, standings[claim.parent])
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
    born, home = (child.member.first_seen_us, claim.child), (parent.profile_first_seen_us, parent.member.profile)
    return not child.is_held and (claim.is_forced or born > home)


def _renames(fragment: FragmentKey, standing: Standing) -> bool:
    """Tell whether the customer has to be named after this fragment from now on."""
    if standing.member.namespace == DERIVED:
        return False
    return (standing.member.first_seen_us, fragment) < (standing.profile_first_seen_us, standing.member.profile)


def reconcile(
    component: Component,
    admission: Admission,
    around: Surroundings,
    new: Collection[FragmentKey],
    types: IdentifierTypes = BUILT_IN,
) -> Change:
    """Find out anew who is who around new claims; `new` fragments did not exist before.

    `component` is what eligible links connect with those seeds that are not new. A leaf of one of its members is
    decided with it; the others join the customer of their parent.
    """
    members = {**component.members, **{seed: around.members[seed] for seed in around.seeds if seed in new}}
    inside = {child for child, claim in around.leaves.items() if claim.parent in members}
    members |= {child: around.members[child] for child in inside}
    links = {**component.links, **admission.links}
    claims = [k.claim for k in links.values() if k.eligible and k.claim.child in members]
    resolution = resolve(members, claims, component.decisions, types)
    after = dict(resolution.profile_of)
    before = {fragment: member.profile for fragment, member in members.items()}
    for child in around.leaves.keys() - inside:
        home = around.members[around.leaves[child].parent].profile
        after |= {child: home, home: home}
        before |= {child: around.members[child].profile, home: home}
    return change_of(component.links, links, resolution.refused, News(admission, new), Move(before, after))


def rearrange(component: Component, types: IdentifierTypes, time_us: int) -> Change:
    """Find out who is who in a component after somebody decided something about it at a time."""
    claims = [link.claim for link in component.links.values() if link.eligible]
    resolution = resolve(component.members, claims, component.decisions, types)
    before = {fragment: member.profile for fragment, member in component.members.items()}
    news = News(NOTHING_NEW, (), time_us)
    return change_of(component.links, component.links, resolution.refused, news, Move(before, resolution.profile_of))


def as_resolved(component: Component, types: IdentifierTypes) -> Component:
    """Return the component with everybody where they belong by its decisions."""
    claims = [link.claim for link in component.links.values() if link.eligible]
    profile_of = resolve(component.members, claims, component.decisions, types).profile_of
    members = {f: member._replace(profile=profile_of[f]) for f, member in component.members.items()}
    return replace(component, members=members)
