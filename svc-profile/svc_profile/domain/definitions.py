# SPDX-License-Identifier: Apache-2.0
"""What somebody decided about traits: their policy, what they must look like, and what happens when they do not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import isfinite
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import msgspec
from chassis.errors import Invalid

from svc_profile.domain.computed import ComputedTrait
from svc_profile.domain.events import Event
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.domain.traits import (
    Fold,
    Policies,
    Policy,
    fold_of,
    is_number,
    number_or_none,
    text_or_none,
    time_or_none,
)

TRAIT_INVALID = "TRAIT_INVALID"
"""Reason in the log of rejected events: a trait broke its definition."""

# Linear time whatever the pattern and the value, which a stranger may have chosen.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=2**20)


class TraitType(StrEnum):
    """What a trait's value must be."""

    ANY = "ANY"
    STRING = "STRING"
    NUMBER = "NUMBER"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    TIME = "TIME"
    STRING_LIST = "STRING_LIST"
    OBJECT = "OBJECT"


class Enforcement(StrEnum):
    """What happens to a value that breaks the definition."""

    OFF = "OFF"
    WARN = "WARN"
    """It is learnt, and recorded."""
    REJECT = "REJECT"
    """It is not learnt, and recorded."""


_TEXTS = (TraitType.STRING, TraitType.STRING_LIST)
_NUMBERS = (TraitType.NUMBER, TraitType.INTEGER)
COMPARABLE: Mapping[TraitType, Callable[[Any], Any]] = {
    TraitType.NUMBER: number_or_none,
    TraitType.INTEGER: number_or_none,
    TraitType.STRING: text_or_none,
    TraitType.TIME: time_or_none,
}

_IS_OF_TYPE: Mapping[TraitType, tuple[Callable[[Any], bool], str]] = {
    TraitType.ANY: (lambda value: True, ""),
    TraitType.STRING: (lambda value: isinstance(value, str), "must be a text"),
    TraitType.NUMBER: (is_number, "must be a number"),
    TraitType.INTEGER: (lambda value: is_number(value) and value == int(value), "must be a whole number"),
    TraitType.BOOLEAN: (lambda value: isinstance(value, bool), "must be true or false"),
    TraitType.TIME: (lambda value: time_or_none(value) is not None, "must be an ISO 8601 date or time"),
    TraitType.STRING_LIST: (
        lambda value: isinstance(value, list) and all(isinstance(element, str) for element in value),
        "must be a list of texts",
    ),
    TraitType.OBJECT: (lambda value: isinstance(value, dict), "must be an object"),
}


@dataclass(frozen=True)
class TraitDefinition:
    """One trait as somebody defined it."""

    name: str
    description: str = ""
    type: TraitType = TraitType.ANY
    policy: Policy = Policy.MOST_RECENT
    sources: tuple[str, ...] = ()
    """Write keys, strongest first; for SOURCE_PRIORITY."""
    pii: bool = True
    allowed_values: tuple[str, ...] = ()
    pattern: str = ""
    minimum: float | None = None
    maximum: float | None = None
    enforcement: Enforcement = Enforcement.OFF
    created_us: int = 0
    updated_us: int = 0

    def check(self) -> None:
        """Raise `Invalid` when the parts do not fit together."""
        for broken, name, rule in (
            (self.policy is Policy.SOURCE_PRIORITY and not self.sources, "sources", "SOURCE_PRIORITY needs sources"),
            (
                self.policy is not Policy.SOURCE_PRIORITY and bool(self.sources),
                "sources",
                "only SOURCE_PRIORITY has sources",
            ),
            (len(set(self.sources)) < len(self.sources), "sources", "must be distinct"),
            (self.policy is Policy.SUM and self.type not in _NUMBERS, "type", "SUM needs NUMBER or INTEGER"),
            (
                self.policy in (Policy.MIN, Policy.MAX) and self.type not in COMPARABLE,
                "type",
                "MIN and MAX need NUMBER, INTEGER, STRING or TIME",
            ),
            (
                bool(self.allowed_values) and self.type not in _TEXTS,
                "allowed_values",
                "need the type STRING or STRING_LIST",
            ),
            (bool(self.pattern) and self.type not in _TEXTS, "pattern", "needs the type STRING or STRING_LIST"),
            (self.minimum is not None and self.type not in _NUMBERS, "minimum", "needs the type NUMBER or INTEGER"),
            (self.maximum is not None and self.type not in _NUMBERS, "maximum", "needs the type NUMBER or INTEGER"),
            (self.minimum is not None and not isfinite(self.minimum), "minimum", "must be a finite number"),
            (self.maximum is not None and not isfinite(self.maximum), "maximum", "must be a finite number"),
            (
                self.minimum is not None and self.maximum is not None and self.minimum > self.maximum,
                "maximum",
                "must not be below minimum",
            ),
        ):
            if broken:
                raise Invalid.field(f"trait_definition.{name}", rule)
        self._matcher  # noqa: B018  (a pattern that is none is refused here)

    @property
    def fold(self) -> Fold | None:
        """How the trait folds; None when the latest statement wins, as without a definition."""
        if self.policy is Policy.MOST_RECENT:
            return None
        return fold_of(self.policy, self.sources, COMPARABLE.get(self.type))

    @property
    def decides(self) -> tuple[Any, ...]:
        """All that bears on the value: when none of it changes, nothing needs to be derived again."""
        return (
            self.policy,
            self.sources,
            self.type if self.policy in (Policy.MIN, Policy.MAX) or self.rejects else None,
            (self.allowed_values, self.pattern, self.minimum, self.maximum) if self.rejects else None,
        )

    @property
    def rejects(self) -> bool:
        """True when a value that breaks the definition is not learnt."""
        return self.enforcement is Enforcement.REJECT

    def broken_rule(self, value: Any) -> str | None:
        """Return the rule that a value breaks, without the value; null takes a trait back and breaks none."""
        if value is None:
            return None
        is_of_type, rule = _IS_OF_TYPE[self.type]
        if not is_of_type(value):
            return rule
        if self.type in _TEXTS:
            return self._broken_by_text(value if isinstance(value, list) else [value])
        return self._broken_by_number(value) if self.type in _NUMBERS else None

    def _broken_by_text(self, texts: Sequence[str]) -> str | None:
        if self.allowed_values and not set(texts) <= self._allowed:
            return "must be one of " + ", ".join(self.allowed_values)
        if self._matcher and not all(map(self._matcher.is_valid, texts)):
            return f"must match {self.pattern}"
        return None

    def _broken_by_number(self, number: float) -> str | None:
        if self.minimum is not None and number < self.minimum:
            return f"must be at least {self.minimum:g}"
        if self.maximum is not None and number > self.maximum:
            return f"must be at most {self.maximum:g}"
        return None

    @cached_property
    def _allowed(self) -> frozenset[str]:
        return frozenset(self.allowed_values)

    @cached_property
    def _matcher(self) -> Any:
        if not self.pattern:
            return None
        schema = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        try:
            return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise Invalid.field("trait_definition.pattern", "must be a regular expression (RE2)") from error


