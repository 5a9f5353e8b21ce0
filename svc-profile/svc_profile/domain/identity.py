# SPDX-License-Identifier: Apache-2.0
"""Which fragments are one customer: a function of the set of events, in whatever order they arrive.

An event with several names claims that each weaker name belongs to the strongest. Of the claims of one name only the
earliest per kind of stronger name counts: a device that 10,000 people log in on belongs to the first. The claims that
count are taken in order of event time, and one that would put two user ids into one customer is refused
(Kruskal's algorithm with a constraint). See docs/adr/0002-identity-is-a-function-of-the-events.md.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from svc_profile.domain.events import UNIQUE_NAMESPACES, Event, FragmentKey, Name
from svc_profile.domain.profiles import KnownAs

Pair = tuple[FragmentKey, FragmentKey]
"""The weaker name and the stronger one."""


class Rule(StrEnum):
    """Why two names should be one customer."""

    SAME_EVENT = "same_event"
    ALIAS = "alias"


class Claim(NamedTuple):
    """The earliest evidence that one name belongs to another."""

    child: FragmentKey
    parent: FragmentKey
    child_namespace: str
    parent_namespace: str
    rule: str
    time_us: int
    event_key: bytes
    rank: int
    """Place of the child among the names of the event: of two claims of one event the stronger name goes first."""
    source: str
    message_id: str

    @property
    def pair(self) -> Pair:
        """What is claimed."""
        return self.child, self.parent

    @property
    def order(self) -> tuple[int, bytes, int, FragmentKey, FragmentKey]:
        """The one order in which claims are heard."""
        return self.time_us, self.event_key, self.rank, self.child, self.parent

    @property
    def joins_two_people(self) -> bool:
        """True when both ends are user ids: never followed, whatever else is known."""
        return self.child_namespace in UNIQUE_NAMESPACES and self.parent_namespace in UNIQUE_NAMESPACES


class Link(NamedTuple):
    """A claim and what became of it."""

    claim: Claim
    eligible: bool
    """True while it is the child's earliest claim of its kind."""
    refused: bool
    """True when it does not join, because that would have made two people one."""


class Member(NamedTuple):
    """What the identity of a customer asks of a fragment."""

    first_seen_us: int
    namespace: str
    profile: FragmentKey
    """Where the fragment belonged so far."""


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
class Admission:
    """What new claims change before anybody asks who is joined."""

    links: Mapping[Pair, Link]
    """Links that are new or different; which of the eligible ones are refused is still open."""
    touched: frozenset[FragmentKey]
    """Ends of the new links that count. Following the links that counted before from here leads to everybody whose
    identity may change: a child that left one parent has gone to another."""


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


def claims_of(events: Iterable[Event]) -> dict[Pair, Claim]:
    """Collect what events claim, the earliest claim of each pair."""
    claims: dict[Pair, Claim] = {}
    for event in events:
        names = event.names
        if len(names.seen) > 1:
            for rank, child in enumerate(names.seen[1:]):
                _claim(claims, event, child, rank, Rule.ALIAS if child is names.previous else Rule.SAME_EVENT)
        if names.former_user is not None:
            _claim(claims, event, names.former_user, len(names.seen), Rule.ALIAS)
    return claims


def _claim(claims: dict[Pair, Claim], event: Event, child: Name, rank: int, rule: Rule) -> None:
    parent = event.owner
    known = claims.get((child.fragment, parent.fragment))
    if known is not None and (known.time_us, known.event_key) <= (event.time_us, event.key):
        return
    claims[child.fragment, parent.fragment] = Claim(
        child=child.fragment,
        parent=parent.fragment,
        child_namespace=child.namespace,
        parent_namespace=parent.namespace,
        rule=rule,
        time_us=event.time_us,
        event_key=event.key,
        rank=rank,
        source=event.source,
        message_id=event.message_id,
    )


def eligible_claims(claims: Iterable[Claim]) -> list[Claim]:
    """Return the claims that count: of each child, the earliest per kind of parent."""
    earliest: dict[tuple[FragmentKey, str], Claim] = {}
    for claim in claims:
        if claim.joins_two_people:
            continue
        kind = claim.child, claim.parent_namespace
        known = earliest.get(kind)
        if known is None or claim.order < known.order:
            earliest[kind] = claim
    return list(earliest.values())


def admit(stored: Mapping[Pair, Link], claims: Mapping[Pair, Claim]) -> Admission:
    """Decide which claims count, the new ones and those that they outrank.

    `stored` holds the claimed pairs that are known, and every eligible link of the children.
    """
    new = {pair: claim for pair, claim in claims.items() if pair not in stored or _precedes(claim, stored[pair])}
    counted = {pair: link.claim for pair, link in stored.items() if link.eligible}
    eligible = {claim.pair for claim in eligible_claims({**counted, **new}.values())}
    outranked = {pair: claim for pair, claim in counted.items() if pair not in eligible}
    links = {pair: Link(claim, pair in eligible, pair not in eligible) for pair, claim in (outranked | new).items()}
    return Admission(links, frozenset(end for pair in links if pair in eligible for end in pair))


def _precedes(claim: Claim, link: Link) -> bool:
    return (claim.time_us, claim.event_key) < (link.claim.time_us, link.claim.event_key)


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


def reconcile(component: Component, admission: Admission, new: Collection[FragmentKey]) -> Change:
    """Find out anew who is who in the component around new claims; `new` fragments did not exist before."""
    links = {**component.links, **admission.links}
    resolution = resolve(component.members, [link.claim for link in links.values() if link.eligible])
    decided = [
        link._replace(refused=not link.eligible or link.claim.pair in resolution.refused) for link in links.values()
    ]
    after = resolution.profile_of
    before = {fragment: m.profile for fragment, m in component.members.items() if fragment not in new}
    evidence = [link.claim for link in admission.links.values() if link.eligible]
    return Change(
        links=[link for link in decided if component.links.get(link.claim.pair) != link],
        moved={fragment: after[fragment] for fragment, m in component.members.items() if after[fragment] != m.profile},
        merges=_merges(before, after, evidence),
    )


def _merges(
    before: Mapping[FragmentKey, FragmentKey], after: Mapping[FragmentKey, FragmentKey], evidence: Iterable[Claim]
) -> list[Merge]:
    """Find ids that named different customers before and name the same one now."""
    together: dict[FragmentKey, set[FragmentKey]] = {}
    for profile in set(before.values()):
        together.setdefault(after[profile], set()).add(profile)
    latest: dict[FragmentKey, int] = {}
    for claim in sorted(evidence, key=lambda claim: claim.time_us):
        latest[after[claim.child]] = claim.time_us
    return [
        Merge(profile, tuple(sorted(formerly - {profile})), latest.get(profile, max(latest.values(), default=0)))
        for profile, formerly in sorted(together.items())
        if len(formerly) > 1
    ]
