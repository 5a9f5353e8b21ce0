# SPDX-License-Identifier: Apache-2.0
"""From a third party's JSON to events, by rules that the operator has written as data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.alias_generators import to_camel

from gateway.ingest.shapes import MAX_MESSAGE_ID_LENGTH
from gateway.webhooks.paths import Path, is_path

Template = Any
"""A path, a constant, or an object or list of these."""


class Rule(BaseModel):
    """Which events a body becomes. A text that begins with `$` or `@` is a path, everything else a constant."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    when: dict[str, Any] = {}
    """The rule holds when each of these paths has this value, or one of these values."""
    each: str = ""
    """Path of a list: one event per element, which is `@` below. Empty is one event."""
    type: Template = "track"
    event: Template = None
    name: Template = None
    category: Template = None
    user_id: Template = None
    anonymous_id: Template = None
    previous_id: Template = None
    group_id: Template = None
    traits: Template = None
    properties: Template = None
    context: Template = None
    timestamp: Template = None
    message_id: Template = None
    """Must differ from event to event; made from the id of the delivery when missing."""

    @field_validator("*")
    @classmethod
    def _paths_can_be_read(cls, value: Template) -> Template:
        for text in _texts(value):
            if is_path(text):
                Path.read(text)
        return value

    @field_validator("when")
    @classmethod
    def _conditions_are_paths(cls, value: dict[str, Any]) -> dict[str, Any]:
        for text in value:
            if not is_path(text):
                raise ValueError(f"{text!r} is not a path: it begins with $ or @")
            Path.read(text)
        return value

    @field_validator("each")
    @classmethod
    def _list_is_a_path(cls, value: str) -> str:
        if value and not is_path(value):
            raise ValueError("must be a path that begins with $")
        return value


_MEMBERS = tuple(name for name in Rule.model_fields if name not in ("when", "each"))


class Mapper:
    """Makes events of bodies."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = [_Compiled(rule) for rule in rules]

    def events(self, body: Any, delivery: str) -> Iterator[bytes]:
        """Yield the events of a body as JSON; `delivery` names it, so that a repetition makes the same ids."""
        for number, rule in enumerate(self._rules):
            for position, event in enumerate(rule.events(body)):
                if event.get("messageId", "") == "":
                    event["messageId"] = _message_id(delivery, number, position)
                yield json.dumps(event).encode()


class _Compiled:
    def __init__(self, rule: Rule) -> None:
        self._when = [(Path.read(path), _values(wanted)) for path, wanted in rule.when.items()]
        self._each = Path.read(rule.each) if rule.each else None
        self._members = {
            to_camel(name): _compile(template) for name in _MEMBERS if (template := getattr(rule, name)) is not None
        }

    def events(self, body: Any) -> Iterator[dict[str, Any]]:
        elements = self._each.find(body, body) if self._each else [body]
        for element in elements if isinstance(elements, list) else ():
            if all(_is_one_of(path.find(body, element), wanted) for path, wanted in self._when):
                filled = ((name, _fill(template, body, element)) for name, template in self._members.items())
                yield {name: value for name, value in filled if value is not None}


def _values(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _is_one_of(value: Any, wanted: list[Any]) -> bool:
    """Compare as JSON does, where true is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)


def _compile(template: Template) -> Template:
    """Read the paths in a template once."""
    if isinstance(template, str):
        if is_path(template):
            return Path.read(template)
        return template[1:] if template[:2] in ("$$", "@@") else template
    if isinstance(template, dict):
        return {name: _compile(part) for name, part in template.items()}
    if isinstance(template, list):
        return [_compile(part) for part in template]
    return template


def _fill(template: Template, body: Any, element: Any) -> Any:
    if isinstance(template, Path):
        return template.find(body, element)
    if isinstance(template, dict):
        filled = ((name, _fill(part, body, element)) for name, part in template.items())
        return {name: value for name, value in filled if value is not None}
    if isinstance(template, list):
        return [_fill(part, body, element) for part in template]
    return template


def _texts(template: Template) -> Iterator[str]:
    if isinstance(template, str):
        yield template
    elif isinstance(template, Mapping):
        yield from chain.from_iterable(map(_texts, template.values()))
    elif isinstance(template, list):
        yield from chain.from_iterable(map(_texts, template))


def _message_id(delivery: str, rule: int, position: int) -> str:
    name = f"{delivery}:{rule}:{position}"
    return name if len(name) <= MAX_MESSAGE_ID_LENGTH else hashlib.sha256(name.encode()).hexdigest()
