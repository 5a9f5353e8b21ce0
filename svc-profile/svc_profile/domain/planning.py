# SPDX-License-Identifier: Apache-2.0
"""Compare what events look like with what their schema says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from svc_profile.domain.schemas import EventSchema
from svc_profile.domain.tracking import MAX_DEPTH, TYPES, EventSeen, PropertySeen, spell

_BRANCHES = ("allOf", "anyOf", "oneOf")
_MOST_STEPS = 2_000


@dataclass(frozen=True)
class Property:
    """A path at which something was seen, or should be."""

    path: str
    seen: PropertySeen | None
    """None when the schema names it and nobody has sent it."""
    is_planned: bool
    """True when the schema names it."""
    unplanned_types: tuple[str, ...] = ()
    """Types that were seen and that the schema does not allow."""


class Only(IntEnum):
    """Part of the plan."""

    UNPLANNED = 1
    """Seen, and without a schema."""
    UNSEEN = 2
    """With a schema, and never seen."""


@dataclass(frozen=True)
class Wanted:
    """Which events of the plan are wanted."""

    source: str = ""
    """Empty is any."""
    only: Only | None = None


@dataclass(frozen=True)
class TrackedEvent:
    """The events of one name, as they are and as they should be."""

    name: str
    by_source: Mapping[str, EventSeen]
    schema: EventSchema | None

    @property
    def total(self) -> EventSeen | None:
        """What was seen of all sources; None when nothing was."""
        total: EventSeen | None = None
        for seen in self.by_source.values():
            if total is None:
                total = EventSeen(seen.first_us, seen.last_us)
            total.absorb(seen)
        return total


def compare(seen: Mapping[str, PropertySeen], schema: EventSchema | None) -> list[Property]:
    """Put side by side what was seen and what is planned, by path."""
    planned = planned_paths(schema.schema) if schema else {}
    paths = sorted(seen.keys() | planned.keys())
    return [
        Property(path, seen.get(path), path in planned, _surprises(seen.get(path), planned.get(path))) for path in paths
    ]


def _surprises(seen: PropertySeen | None, allowed: set[str] | None) -> tuple[str, ...]:
    if seen is None or not allowed:
        return ()
    wide = allowed | {"integer"} if "number" in allowed else allowed
    return tuple(name for name, count in zip(TYPES, seen.types, strict=True) if count and name not in wide)


def planned_paths(schema: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the paths that a schema names, as deep as the tracking plan goes, with the types it allows.

    No types: any. References inside the schema are followed.
    """
    found: dict[str, set[str]] = {}
    for number, (path, allowed) in enumerate(_Walk(schema).paths(schema, "", MAX_DEPTH)):
        if number == _MOST_STEPS:
            break
        found.setdefault(path, set()).update(allowed)
    return found


class _Walk:
    """Goes through a schema, which may refer to itself."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root

    def paths(self, schema: Any, above: str, depth: int) -> Iterator[tuple[str, set[str]]]:
        """Walk along `properties` and `items`."""
        for part in self._parts(schema):
            properties = part.get("properties")
            for name, inner in properties.items() if isinstance(properties, dict) else ():
                yield from self._at(above + spell(name), inner, depth)

    def _at(self, path: str, schema: Any, depth: int) -> Iterator[tuple[str, set[str]]]:
        parts = self._parts(schema)
        yield path, {kind for part in parts for kind in _types(part)}
        if depth > 1:
            yield from self.paths(schema, path + ".", depth - 1)
        for items in (part["items"] for part in parts if isinstance(part.get("items"), dict)):
            yield path + "[]", {kind for inner in self._parts(items) for kind in _types(inner)}
            if depth > 1:
                yield from self.paths(items, path + "[].", depth - 1)

    def _parts(self, schema: Any) -> list[Mapping[str, Any]]:
        """Return a schema and those that it consists of, each once."""
        parts: dict[int, Mapping[str, Any]] = {}
        waiting = [schema]
        while waiting:
            part = waiting.pop(0)
            if not isinstance(part, dict) or id(part) in parts:
                continue
            parts[id(part)] = part
            if isinstance(part.get("$ref"), str):
                waiting.append(self._follow(part["$ref"]))
            waiting += [inner for name in _BRANCHES if isinstance(part.get(name), list) for inner in part[name]]
        return list(parts.values())

    def _follow(self, reference: str) -> Any:
        if not reference.startswith("#"):
            return None
        at: Any = self._root
        for part in reference.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            at = at.get(name) if isinstance(at, dict) else None
        return at


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type", ())
    return [kinds] if isinstance(kinds, str) else list(kinds)
