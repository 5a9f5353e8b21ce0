# SPDX-License-Identifier: Apache-2.0
"""Segments and how they refer to one another."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from svc_segmentation.domain.rules import MOST_OF_STATEMENT, Rule, Size, Watch


@dataclass(frozen=True)
class Segment:
    """A rule with a name."""

    segment_id: str
    name: str
    description: str
    rule: str
    rule_version: int
    created_time: datetime
    updated_time: datetime
    member_count: int = 0


@dataclass(frozen=True)
class Draft:
    """What somebody wants a segment to be; None is left as it is."""

    name: str | None
    description: str | None
    rule: str | None


@dataclass(frozen=True)
class Membership:
    """A customer in a segment."""

    segment_id: str
    name: str
    profile_id: UUID
    entered_time: datetime


@dataclass(frozen=True)
class Previewed:
    """A segment that a customer would be in."""

    segment_id: str
    name: str
    rule_version: int
    entered_time: datetime | None
    """Since when; None when the customer would enter."""


@dataclass(frozen=True)
class Change:
    """A customer entered or left a segment."""

    segment_id: str
    name: str
    rule_version: int
    profile_id: UUID
    member: bool
    revision: int


@dataclass(frozen=True)
class PastChange:
    """That a customer entered or left a segment some time ago."""

    segment_id: str
    name: str
    member: bool
    change_time: datetime


@dataclass(frozen=True)
class Preview:
    """What a rule gives now."""

    count: int
    population: int
    sample: Sequence[UUID]


@dataclass(frozen=True)
class Judge:
    """A segment with its rule understood."""

    segment_id: str
    name: str
    rule_version: int
    rule: Rule


@dataclass(frozen=True)
class RuleSet:
    """All segments at one revision, each after those that it refers to."""

    revision: int
    judges: tuple[Judge, ...] = ()

    @property
    def watch(self) -> Watch:
        """What may change any answer."""
        watch = Watch()
        for judge in self.judges:
            watch |= judge.rule.watch
        return watch

    def needed_for(self, names: Collection[str]) -> tuple[Judge, ...]:
        """Return segments and all that their rules refer to, in order."""
        wanted = set(names)
        for judge in reversed(self.judges):
            if judge.name in wanted:
                wanted |= judge.rule.segments
        return tuple(judge for judge in self.judges if judge.name in wanted)

    def size_of(self, names: Collection[str]) -> Size:
        """Return what a statement has to carry that asks some segments."""
        return sum((judge.rule.size for judge in self.needed_for(names)), start=Size(0, 0))

    def groups(self, judges: Collection[Judge]) -> list[frozenset[str]]:
        """Divide some segments so that each group fits into one statement, with all that it refers to."""
        groups: list[frozenset[str]] = []
        names: frozenset[str] = frozenset()
        for judge in judges:
            if names and not self.size_of(names | {judge.name}).fits(MOST_OF_STATEMENT):
                groups.append(names)
                names = frozenset()
            names |= {judge.name}
        return [*groups, names] if names else groups

    def affected_by(self, names: Collection[str]) -> tuple[Judge, ...]:
        """Return segments and all whose rules refer to them, in order."""
        touched = set(names)
        for judge in self.judges:
            if judge.rule.segments & touched:
                touched.add(judge.name)
        return tuple(judge for judge in self.judges if judge.name in touched)

    def users_of(self, name: str) -> list[str]:
        """Return the names of the segments whose rules refer to one."""
        return [judge.name for judge in self.judges if name in judge.rule.segments]


def in_order(judges: Collection[Judge]) -> tuple[Judge, ...]:
    """Put each segment after those that it refers to; `find_circle` must have found none."""
    waiting = {judge.name: judge for judge in sorted(judges, key=lambda judge: judge.name)}
    ordered: list[Judge] = []
    done: set[str] = set()
    while waiting:
        ready = [judge for judge in waiting.values() if judge.rule.segments <= done]
        if not ready:
            raise ValueError("segments refer to one another in a circle, or to one that is missing")
        ordered += ready
        done.update(judge.name for judge in ready)
        for judge in ready:
            del waiting[judge.name]
    return tuple(ordered)


def find_circle(name: str, references: Mapping[str, Collection[str]]) -> list[str]:
    """Return a way along references from a name back to itself, empty when there is none."""
    ways = [[name, reference] for reference in sorted(references.get(name, ()))]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, reference] for reference in sorted(references.get(way[-1], ()))]
    return []
