# SPDX-License-Identifier: Apache-2.0
"""Find the method of a request by its path, as it was sent: `%2F` inside a value is not a separator.

Templates are those of google.api.http with variables of one segment: literals, `{field}`, `{nested.field}`, and a
custom verb at the end (`/v1/segments:preview`, `/v1/items/{item_id}:hide`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)(?:=\*)?\}(?::([A-Za-z][A-Za-z0-9]*))?")


@dataclass
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    verbs: dict[str, _Node[T]] = field(default_factory=dict)
    variable: _Node[T] | None = None
    targets: dict[str, tuple[T, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Match(Generic[T]):
    """What a path leads to, and the values of the template's variables by field path."""

    target: T
    values: dict[str, str]


@dataclass(frozen=True)
class Miss:
    """A path that leads nowhere, or takes other methods."""

    allowed: tuple[str, ...] = ()


class BadPath(ValueError):
    """A path that is not UTF-8."""


class Router(Generic[T]):
    """A tree of path segments; literals win over variables."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, verb: str, template: str, target: T) -> None:
        """Add a route; raises ValueError for a template that is not understood or taken already."""
        node, names = self._root, []
        for segment in template.removeprefix("/").split("/"):
            node, name = _descend(node, segment, template)
            if name:
                names.append(name)
        if verb in node.targets:
            raise ValueError(f"two methods have {verb} {template}")
        node.targets[verb] = (target, tuple(names))

    def find(self, verb: str, raw_path: bytes) -> Match[T] | Miss:
        """Return where a request goes; raises `BadPath`."""
        segments = _segments(raw_path)
        allowed: set[str] = set()
        for node, values in _walk(self._root, segments, 0, ()):
            found = node.targets.get(verb)
            if found is not None:
                target, names = found
                return Match(target, dict(zip(names, values, strict=True)))
            allowed.update(node.targets)
        return Miss(tuple(sorted(allowed)))


def variables_of(template: str) -> tuple[str, ...]:
    """Return the field paths that a template binds."""
    return tuple(name for name, _ in _VARIABLE.findall(template))


def _descend(node: _Node[T], segment: str, template: str) -> tuple[_Node[T], str | None]:
    if not segment.startswith("{"):
        if not segment or set("{}*") & set(segment):
            raise ValueError(f"the gateway does not understand the path {template}")
        return node.literals.setdefault(segment, _Node()), None
    found = _VARIABLE.fullmatch(segment)
    if found is None:
        raise ValueError(f"the gateway does not understand the path {template}")
    if found[2]:
        return node.verbs.setdefault(found[2], _Node()), found[1]
    if node.variable is None:
        node.variable = _Node()
    return node.variable, found[1]


def _segments(raw_path: bytes) -> list[str]:
    try:
        return [unquote_to_bytes(segment).decode() for segment in raw_path.removeprefix(b"/").split(b"/")]
    except UnicodeDecodeError as error:
        raise BadPath("the path is not UTF-8") from error


def _walk(
    node: _Node[T], segments: list[str], at: int, values: tuple[str, ...]
) -> Iterator[tuple[_Node[T], tuple[str, ...]]]:
    if at == len(segments):
        yield node, values
        return
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        yield from _walk(literal, segments, at + 1, values)
    value, colon, verb = segment.rpartition(":")
    if colon and value and verb in node.verbs:
        yield from _walk(node.verbs[verb], segments, at + 1, (*values, value))
    if segment and node.variable is not None:
        yield from _walk(node.variable, segments, at + 1, (*values, segment))
