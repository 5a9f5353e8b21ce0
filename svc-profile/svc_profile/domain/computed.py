# SPDX-License-Identifier: Apache-2.0
"""Computed traits: values that are declared as data and worked out from a customer's events whenever asked.

What is told is a function of the set of events and of the moment of asking: late and repeated events, merges and splits
need no care, a window is exact to the microsecond, and what is declared now counts what happened before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any

import msgspec
from chassis.clock import from_us
from chassis.errors import Invalid

from svc_profile.domain.traits import canonical, is_number

DAY_US = 86_400 * 1_000_000
MAX_KEYS = 100
"""Keys of a keyed trait that are told: those with the most events, then in the order of the keys."""

_LARGEST = Decimal(10) ** 15
_MICRO = Decimal("0.000001")
_EXACT = Context(prec=60)

_encode = msgspec.json.Encoder(order="sorted").encode


class Aggregate(StrEnum):
    """What is worked out."""

    COUNT = "COUNT"
    SUM = "SUM"
    MIN = "MIN"
    MAX = "MAX"
    FIRST = "FIRST"
    LAST = "LAST"
    MOST_FREQUENT = "MOST_FREQUENT"
    DISTINCT_COUNT = "DISTINCT_COUNT"
    DAYS_SINCE = "DAYS_SINCE"
    AVERAGE_GAP = "AVERAGE_GAP"


class Operator(StrEnum):
    """How a property is compared."""

    EQUALS = "EQUALS"
    IN = "IN"
    EXISTS = "EXISTS"


OF_A_PROPERTY = frozenset(
    {Aggregate.SUM, Aggregate.MIN, Aggregate.MAX, Aggregate.MOST_FREQUENT, Aggregate.DISTINCT_COUNT}
)
"""Aggregates that mean nothing without a property."""

_TELL_A_NUMBER = frozenset({Aggregate.COUNT, Aggregate.DISTINCT_COUNT, Aggregate.DAYS_SINCE, Aggregate.AVERAGE_GAP})
"""Aggregates that tell how many or how long, and nothing of the property itself."""


@dataclass(frozen=True)
class Condition:
    """What a property of an event must be."""

    property_path: str
    operator: Operator
    values: tuple[Any, ...] = ()

    def holds(self, properties: Mapping[str, Any]) -> bool:
        """Tell whether an event meets it; of a list, one element is enough."""
        found = values_at(properties, self.property_path)
        if self.operator is Operator.EXISTS:
            return any(value is not None for value in found)
        return any(_same(value, wanted) for value in found for wanted in self.values)


@dataclass(frozen=True)
class ComputedTrait:
    """A value that follows from a customer's events."""

    name: str
    aggregate: Aggregate
    event_names: tuple[str, ...]
    description: str = ""
    property_path: str = ""
    """Path into the properties, with dots; through a list it leads to each element."""
    conditions: tuple[Condition, ...] = ()
    window_days: int = 0
    """Only events of the last so many days of 24 hours; 0: all."""
    key_path: str = ""
    """When set, the trait is a map from each value of this property to the value over its events."""
    created_us: int = 0
    updated_us: int = 0

    def check(self) -> None:
        """Raise `Invalid` when the parts do not fit together."""
        if self.aggregate in OF_A_PROPERTY and not self.property_path:
            raise Invalid.field("computed_trait.property_path", f"{self.aggregate} needs a property")
        for position, condition in enumerate(self.conditions):
            wanted = condition.operator is not Operator.EXISTS
            if wanted is not bool(condition.values):
                rule = "are needed" if wanted else "must be empty with EXISTS"
                raise Invalid.field(f"computed_trait.conditions[{position}].values", rule)
            if condition.operator is Operator.EQUALS and len(condition.values) > 1:
                raise Invalid.field(f"computed_trait.conditions[{position}].values", "EQUALS takes one; use IN")

    @property
    def reads_properties(self) -> bool:
        """True when the times of the events alone do not say the value."""
        return bool(self.property_path or self.conditions or self.key_path)

    @property
    def tells_of(self) -> frozenset[str]:
        """Names of properties, at any depth, of which its value or its keys tell more than how many or how long."""
        told = [self.key_path] if self.aggregate in _TELL_A_NUMBER else [self.property_path, self.key_path]
        return frozenset(step for path in told for step in (path, *path.split(".")))


