# SPDX-License-Identifier: Apache-2.0
"""Traits, and how many statements of one become one value: a fold for each policy, whatever the order of arrival.

A fold starts from single statements (`state`) and joins what was folded apart (`join`, commutative and associative), so
the same rule works inside a batch, inside a fragment and across the fragments of a customer. A trait without a policy
of its own takes the short way: the latest statement wins.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from chassis.clock import to_us

MAX_UNION = 100
"""Values of a union; the first ones in the order of their JSON."""

MAX_UNION_VALUE_BYTES = 1_000

_LARGEST_SUMMAND = Decimal(10) ** 15
_MICRO = Decimal("0.000001")
# Room for 10^30 summands: adding never rounds, so it is associative.
_EXACT = Context(prec=60)

_encode = msgspec.json.Encoder(order="sorted").encode


class Policy(StrEnum):
    """Which of several statements of a trait is its value."""

    MOST_RECENT = "MOST_RECENT"
    OLDEST = "OLDEST"
    FIRST_NON_EMPTY = "FIRST_NON_EMPTY"
    SOURCE_PRIORITY = "SOURCE_PRIORITY"
    UNION = "UNION"
    SUM = "SUM"
    MIN = "MIN"
    MAX = "MAX"


class Trait(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The value of a trait, and what decides whether another one replaces it; an array in JSON."""

    value: Any
    time_us: int
    event_key: str
    """Hexadecimal, as it is kept in JSON."""
    source: str = ""
    """Which write key stated it; kept for traits with a policy of their own only."""

    def is_later_than(self, other: "Trait") -> bool:
        """Compare by event time, then by event key; never by value."""
        return (self.time_us, self.event_key) > (other.time_us, other.event_key)


class Fold(Protocol):
    """How one trait folds."""

    def state(self, value: Any, time_us: int, event_key: str, source: str) -> Trait | None:
        """Return what one statement is by itself; None when it says nothing under this policy."""

    def join(self, one: Trait, other: Trait) -> Trait:
        """Put together what was folded apart."""

    def answer(self, trait: Trait) -> Any:
        """Return the value as it is told; None is no value."""


Policies = Mapping[str, Fold]
"""The folds of the traits that have a policy of their own."""

NO_POLICIES: Policies = MappingProxyType({})


@dataclass(frozen=True)
class Selecting:
    """One of the statements is the value: the one that comes last in some order, or first."""

    order: Callable[[Trait], Any]
    """Ends in event time and event key, so that no two statements are equal."""
    pick: Callable[..., Trait] = max
    takes: Callable[[Any], bool] = lambda value: True

    def state(self, value: Any, time_us: int, event_key: str, source: str) -> Trait | None:
        """Take a statement as it is, if it can be compared."""
        return Trait(value, time_us, event_key, source) if self.takes(value) else None

    def join(self, one: Trait, other: Trait) -> Trait:
        """Pick one; a value from the time of another policy, which cannot be compared, gives way."""
        if not self.takes(one.value):
            return other
        return self.pick(one, other, key=self.order) if self.takes(other.value) else one

    def answer(self, trait: Trait) -> Any:
        """Tell the value."""
        return trait.value


class Union:
    """All values that were ever stated, each once; elements of a list count singly."""

    def state(self, value: Any, time_us: int, event_key: str, source: str) -> Trait | None:
        """Take the values of one statement."""
        values = _first_values(value if isinstance(value, list) else [value])
        return Trait(values, time_us, event_key, source) if values else None

    def join(self, one: Trait, other: Trait) -> Trait:
        """Put the values together."""
        values = [element for trait in (one, other) if isinstance(trait.value, list) for element in trait.value]
        return msgspec.structs.replace(_later(one, other), value=_first_values(values))

    def answer(self, trait: Trait) -> Any:
        """Tell the values."""
        return trait.value


class Sum:
    """The sum of the numbers that were stated, exact to a millionth; kept as text."""

    def state(self, value: Any, time_us: int, event_key: str, source: str) -> Trait | None:
        """Take a number below 10^15."""
        if not is_number(value) or abs(value) >= _LARGEST_SUMMAND:
            return None
        summand = Decimal(repr(value)).quantize(_MICRO, context=_EXACT)
        return Trait(_plain(summand), time_us, event_key, source)

    def join(self, one: Trait, other: Trait) -> Trait:
        """Add."""
        total = _EXACT.add(_decimal(one.value), _decimal(other.value))
        return msgspec.structs.replace(_later(one, other), value=_plain(total))

    def answer(self, trait: Trait) -> Any:
        """Tell the sum as a number."""
        total = _decimal(trait.value)
        return int(total) if total == total.to_integral_value() else float(total)


