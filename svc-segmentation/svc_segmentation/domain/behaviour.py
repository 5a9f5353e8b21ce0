# SPDX-License-Identifier: Apache-2.0
"""What is remembered of events: one row per customer's fragment, event name and day, that any order adds up to.

Within a day each event keeps its own time (and its amounts), so that a window is exact to the microsecond, wherever it
begins. On days with more than `KEPT` events of one name, the store keeps the latest ones apart and the rest as a sum.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from svc_segmentation.domain.functions import DAY_US

KEPT = 500
"""Events of one name, and amounts, of one fragment on one day that are kept apart."""

EARLIEST_US = -62_135_596_800 * 1_000_000
LATEST_US = 253_402_300_799 * 1_000_000


MAX_TRAITS = 2_000
"""Traits of one fragment; the first in alphabetical order, as in svc-profile."""

MAX_DEPTH = 16
_MAX_INTEGER = 2**63


@lru_cache(maxsize=16384)
def event_key(name: str) -> int:
    """Return the 64 bits under which an event's name is stored: short, and the same everywhere without a look-up."""
    return int.from_bytes(blake2b(name.encode(errors="replace"), digest_size=8).digest(), signed=True)


DayKey: TypeAlias = tuple[bytes, int, int]
"""Fragment, key of the event's name, and day since the epoch; rows are locked in this order."""


Amount: TypeAlias = tuple[str, int, str]
"""A number that one event carried: property, the event's time, and the value in decimal as PostgreSQL reads it."""


@dataclass(slots=True)
class Day:
    """Events of one name on one day, as far as one batch knows."""

    times_us: list[int]
    amounts: list[Amount]


class Stated(NamedTuple):
    """A trait's value, when it was stated and by which event; the greatest time wins, then the greatest tie."""

    time_us: int
    tie: str
    value: Any


class Decided(NamedTuple):
    """Traits of one fragment about which svc-profile decided, by a policy or by a type that values must have."""

    revision: int
    states: Mapping[str, Any]
    """By name, what goes above the statements: a list as in the store, or None when there is no value."""


@dataclass(slots=True)
class Behaviour:
    """What a batch of events says, by fragment."""

    days: dict[DayKey, Day] = field(default_factory=dict)
    traits: dict[bytes, dict[str, Stated]] = field(default_factory=dict)
    mappings: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    """Highest revision seen, and the profile, of each fragment."""

    def happened(self, fragment_id: bytes, key: int, time_us: int, amounts: Iterable[Amount] = ()) -> None:
        """Count one event, and sum its amounts."""
        day_key = (fragment_id, key, time_us // DAY_US)
        day = self.days.get(day_key)
        if day is None:
            self.days[day_key] = Day([time_us], list(amounts) if amounts else [])
        else:
            day.times_us.append(time_us)
            day.amounts += amounts

    def belongs(self, fragment_id: bytes, revision: int, profile_id: bytes) -> None:
        """Note where a fragment belongs, unless a higher revision said otherwise."""
        known = self.mappings.get(fragment_id)
        if known is None or known[0] < revision:
            self.mappings[fragment_id] = (revision, profile_id)

    def stated(self, fragment_id: bytes, traits: Mapping[str, Any], time_us: int, tie: str) -> None:
        """Note traits, the last writer by event time winning."""
        known = self.traits.setdefault(fragment_id, {})
        for name, value in traits.items():
            before = known.get(name)
            if before is None or (before.time_us, before.tie) < (time_us, tie):
                known[name] = Stated(time_us, tie, value)


def clamped(time_us: int) -> int:
    """Bring a time into the years 1 to 9999, so that arithmetic with it never overflows."""
    return time_us if EARLIEST_US <= time_us <= LATEST_US else min(max(time_us, EARLIEST_US), LATEST_US)


def tie_break(source: str, message_id: str) -> str:
    """Name an event so that of two at the same moment the same one wins everywhere; svc-profile names it alike."""
    return blake2b(f"{source}\x00{message_id}".encode(), digest_size=16).hexdigest()


def storable(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Bring a JSON value into a shape that PostgreSQL takes and can calculate with."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        return _as_float(value)
    if isinstance(value, dict | list) and depth == 0:
        return None
    if isinstance(value, dict):
        return {str(key).replace("\x00", ""): storable(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [storable(inner, depth - 1) for inner in value]
    return value


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