class Occurrence(msgspec.Struct, frozen=True, gc=False):
    """One event of the customer."""

    time_us: int
    key: bytes
    name: str
    properties: Mapping[str, Any]


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One event that counts, with the values of the property that is worked on."""

    time_us: int
    key: bytes
    values: Sequence[Any]

    @property
    def moment(self) -> tuple[int, bytes]:
        """Orders events, never by value."""
        return self.time_us, self.key


def evaluate(traits: Iterable[ComputedTrait], occurrences: Iterable[Occurrence], now_us: int) -> dict[str, Any]:
    """Work out traits; one that has no value (nothing happened) is left out, except that nothing counts 0."""
    by_name: dict[str, list[Occurrence]] = {}
    for occurrence in occurrences:
        by_name.setdefault(occurrence.name, []).append(occurrence)
    told = {}
    for trait in traits:
        value = _value(trait, [each for name in set(trait.event_names) for each in by_name.get(name, ())], now_us)
        if value is not None:
            told[trait.name] = value
    return told


def _value(trait: ComputedTrait, occurrences: Sequence[Occurrence], now_us: int) -> Any:
    after_us = now_us - trait.window_days * DAY_US if trait.window_days else None
    counted = [
        each
        for each in occurrences
        if (after_us is None or each.time_us > after_us)
        and all(condition.holds(each.properties) for condition in trait.conditions)
    ]
    if not trait.key_path:
        return _aggregated(trait, _samples(trait, counted), now_us)
    keyed: dict[str, list[Occurrence]] = {}
    for each in counted:
        for key in _keys(each.properties, trait.key_path):
            keyed.setdefault(key, []).append(each)
    most = sorted(keyed, key=lambda key: (-len(keyed[key]), key))[:MAX_KEYS]
    told = {key: _aggregated(trait, _samples(trait, keyed[key]), now_us) for key in sorted(most)}
    return {key: value for key, value in told.items() if value is not None}


def _samples(trait: ComputedTrait, occurrences: Iterable[Occurrence]) -> list[Sample]:
    if not trait.property_path:
        return [Sample(each.time_us, each.key, ()) for each in occurrences]
    found = []
    for each in occurrences:
        values = [value for value in values_at(each.properties, trait.property_path) if value is not None]
        if values:
            found.append(Sample(each.time_us, each.key, values))
    return found


def _aggregated(trait: ComputedTrait, samples: Sequence[Sample], now_us: int) -> Any:
    if not samples:
        return 0 if trait.aggregate in (Aggregate.COUNT, Aggregate.SUM, Aggregate.DISTINCT_COUNT) else None
    return _AGGREGATES[trait.aggregate](samples, now_us)


def _sum(samples: Sequence[Sample], now_us: int) -> int | float:
    total = Decimal(0)
    for number in _numbers(samples):
        summand = Decimal(repr(number))
        if abs(summand) < _LARGEST:
            total = _EXACT.add(total, summand.quantize(_MICRO, context=_EXACT))
    return int(total) if total == total.to_integral_value() else float(total)


def _min(samples: Sequence[Sample], now_us: int) -> int | float | None:
    return min(_numbers(samples), default=None)


def _max(samples: Sequence[Sample], now_us: int) -> int | float | None:
    return max(_numbers(samples), default=None)


def _first(samples: Sequence[Sample], now_us: int) -> Any:
    first = min(samples, key=lambda sample: sample.moment)
    return first.values[0] if first.values else _written(first.time_us)


def _last(samples: Sequence[Sample], now_us: int) -> Any:
    last = max(samples, key=lambda sample: sample.moment)
    return last.values[0] if last.values else _written(last.time_us)


def _most_frequent(samples: Sequence[Sample], now_us: int) -> Any:
    """The value of most events; of two, the one that came last."""
    seen: dict[bytes, tuple[int, tuple[int, bytes], int, Any]] = {}
    for sample in samples:
        for place, value in enumerate(sample.values):
            text = _encode(canonical(value))
            count, moment, at, known = seen.get(text, (0, sample.moment, place, value))
            later = (sample.moment, place) > (moment, at)
            seen[text] = (count + 1, *((sample.moment, place, value) if later else (moment, at, known)))
    return max(seen.values(), key=lambda entry: entry[:3])[3]


def _distinct_count(samples: Sequence[Sample], now_us: int) -> int:
    return len({_encode(canonical(value)) for sample in samples for value in sample.values})


def _days_since(samples: Sequence[Sample], now_us: int) -> int:
    return max(now_us - max(sample.time_us for sample in samples), 0) // DAY_US


def _average_gap(samples: Sequence[Sample], now_us: int) -> float | None:
    """Days between one event and the next, on average."""
    times = [sample.time_us for sample in samples]
    return (max(times) - min(times)) / (len(times) - 1) / DAY_US if len(times) > 1 else None


_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[Sample], int], Any]] = {
    Aggregate.COUNT: lambda samples, now_us: len(samples),
    Aggregate.SUM: _sum,
    Aggregate.MIN: _min,
    Aggregate.MAX: _max,
    Aggregate.FIRST: _first,
    Aggregate.LAST: _last,
    Aggregate.MOST_FREQUENT: _most_frequent,
    Aggregate.DISTINCT_COUNT: _distinct_count,
    Aggregate.DAYS_SINCE: _days_since,
    Aggregate.AVERAGE_GAP: _average_gap,
}


def values_at(properties: Mapping[str, Any], path: str) -> list[Any]:
    """Return what a path leads to: nothing, one value, or one for each element of a list on the way."""
    if path in properties:
        found = properties[path]
        return found if isinstance(found, list) else [found]
    values: list[Any] = [properties]
    for step in path.split("."):
        values = [inner for value in values for inner in _inside(value, step)]
    return [inner for value in values for inner in (value if isinstance(value, list) else [value])]


def _inside(value: Any, step: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if step in value:
            yield value[step]
    elif isinstance(value, list):
        for element in value:
            yield from _inside(element, step)


def _keys(properties: Mapping[str, Any], path: str) -> set[str]:
    """Return the keys of one event, each once: texts as they are, other simple values as JSON."""
    keys = set()
    for value in values_at(properties, path):
        if isinstance(value, str):
            keys.add(value)
        elif isinstance(value, bool | int | float):
            keys.add(_encode(canonical(value)).decode())
    return keys


def _numbers(samples: Sequence[Sample]) -> Iterator[int | float]:
    return (value for sample in samples for value in sample.values if is_number(value))


def _same(value: Any, wanted: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return isinstance(value, bool) is isinstance(wanted, bool) and value == wanted


def _written(time_us: int) -> str:
    return from_us(time_us).isoformat().replace("+00:00", "Z")
