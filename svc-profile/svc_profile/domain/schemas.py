# SPDX-License-Identifier: Apache-2.0
"""Event schemas: what the properties of an event must look like, as JSON Schema (draft 2020-12).

A breach names places and rules, never a value of the event: it is kept where personal data must not be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
from chassis.errors import Invalid

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 65_536
_MOST_VIOLATIONS = 5
_MOST_VALUE = 80
_MOST_NAMES = 3

_encode = msgspec.json.encode


class Enforcement(IntEnum):
    """What happens to an event for which its schema does not hold."""

    OFF = 1
    WARN = 2
    REJECT = 3


@dataclass(frozen=True)
class EventSchema:
    """The schema of all events of one name."""

    name: str
    schema: Mapping[str, Any]
    enforcement: Enforcement
    description: str = ""
    version: int = 1
    created_by: str = ""
    created_us: int = 0
    updated_by: str = ""
    updated_us: int = 0


@dataclass(frozen=True)
class SchemaDraft:
    """What a caller wants of a schema; None is no change."""

    name: str
    schema: Mapping[str, Any] | None = None
    enforcement: Enforcement | None = None
    description: str | None = None


class Violation(NamedTuple):
    """One rule that does not hold."""

    pointer: str
    """Where: a JSON Pointer in the form of a URI fragment (RFC 6901), `#` is the whole object."""
    rule: str
    """The keyword of the schema, with its value."""


class Breach(msgspec.Struct, frozen=True, gc=False):
    """That the schema does not hold for an event."""

    rejects: bool
    """False when the event is learnt from all the same."""
    detail: str


class Judge:
    """A compiled schema."""

    def __init__(self, schema: Mapping[str, Any], *, rejects: bool = True, version: int = 0) -> None:
        """Compile; raises `Invalid` that says what is wrong with the schema. Nothing is fetched from anywhere."""
        _check_size(schema)
        self._schema = schema
        self._rejects = rejects
        self._version = version
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                dict(schema),
                validate_formats=True,
                offline=True,
                # Linear time, whatever the pattern and the text are.
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise Invalid.field("schema", _explain(error), reason="SCHEMA_INVALID") from error

    def breach(self, values: Mapping[str, Any]) -> Breach | None:
        """Return how the schema does not hold; None when it does."""
        if self._validator.is_valid(values):
            return None
        words = "; ".join(f"{violation.pointer}: {violation.rule}" for violation in self.violations(values))
        return Breach(self._rejects, f"schema version {self._version}: {words}")

    def violations(self, values: Mapping[str, Any]) -> list[Violation]:
        """Return rules that do not hold, by place; the validator finds them in no order."""
        errors = islice(self._validator.iter_errors(values), _MOST_VIOLATIONS)
        found = [Violation(pointer_of(error.instance_path), self._rule_of(error)) for error in errors]
        return sorted(found, key=lambda violation: (violation.pointer, violation.rule))

    def _rule_of(self, error: jsonschema_rs.ValidationError) -> str:
        keyword = error.kind.name
        if keyword == "required":
            return f"required {_short(getattr(error.kind, 'property', ''))}"
        if keyword in ("additionalProperties", "unevaluatedProperties"):
            names = sorted(getattr(error.kind, "unexpected", ()))[:_MOST_NAMES]
            return f"{keyword} {_short(names)}" if names else keyword
        value = _follow(self._schema, error.schema_path)
        return keyword if value is None else f"{keyword} {_short(value)}"


Judges = Mapping[str, Judge]
"""The schemas that are enforced, by the name of the events."""

NO_JUDGES: Judges = MappingProxyType({})


def judges_of(schemas: Iterable[EventSchema]) -> tuple[dict[str, Judge], list[str]]:
    """Compile what is enforced; also return the names whose schema cannot be compiled (any more)."""
    judges: dict[str, Judge] = {}
    broken: list[str] = []
    for each in schemas:
        if each.enforcement is not Enforcement.OFF:
            try:
                rejects = each.enforcement is Enforcement.REJECT
                judges[each.name] = Judge(each.schema, rejects=rejects, version=each.version)
            except Invalid:
                broken.append(each.name)
    return judges, broken


def pointer_of(path: Sequence[str | int]) -> str:
    """Write a path as a JSON Pointer."""
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _check_size(schema: Mapping[str, Any]) -> None:
    dialect = schema.get("$schema", DIALECT)
    if dialect != DIALECT:
        raise Invalid.field("schema", f"$schema must be {DIALECT}", reason="SCHEMA_INVALID")
    size = len(_encode(schema))
    if size > MAX_SCHEMA_BYTES:
        raise Invalid.field(
            "schema", f"has {size} bytes as JSON, at most {MAX_SCHEMA_BYTES} are allowed", reason="SCHEMA_INVALID"
        )


def _explain(error: Exception) -> str:
    if not isinstance(error, jsonschema_rs.ValidationError):
        return f"cannot be compiled: {error}"
    place = pointer_of(error.instance_path)
    return f"cannot be compiled: {error.message}" + (f" (at {place})" if place != "#" else "")


def _follow(schema: Any, path: Sequence[str | int]) -> Any:
    """Return the value of the keyword that a path leads to; None behind a reference."""
    for part in path:
        try:
            schema = schema[part]
        except (KeyError, IndexError, TypeError):
            return None
    return schema if isinstance(schema, (str, int, float, list)) else None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode()
    return text if len(text) <= _MOST_VALUE else text[: _MOST_VALUE - 1] + "…"
