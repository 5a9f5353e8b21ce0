# SPDX-License-Identifier: Apache-2.0
"""The tracking plan: what events really look like. Names, paths, types and numbers, and never a value.

Adding up is commutative and associative, so no order of the events matters.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from svc_profile.domain.fragments import storable_text

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
"""JSON types in the order in which they are counted; a whole number is an integer."""

MAX_DEPTH = 3
"""Names in one path."""
MAX_ELEMENTS = 20
"""Elements of a list that are looked at."""
MAX_PATHS = 200
"""Paths of one event that are counted."""
MAX_INSPECTED = 30
"""Events of one name and source that are opened in one batch; all of them are counted."""
MAX_NAMES = 10_000
"""Pairs of name and source that are told apart; what comes after them is counted together."""
MAX_PROPERTIES = 500
"""Paths of one name and source that are told apart."""
MAX_NAME_LENGTH = 100
"""Characters of a name in a path; a longer one is written as one that looks like a value."""
MAX_BYTES = 1_000
"""Bytes of a path, and of the name of an event: both fit into one entry of an index."""

OTHERS = ""
"""Name under which all events beyond `MAX_NAMES` are counted."""
ANY_NAME = "*"
"""Stands in a path for a name that looks like a value: an address, a number, an id."""

_LOOKS_LIKE_A_VALUE = re.compile(r"@|[0-9]{6}|^[0-9a-fA-F-]{16,}$")

Key = tuple[str, str]
"""Name and source."""


@dataclass(slots=True)
class PropertySeen:
    """What was seen at one path of the events of one name and source."""

    first_us: int
    last_us: int
    count: int = 0
    """Inspected events that have something at the path."""
    types: list[int] = field(default_factory=lambda: [0] * len(TYPES))
    """Events by type of what they have there, in the order of `TYPES`."""

    def add(self, received_us: int, types: set[int]) -> None:
        """Add one event."""
        self.count += 1
        self.first_us, self.last_us = min(self.first_us, received_us), max(self.last_us, received_us)
        for position in types:
            self.types[position] += 1

    def absorb(self, other: "PropertySeen") -> None:
        """Add what was seen elsewhere."""
        self.count += other.count
        self.first_us, self.last_us = min(self.first_us, other.first_us), max(self.last_us, other.last_us)
        self.types = [mine + theirs for mine, theirs in zip(self.types, other.types, strict=True)]


@dataclass(slots=True)
class EventSeen:
    """What was seen of the events of one name and source. Times are those at which the gateway received events."""

    first_us: int
    last_us: int
    count: int = 0
    inspected: int = 0
    """Events whose properties were looked at."""
    properties: dict[str, PropertySeen] = field(default_factory=dict)

    def absorb(self, other: "EventSeen") -> None:
        """Add what was seen elsewhere."""
        self.count += other.count
        self.inspected += other.inspected
        self.first_us, self.last_us = min(self.first_us, other.first_us), max(self.last_us, other.last_us)
        for path, seen in other.properties.items():
            if path in self.properties:
                self.properties[path].absorb(seen)
            else:
                self.properties[path] = replace(seen, types=list(seen.types))


class Tally:
    """Counts a batch of events."""

    def __init__(self) -> None:
        self.seen: dict[Key, EventSeen] = {}

    def add(self, name: str, source: str, seen: EventSeen) -> EventSeen:
        """Add what was seen of some events of one name and source; answers what was seen of all such."""
        known = self.seen.setdefault((name, source), seen)
        if known is not seen:
            known.absorb(seen)
        return known


def inspect(seen: EventSeen, values: Mapping[str, Any], received_us: int) -> None:
    """Note the paths of one event, and the types of what is there."""
    seen.inspected += 1
    found: dict[str, set[int]] = {}
    _note(found, values, "", MAX_DEPTH)
    for path, types in found.items():
        known = seen.properties.get(path)
        if known is None:
            known = seen.properties[path] = PropertySeen(received_us, received_us)
        known.add(received_us, types)


def type_of(value: Any) -> int:
    """Return the position of a value's JSON type in `TYPES`."""
    kind = type(value)
    return _WHOLE if kind is float and value.is_integer() else _POSITIONS[kind]


@lru_cache(8192)
def spell(name: str) -> str:
    """Write a name as part of a path; one that looks like a value is not written."""
    if len(name) > MAX_NAME_LENGTH or _LOOKS_LIKE_A_VALUE.search(name):
        return ANY_NAME
    return storable_text(name).replace(".", "\\.")


_POSITIONS: Mapping[type, int] = {type(None): 0, bool: 1, int: 2, float: 3, str: 4, list: 5, dict: 6}
_WHOLE = _POSITIONS[int]
_MAX_PATH_LENGTH = MAX_BYTES // 4
"""Characters that cannot be more bytes than a path may have."""


def _note(found: dict[str, set[int]], values: Mapping[str, Any], above: str, depth: int) -> None:
    for name, value in values.items():
        path = above + spell(name)
        if len(path) > _MAX_PATH_LENGTH and len(path.encode()) > MAX_BYTES:
            continue
        _note_type(found, path, value)
        if isinstance(value, dict) and depth > 1:
            _note(found, value, path + ".", depth - 1)
        elif isinstance(value, list):
            for element in value[:MAX_ELEMENTS]:
                _note_type(found, path + "[]", element)
                if isinstance(element, dict) and depth > 1:
                    _note(found, element, path + "[].", depth - 1)


def _note_type(found: dict[str, set[int]], path: str, value: Any) -> None:
    types = found.get(path)
    if types is not None:
        types.add(type_of(value))
    elif len(found) < MAX_PATHS:
        found[path] = {type_of(value)}
