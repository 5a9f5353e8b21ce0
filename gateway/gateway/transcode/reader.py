# SPDX-License-Identifier: Apache-2.0
"""JSON to protobuf, compiled once per message type: the proto3 JSON mapping, every mistake named with its field."""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any

from chassis.errors import Invalid, Violation
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcode.contract import message_of
from gateway.transcode.writer import is_map, name_is_googles

MAX_VIOLATIONS = 100
MAX_DEPTH = 24
"""Nesting of a free-form value; protobuf itself gives up at 32."""


class _Skip:
    """The value of a field that is left as it is."""


_SKIP = _Skip()
_INTEGERS: Mapping[int, tuple[int, int]] = {
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
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MAX_FLOAT = 3.4028234663852886e38


class Problems:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, rule: str) -> _Skip:
        """Note one mistake."""
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(field, rule))
        return _SKIP

    def check(self) -> None:
        """Raise `Invalid` when there was any."""
        if self.violations:
            words = "; ".join(f"{v.field}: {v.rule}" for v in self.violations[:5])
            raise Invalid(words, violations=self.violations)


Convert = Callable[[Any, str, Problems], Any]


class Readers:
    """Compiled readers by message type."""

    def __init__(self) -> None:
        self._readers: dict[str, Convert] = {}

    def read(self, descriptor: Descriptor, value: Any) -> Message:
        """Make a message of parsed JSON; raises `Invalid` with every mistake."""
        problems = Problems()
        message = self.of(descriptor)(value, "", problems)
        problems.check()
        if not isinstance(message, Message):
            raise Invalid("the request must be an object")
        return message

    def of(self, descriptor: Descriptor) -> Convert:
        """Return a function that makes a message of parsed JSON, noting mistakes."""
        name = descriptor.full_name
        if name not in self._readers:
            self._readers[name] = lambda value, path, problems: self._readers[name](value, path, problems)
            self._readers[name] = self._well_known(descriptor) or self._compile(descriptor)
        return self._readers[name]

    def _compile(self, descriptor: Descriptor) -> Convert:
        message_class = GetMessageClass(descriptor)
        fields: dict[str, tuple[FieldDescriptor, Convert]] = {}
        for field in descriptor.fields:
            fields[field.json_name] = fields[field.name] = (field, self._convert(field))

        def read(value: Any, path: str, problems: Problems) -> Any:
            if type(value) is not dict:
                return problems.add(path or "body", "must be an object")
            prefix = f"{path}." if path else ""
            arguments: dict[str, Any] = {}
            for name, given in value.items():
                known = fields.get(name)
                if known is None:
                    problems.add(f"{prefix}{name}" or '""', "is not known")
                    continue
                field, convert = known
                if given is None and not _is_value(field):
                    continue
                if field.name in arguments:
                    problems.add(f"{prefix}{name}", "is given twice")
                    continue
                converted = convert(given, f"{prefix}{name}", problems)
                if converted is not _SKIP:
                    arguments[field.name] = converted
            _check_oneofs(descriptor, arguments, prefix, problems)
            return _SKIP if problems.violations else message_class(**arguments)

        return read

    def _convert(self, field: FieldDescriptor) -> Convert:
        if is_map(field):
            return self._convert_map(field)
        one = self._convert_one(field)
        return _list_of(one, allows_null=_is_value(field)) if field.is_repeated else one

    def _convert_map(self, field: FieldDescriptor) -> Convert:
        key_field, value_field = (message_of(field).fields_by_name[name] for name in ("key", "value"))
        convert_key = _KEYS.get(key_field.type) or self._convert_one(key_field)
        convert_value = self._convert_one(value_field)

        def convert(value: Any, path: str, problems: Problems) -> Any:
            if type(value) is not dict:
                return problems.add(path, "must be an object")
            converted = {}
            for name, given in value.items():
                key = convert_key(name, path, problems)
                one = convert_value(given, f"{path}.{name}", problems)
                if key is not _SKIP and one is not _SKIP:
                    converted[key] = one
            return converted

        return convert

    def _convert_one(self, field: FieldDescriptor) -> Convert:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return _enum(field.enum_type)
        if field.type in _INTEGERS:
            return _integer(*_INTEGERS[field.type])
        return _SCALARS[field.type]

    def _well_known(self, descriptor: Descriptor) -> Convert | None:
        if not name_is_googles(descriptor):
            return None
        message_class = GetMessageClass(descriptor)
        if descriptor.full_name in _FREE_FORM:
            return _free_form(message_class, *_FREE_FORM[descriptor.full_name])
        rule = _TEXT_FORMS.get(descriptor.full_name, "is not valid")

        def convert(value: Any, path: str, problems: Problems) -> Any:
            try:
                return ParseDict(value, message_class())
            except (ParseError, ValueError, TypeError, AttributeError, OverflowError):
                return problems.add(path, rule)

        return convert


def _is_value(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value"


def _check_oneofs(descriptor: Descriptor, arguments: dict[str, Any], prefix: str, problems: Problems) -> None:
    for oneof in descriptor.oneofs:
        given = [field.json_name for field in oneof.fields if field.name in arguments]
        if len(given) > 1:
            problems.add(prefix + given[1], f"must not be given together with {prefix}{given[0]}")


def _list_of(one: Convert, *, allows_null: bool) -> Convert:
    def convert(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is not list:
            return problems.add(path, "must be an array")
        converted = []
        for position, element in enumerate(value):
            if element is None and not allows_null:
                problems.add(f"{path}[{position}]", "must not be null")
                continue
            item = one(element, f"{path}[{position}]", problems)
            if item is not _SKIP:
                converted.append(item)
        return converted

    return convert


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


def _integer(low: int, high: int) -> Convert:
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
    if type(number) is float and math.isfinite(number) and abs(number) > _MAX_FLOAT:
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


def _enum(enum: EnumDescriptor) -> Convert:
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


def _free_form(message_class: type[Message], kind: type | None, rule: str) -> Convert:
    def convert(value: Any, path: str, problems: Problems) -> Any:
        if kind is not None and type(value) is not kind:
            return problems.add(path, rule)
        before = len(problems.violations)
        _check_free_form(value, path, problems, MAX_DEPTH)
        return _SKIP if len(problems.violations) > before else ParseDict(value, message_class())

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


_KEYS: Mapping[int, Convert] = {FieldDescriptor.TYPE_BOOL: _bool_key}
_SCALARS: Mapping[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
_FREE_FORM: Mapping[str, tuple[type | None, str]] = {
    "google.protobuf.Struct": (dict, "must be an object"),
    "google.protobuf.ListValue": (list, "must be an array"),
    "google.protobuf.Value": (None, ""),
}
_TEXT_FORMS: Mapping[str, str] = {
    "google.protobuf.Timestamp": "must be a time such as 2026-11-22T09:30:00Z (RFC 3339)",
    "google.protobuf.Duration": "must be a duration such as 3.5s",
    "google.protobuf.FieldMask": "must be field names separated by commas",
}
