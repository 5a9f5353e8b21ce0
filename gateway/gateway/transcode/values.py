# SPDX-License-Identifier: Apache-2.0
"""Single JSON values as proto3 JSON spells them: scalars, enums, free-form values."""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from chassis.errors import Invalid, Violation
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

MAX_VIOLATIONS = 100
MAX_DEPTH = 24
"""Nesting of a free-form value; protobuf itself gives up at 32."""


class _Skip:
    """The value of a field that is left as it is."""


SKIP = _Skip()
INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_UNDERSCORE = re.compile(r"_([a-z0-9])")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Halfway between the largest float and the next one that there is not: what is less is rounded to the largest. So the
# shortest spelling of the largest, 3.40282347e+38, can be read back.
_FLOATS_END = 3.4028235677973366e38


class Problems:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, rule: str) -> _Skip:
        """Note one mistake."""
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(field, rule))
        return SKIP

    def check(self) -> None:
        """Raise `Invalid` when there was any."""
        if self.violations:
            words = "; ".join(f"{v.field}: {v.rule}" for v in self.violations[:5])
            raise Invalid(words, violations=self.violations)


Convert = Callable[[Any, str, Problems], Any]


def _string(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is not str:
        return problems.add(path, "must be a string")
    if "\x00" in value:
        return problems.add(path, "must not hold the character U+0000")
    return value


def _bool(value: Any, path: str, problems: Problems) -> Any:
    return value if type(value) is bool else problems.add(path, "must be true or false")


def _bool_key(value: str, path: str, problems: Problems) -> Any:
    return value == "true" if value in ("true", "false") else problems.add(f"{path}.{value}", "must be true or false")


def integer(low: int, high: int) -> Convert:
    """Return what reads an integer of a type with these limits, also from a string or a whole float."""

    def convert(value: Any, path: str, problems: Problems) -> Any:
        number = _to_integer(value)
        if number is None:
            return problems.add(path, "must be an integer")
        return number if low <= number <= high else problems.add(path, f"must be from {low} to {high}")

    return convert


def _to_integer(value: Any) -> int | None:
    if type(value) is int:
        return value
    if type(value) is str and _INTEGER.fullmatch(value):
        return int(value)
    number = _to_float(value)
    return int(number) if number is not None and number.is_integer() else None


def _to_float(value: Any) -> float | None:
    if type(value) is float:
        return value
    if type(value) is int or (type(value) is str and _NUMBER.fullmatch(value)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    return None


_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _double(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is str and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    number = _to_float(value)
    if number is None:
        return problems.add(path, "must be a number")
    return number if math.isfinite(number) else problems.add(path, "is too large a number")


def _float(value: Any, path: str, problems: Problems) -> Any:
    number = _double(value, path, problems)
    if type(number) is float and math.isfinite(number) and abs(number) >= _FLOATS_END:
        return problems.add(path, "is too large a number")
    return number


def _bytes(value: Any, path: str, problems: Problems) -> Any:
    if type(value) is str:
        text = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    return problems.add(path, "must be base64")


def enum_value(enum: EnumDescriptor) -> Convert:
    """Return what reads a value of an enum by name or number; unknown ones are refused."""
    by_name = {value.name: value.number for value in enum.values}
    numbers = frozenset(by_name.values())
    rule = f"must be one of {', '.join(by_name)}"

    def convert(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is str and value in by_name:
            return by_name[value]
        if type(value) is int and value in numbers:
            return value
        return problems.add(path, rule)

    return convert


def in_camel_case(names: str) -> str:
    """Spell names as JSON does: `event_counts` is `eventCounts`."""
    return _UNDERSCORE.sub(lambda found: found[1].upper(), names)


def free_form(message_class: type[Message], kind: type | None, rule: str) -> Convert:
    """Return what reads a `Struct`, `Value` or `ListValue` that protobuf and PostgreSQL can hold."""

    def convert(value: Any, path: str, problems: Problems) -> Any:
        if kind is not None and type(value) is not kind:
            return problems.add(path, rule)
        before = len(problems.violations)
        _check_free_form(value, path, problems, MAX_DEPTH)
        return SKIP if len(problems.violations) > before else ParseDict(value, message_class())

    return convert


def _check_free_form(value: Any, path: str, problems: Problems, depth: int) -> None:
    """Note what protobuf or PostgreSQL could not hold."""
    if type(value) is str:
        _string(value, path, problems)
    elif type(value) is int or type(value) is float:
        _double(value, path, problems)
    elif depth == 0 and type(value) in (list, dict):
        problems.add(path, f"must be nested at most {MAX_DEPTH} levels deep")
    elif type(value) is list:
        for element in value:
            _check_free_form(element, path, problems, depth - 1)
    elif type(value) is dict:
        for name, element in value.items():
            _string(name, path, problems)
            _check_free_form(element, f"{path}.{name}", problems, depth - 1)


KEYS: Mapping[int, Convert] = {FieldDescriptor.TYPE_BOOL: _bool_key}
SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
FREE_FORM: Mapping[str, tuple[type | None, str]] = {
    "google.protobuf.Struct": (dict, "must be an object"),
    "google.protobuf.ListValue": (list, "must be an array"),
    "google.protobuf.Value": (None, ""),
}
TEXT_FORMS: Mapping[str, str] = {
    "google.protobuf.Timestamp": "must be a time such as 2026-11-22T09:30:00Z (RFC 3339)",
    "google.protobuf.Duration": "must be a duration such as 3.5s",
    "google.protobuf.FieldMask": "must be field names separated by commas",
}