@dataclass(frozen=True)
class TraitSchema:
    """All that somebody decided about traits, at one revision."""

    revision: int = 0
    definitions: Mapping[str, TraitDefinition] = field(default_factory=lambda: MappingProxyType({}))
    computed: tuple[ComputedTrait, ...] = ()

    @cached_property
    def policies(self) -> Policies:
        """The folds of traits with a policy of their own."""
        return {name: fold for name, definition in self.definitions.items() if (fold := definition.fold) is not None}

    @cached_property
    def enforced(self) -> Mapping[str, TraitDefinition]:
        """The definitions that are looked at when an event comes."""
        return {
            name: definition
            for name, definition in self.definitions.items()
            if definition.enforcement is not Enforcement.OFF
        }

    @cached_property
    def deciding(self) -> Mapping[str, TraitDefinition]:
        """The definitions that bear on values, so that what events state is not yet what a trait is."""
        return {
            name: definition
            for name, definition in self.definitions.items()
            if definition.rejects or definition.policy is not Policy.MOST_RECENT
        }

    def accepted(self, traits: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what of an event's traits is learnt."""
        if self.enforced.keys().isdisjoint(traits):
            return traits
        refused = {
            name
            for name, definition in self.enforced.items()
            if name in traits and definition.rejects and definition.broken_rule(traits[name])
        }
        return {name: value for name, value in traits.items() if name not in refused} if refused else traits

    def judge(self, events: Sequence[Event]) -> tuple[Sequence[Event], list[RejectedEvent]]:
        """Return the events with the traits that are learnt, and a record of each trait that broke its definition."""
        if not self.enforced:
            return events, []
        return [self._judged(event) for event in events], [record for event in events for record in self._broken(event)]

    def _judged(self, event: Event) -> Event:
        accepted = self.accepted(event.traits)
        return event if accepted is event.traits else msgspec.structs.replace(event, traits=accepted)

    def _broken(self, event: Event) -> Iterable[RejectedEvent]:
        if not event.traits or self.enforced.keys().isdisjoint(event.traits):
            return
        for name, definition in self.enforced.items():
            rule = definition.broken_rule(event.traits[name]) if name in event.traits else None
            if rule:
                yield RejectedEvent(
                    message_id=event.message_id,
                    source=event.source,
                    reason=TRAIT_INVALID,
                    detail=f"traits.{name}: {rule}" + ("" if definition.rejects else " (learnt all the same)"),
                    position=0,
                    received_time_us=event.received_time_us,
                    body=b"",
                )

    def with_definition(self, definition: TraitDefinition) -> "TraitSchema":
        """Return the schema with one definition more, or another one."""
        return replace(self, definitions={**self.definitions, definition.name: definition})


NO_SCHEMA = TraitSchema()
