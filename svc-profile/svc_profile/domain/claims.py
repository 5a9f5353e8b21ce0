# SPDX-License-Identifier: Apache-2.0
"""What events claim about identity, and which of the claims count.

An event with several names claims that each weaker name belongs to the strongest. Of the claims of one name only the
earliest per kind of stronger name counts: a device that 10,000 people log in on belongs to the first. Of a name that
people share only the earliest claim of all counts, so that it never stands between two of them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from chassis.identifiers import ANONYMOUS_ID, USER_ID

from svc_profile.domain.events import Event, FragmentKey, Name

Pair = tuple[FragmentKey, FragmentKey]
"""The weaker name and the stronger one."""


class Rule(StrEnum):
    """Why two names should be one customer."""

    SAME_EVENT = "same_event"
    ALIAS = "alias"
    CONTENT = "content"
    """What was learnt under a name, derived anew under another fragment."""
    SHARED_DEVICE = "shared_device"
    """What was done on a shared device while a later user was logged in."""


DERIVED = "derived"
"""Namespace of fragments that nobody is known by."""

FORCED_RULES = frozenset({Rule.CONTENT, Rule.SHARED_DEVICE})
"""Rules of links that the platform itself makes: always followed, whatever limits or people say. Their children are
leaves, and no further names of their customers."""


class Claim(msgspec.Struct, frozen=True, gc=False):
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
        return self.child_namespace == USER_ID == self.parent_namespace and not self.is_forced

    @property
    def is_login(self) -> bool:
        """True when a user was seen on a device."""
        return self.child_namespace == ANONYMOUS_ID and self.parent_namespace == USER_ID

    @property
    def is_forced(self) -> bool:
        """True when the platform itself made the link: always followed."""
        return self.rule in FORCED_RULES


class Link(msgspec.Struct, frozen=True, gc=False):
    """A claim and what became of it."""

    claim: Claim
    eligible: bool
    """True while it is the child's earliest claim of its kind."""
    refused: bool
    """True when it does not join, because that would have made two people one."""


@dataclass(frozen=True)
class Admission:
    """What new claims change before anybody asks who is joined."""

    links: Mapping[Pair, Link]
    """Links that are new or different; which of the eligible ones are refused is still open."""
    touched: frozenset[FragmentKey]
    """Ends of the new links that count. Following the links that counted before from here leads to everybody whose
    identity may change: a child that left one parent has gone to another."""
    bound: frozenset[FragmentKey]
    """Children that other links hold, or held until now."""


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
    parent = event.names.seen[0]
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


def eligible_claims(claims: Iterable[Claim], shared: Collection[str] = ()) -> list[Claim]:
    """Return the claims that count: of each child, the earliest per kind of parent; of a shared one, the earliest."""
    earliest: dict[tuple[FragmentKey, str], Claim] = {}
    for claim in claims:
        if claim.joins_two_people:
            continue
        kind = claim.child, claim.rule if claim.is_forced else _kind(claim, shared)
        known = earliest.get(kind)
        if known is None or claim.order < known.order:
            earliest[kind] = claim
    return list(earliest.values())


def _kind(claim: Claim, shared: Collection[str]) -> str:
    return "" if claim.child_namespace in shared else claim.parent_namespace


def admit(stored: Mapping[Pair, Link], claims: Mapping[Pair, Claim], shared: Collection[str] = ()) -> Admission:
    """Decide which claims count, the new ones and those that they outrank.

    `stored` holds the claimed pairs that are known, and every eligible link of the children.
    """
    new = {pair: claim for pair, claim in claims.items() if pair not in stored or _precedes(claim, stored[pair])}
    counted = {pair: link.claim for pair, link in stored.items() if link.eligible}
    eligible = {claim.pair for claim in eligible_claims({**counted, **new}.values(), shared)}
    outranked = {pair: claim for pair, claim in counted.items() if pair not in eligible}
    links = {pair: Link(claim, pair in eligible, pair not in eligible) for pair, claim in (outranked | new).items()}
    return Admission(
        links,
        touched=frozenset(end for pair in links if pair in eligible for end in pair),
        bound=frozenset(pair[0] for pair in counted if pair in outranked or pair not in new),
    )


def _precedes(claim: Claim, link: Link) -> bool:
    return (claim.time_us, claim.event_key) < (link.claim.time_us, link.claim.event_key)
