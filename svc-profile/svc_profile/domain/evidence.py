# SPDX-License-Identifier: Apache-2.0
"""Why identifiers are one person: what each piece of evidence is worth, what became of it, and chains of it."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from chassis.identifiers import ANONYMOUS_ID, USER_ID

from svc_profile.domain.claims import FORCED_RULES, Link, Rule
from svc_profile.domain.decisions import Record
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import KnownAs

DECIDED = 1.0
"""Confidence in what a person decided."""
ALIAS = 0.95
"""The client says itself that two ids are one person."""
LOGIN = 0.9
"""A user id came with an identifier that the customer typed in, such as an e-mail address."""
DEVICE = 0.8
"""A visitor's id came with an identifier: somebody used the device, nearly always its owner."""
TYPED = 0.7
"""Two identifiers came together that the customer typed in, without a login."""


def confidence(rule: str, child_namespace: str, parent_namespace: str) -> float:
    """Say how much evidence is worth, from 0 to 1: how it came about, and how much its names bind a person."""
    if rule in FORCED_RULES:
        return DECIDED
    if rule == Rule.ALIAS:
        return ALIAS
    if ANONYMOUS_ID in (child_namespace, parent_namespace):
        return DEVICE
    return LOGIN if USER_ID in (child_namespace, parent_namespace) else TYPED


class Outcome(StrEnum):
    """What became of a piece of evidence."""

    FOLLOWED = "followed"
    CORROBORATING = "corroborating"
    OUTRANKED = "outranked"
    LIMIT = "limit"
    DECISION = "decision"


@dataclass(frozen=True)
class Evidence:
    """A link, and who has its two ends."""

    link: Link
    child_profile: FragmentKey
    parent_profile: FragmentKey

    @property
    def joins(self) -> bool:
        """True when both ends are one customer."""
        return self.child_profile == self.parent_profile


@dataclass(frozen=True)
class Step:
    """A piece of evidence as it is told: between which names, why, and what became of it."""

    known_as: KnownAs
    belongs_to: KnownAs
    rule: str
    message_id: str
    source: str
    time_us: int
    confidence: float
    outcome: Outcome
    claiming_profile: FragmentKey | None
    """Who claims the identifier, when it is another customer."""


@dataclass(frozen=True)
class Explanation:
    """Why a customer is one person."""

    profile: FragmentKey
    steps: Sequence[Step]
    decisions: Sequence[Record]
    path: Sequence[Step]

    @property
    def path_confidence(self) -> float:
        """What the whole chain is worth; 0 without one."""
        return prod(step.confidence for step in self.path) if self.path else 0.0


def outcome_of(evidence: Evidence, kept_apart: Collection[tuple[FragmentKey, FragmentKey]]) -> Outcome:
    """Say what became of a link; `kept_apart` holds pairs of customers whom a decision keeps apart."""
    link = evidence.link
    if evidence.joins:
        return Outcome.CORROBORATING if link.refused else Outcome.FOLLOWED
    if {(evidence.child_profile, evidence.parent_profile), (evidence.parent_profile, evidence.child_profile)} & set(
        kept_apart
    ):
        return Outcome.DECISION
    return Outcome.LIMIT if link.eligible or link.claim.joins_two_people else Outcome.OUTRANKED


def chain(start: FragmentKey, end: FragmentKey, steps: Iterable[Step]) -> list[Step]:
    """Find the shortest chain of followed evidence from one name to another; empty when there is none."""
    beside: dict[FragmentKey, list[tuple[FragmentKey, Step]]] = {}
    for step in steps:
        if step.outcome is Outcome.FOLLOWED:
            ends = step.known_as.fragment, step.belongs_to.fragment
            beside.setdefault(ends[0], []).append((ends[1], step))
            beside.setdefault(ends[1], []).append((ends[0], step))
    came: dict[FragmentKey, tuple[FragmentKey, Step] | None] = {start: None}
    waiting = deque([start])
    while waiting and end not in came:
        here = waiting.popleft()
        for neighbour, step in beside.get(here, ()):
            if neighbour not in came:
                came[neighbour] = here, step
                waiting.append(neighbour)
    return _walked(end, came)


def _walked(end: FragmentKey, came: Mapping[FragmentKey, tuple[FragmentKey, Step] | None]) -> list[Step]:
    path: list[Step] = []
    arrived = came.get(end)
    while arrived is not None:
        path.append(arrived[1])
        arrived = came[arrived[0]]
    return path[::-1]