def fold_of(policy: Policy, sources: tuple[str, ...] = (), comparable: Callable[[Any], Any] | None = None) -> Fold:
    """Return the fold of a policy; `sources` strongest first, `comparable` reads a value for MIN and MAX."""
    read = comparable or number_or_none
    match policy:
        case Policy.MOST_RECENT:
            return Selecting(_moment)
        case Policy.OLDEST:
            return Selecting(_moment, min)
        case Policy.FIRST_NON_EMPTY:
            return Selecting(_moment, min, is_not_empty)
        case Policy.SOURCE_PRIORITY:
            rank = {source: len(sources) - place for place, source in enumerate(sources)}
            return Selecting(lambda trait: (rank.get(trait.source, 0), *_moment(trait)))
        case Policy.UNION:
            return Union()
        case Policy.SUM:
            return Sum()
        case Policy.MIN | Policy.MAX:
            pick = min if policy is Policy.MIN else max
            return Selecting(
                lambda trait: (read(trait.value), *_moment(trait)), pick, lambda value: read(value) is not None
            )


def stated(
    traits: Mapping[str, Any], time_us: int, event_key: str, source: str, policies: Policies = NO_POLICIES
) -> dict[str, Trait]:
    """Return what one event states."""
    if not policies or policies.keys().isdisjoint(traits):
        return {name: Trait(value, time_us, event_key) for name, value in traits.items()}
    found: dict[str, Trait] = {}
    for name, value in traits.items():
        fold = policies.get(name)
        trait = fold.state(value, time_us, event_key, source) if fold else Trait(value, time_us, event_key)
        if trait is not None:
            found[name] = trait
    return found


def join_into(known: dict[str, Trait], traits: Mapping[str, Trait], policies: Policies = NO_POLICIES) -> None:
    """Add traits to those that are known."""
    for name, trait in traits.items():
        before = known.get(name)
        if before is None:
            known[name] = trait
        elif policies and name in policies:
            known[name] = policies[name].join(before, trait)
        elif trait.is_later_than(before):
            known[name] = trait


def answers(traits: Mapping[str, Trait], policies: Policies = NO_POLICIES) -> dict[str, Any]:
    """Return the values by name, without those that are null: so a client takes a trait back."""
    told = {}
    for name in sorted(traits):
        fold = policies.get(name)
        value = fold.answer(traits[name]) if fold else traits[name].value
        if value is not None:
            told[name] = value
    return told


def is_number(value: Any) -> bool:
    """Tell whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_or_none(value: Any) -> int | float | None:
    """Read a number; Python compares whole and floating ones exactly."""
    return value if is_number(value) else None


def text_or_none(value: Any) -> str | None:
    """Read a text."""
    return value if isinstance(value, str) else None


def time_or_none(value: Any) -> int | None:
    """Read an ISO 8601 date or time in microseconds; one without an offset is in UTC."""
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def is_not_empty(value: Any) -> bool:
    """Tell whether a value says something: not null, no empty text, list or object."""
    return value is not None and value != "" and value != [] and value != {}


def _moment(trait: Trait) -> tuple[int, str]:
    return trait.time_us, trait.event_key


def _later(one: Trait, other: Trait) -> Trait:
    return one if one.is_later_than(other) else other


def _first_values(values: list[Any]) -> list[Any]:
    """Return distinct values in the order of their JSON, the first `MAX_UNION` of them."""
    distinct = {_encode(plain): plain for value in values if (plain := canonical(value)) is not None}
    kept = sorted(text for text in distinct if len(text) <= MAX_UNION_VALUE_BYTES)
    return [distinct[text] for text in kept[:MAX_UNION]]


def without(values: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Return the values that are not among others; as JSON, true is not 1."""
    left_out = {_encode(canonical(other)) for other in others}
    return [value for value in values if _encode(canonical(value)) not in left_out]


def canonical(value: Any) -> Any:
    """Write equal numbers alike, as PostgreSQL's jsonb does: 1.0 and 1 are one value."""
    if isinstance(value, float):
        number = Decimal(repr(value))
        return int(number) if number == number.to_integral_value() else value
    if isinstance(value, dict):
        return {name: canonical(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [canonical(inner) for inner in value]
    return value


def _decimal(text: Any) -> Decimal:
    """Read a sum; what was kept under another policy counts nothing until it is derived again."""
    try:
        number = Decimal(text) if isinstance(text, str) else Decimal(0)
    except InvalidOperation:
        return Decimal(0)
    return number if number.is_finite() else Decimal(0)


def _plain(number: Decimal) -> str:
    return format(number, "f")
