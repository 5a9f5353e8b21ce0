# SPDX-License-Identifier: Apache-2.0
"""A rule, understood: its condition, and everything that can change its answer."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.behaviour import event_key
from svc_segmentation.domain.checker import check
from svc_segmentation.domain.expressions import Expression
from svc_segmentation.domain.parser import parse
from svc_segmentation.domain.syntax import RuleError
from svc_segmentation.domain.timing import Instant, instants


@dataclass(frozen=True)
class Watch:
    """What must happen to a customer for some rule to change its answer."""

    event_keys: frozenset[int] = frozenset()
    traits: frozenset[str] = frozenset()
    every_event: bool = False

    def __or__(self, other: "Watch") -> "Watch":
        return Watch(
            self.event_keys | other.event_keys,
            self.traits | other.traits,
            self.every_event or other.every_event,
        )


class Size(NamedTuple):
    """How much one statement has to carry."""

    facts: int
    """Different things asked of a customer."""
    parts: int
    """Operators and operands."""

    def __add__(self, other: "Size") -> "Size":  # type: ignore[override]
        return Size(self.facts + other.facts, self.parts + other.parts)

    def fits(self, most: "Size") -> bool:
        """Tell whether neither number is greater."""
        return self.facts <= most.facts and self.parts <= most.parts


MOST_OF_RULE = Size(200, 5_000)
MOST_OF_STATEMENT = Size(800, 15_000)
"""PostgreSQL takes 1,664 columns and 32,767 parameters."""


@dataclass(frozen=True)
class Rule:
    """A condition on one customer."""

    condition: Expression

    @cached_property
    def parts(self) -> tuple[Expression, ...]:
        """Everything that the rule consists of."""
        return tuple(ex.parts(self.condition))

    @cached_property
    def segments(self) -> frozenset[str]:
        """Names of the segments that it refers to."""
        return frozenset(part.name for part in self.parts if isinstance(part, ex.InSegment))

    @cached_property
    def instants(self) -> frozenset[Instant]:
        """The moments at which time alone may change its answer."""
        return instants(self.condition)

    @cached_property
    def size(self) -> Size:
        """What the rule adds to a statement."""
        asked = (ex.Count, ex.Sum, ex.Moment, ex.Trait)
        facts = {part for part in self.parts if isinstance(part, asked)} | self.instants
        return Size(len(facts) + 1, len(self.parts))

    @cached_property
    def watch(self) -> Watch:
        """The events and traits that may change its answer."""
        counted = (part for part in self.parts if isinstance(part, ex.Count | ex.Sum | ex.Moment))
        return Watch(
            event_keys=frozenset(event_key(part.event) for part in counted),
            traits=frozenset(part.name for part in self.parts if isinstance(part, ex.Trait)),
            every_event=any(isinstance(part, ex.Seen) for part in self.parts),
        )


def read_rule(text: str, *, properties: Collection[str] | None = None) -> Rule:
    """Parse and check a rule; raises `RuleError`. Only `properties` of events can be summed (None is any)."""
    rule = Rule(check(parse(text), properties=properties))
    if not rule.size.fits(MOST_OF_RULE):
        raise RuleError(f"the rule asks too much: at most {MOST_OF_RULE.facts} different things of a customer", 0)
    return rule
