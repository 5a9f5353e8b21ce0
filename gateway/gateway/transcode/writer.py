# SPDX-License-Identifier: Apache-2.0
"""Protobuf to JSON, compiled once per message type from its descriptor.

The same JSON as `google.protobuf.json_format.MessageToJson(always_print_fields_with_no_presence=True)`, which tests
compare it with, at a small part of the cost: the plain fields of a message are read in one call and need no look.
"""

from __future__ import annotations

import math
import struct
from base64 import b64encode
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from gateway.transcode.contract import message_of

Convert = Callable[[Any], Any]
Write = Callable[[Any], Any]

_AS_IS = frozenset(
    {
        FieldDescriptor.TYPE_STRING,
        FieldDescriptor.TYPE_BOOL,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_SINT32,
        FieldDescriptor.TYPE_SFIXED32,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_FIXED32,
    }
)
_QUOTED = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED64,
    }
)
_EXACT_INTEGERS_BELOW = 2**53

encode = msgspec.json.Encoder().encode


class Writers:
    """Compiled writers by message type."""

    def __init__(self) -> None:
        self._writers: dict[str, Write] = {}

    def of(self, descriptor: Descriptor) -> Write:
        """Return a function from a message to what msgspec can encode."""
        name = descriptor.full_name
        if name not in self._writers:
            # Put in place first, because message types may contain themselves.
            self._writers[name] = lambda message: self._writers[name](message)
            self._writers[name] = _WELL_KNOWN.get(name) or self._compile(descriptor)
        return self._writers[name]

    def _compile(self, descriptor: Descriptor) -> Write:
        if name_is_googles(descriptor):
            return MessageToDict
        fields = list(descriptor.fields)
        if not fields:
            return lambda _: {}
        names = [field.json_name for field in fields]
        read = _reader_of(fields)
        always = [
            (field.json_name, convert)
            for field in fields
            if not field.has_presence and (convert := self._convert(field)) is not None
        ]
        sometimes = [(field.name, field.json_name, self._convert(field)) for field in fields if field.has_presence]

        def write(message: Message) -> dict[str, Any]:
            written = dict(zip(names, read(message), strict=True))
            for name, convert in always:
                written[name] = convert(written[name])
            for field_name, name, maybe in sometimes:
                if not message.HasField(field_name):
                    del written[name]
                elif maybe is not None:
                    written[name] = maybe(written[name])
            return written

        return write

    def _convert(self, field: FieldDescriptor) -> Convert | None:
        """Return what turns a field's value into JSON, or None when it is JSON already."""
        if is_map(field):
            return self._convert_map(field)
        one = self._convert_one(field)
        if not field.is_repeated:
            return one
        if one is None:
            return list
        return lambda values: [one(value) for value in values]

    def _convert_map(self, field: FieldDescriptor) -> Convert:
        key_field, value_field = (message_of(field).fields_by_name[name] for name in ("key", "value"))
        key = _KEYS.get(key_field.type, str)
        one = self._convert_one(value_field) or _same
        return lambda values: {key(name): one(values[name]) for name in values}

    def _convert_one(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return _enum_writer(field.enum_type)
        if field.type in _AS_IS:
            return None
        if field.type in _QUOTED:
            return str
        return _SCALARS[field.type]


def is_map(field: FieldDescriptor) -> bool:
    """Tell whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def name_is_googles(descriptor: Descriptor) -> bool:
    """Tell whether a message type has a JSON form of its own that is not compiled here."""
    return bool(descriptor.full_name.startswith("google.protobuf."))


def _reader_of(fields: list[FieldDescriptor]) -> Callable[[Message], tuple[Any, ...]]:
    names = [field.name for field in fields]
    if len(names) == 1:
        one = attrgetter(names[0])
        return lambda message: (one(message),)
    return attrgetter(*names)


def _same(value: Any) -> Any:
    return value


def _bool_key(value: bool) -> str:
    return "true" if value else "false"


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    """Write the shortest number that reads back as the same 32 bits."""
    if not math.isfinite(value):
        return _double(value)
    for digits in range(6, 9):
        shorter = float(f"{value:.{digits}g}")
        if abs(shorter) < 3.4028235e38 and struct.unpack("f", struct.pack("f", shorter))[0] == value:
            return shorter
    return float(f"{value:.9g}")


def _bytes(value: bytes) -> str:
    return b64encode(value).decode()


def _enum_writer(enum: EnumDescriptor) -> Convert:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda _: None
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name)
    return lambda number: names.get(number, number)


def _timestamp(message: Any) -> str:
    text: str = message.ToJsonString()
    return text


def _struct(message: Any) -> dict[str, Any]:
    fields = message.fields
    return {name: _value(fields[name]) for name in fields}


def _list_value(message: Any) -> list[Any]:
    return [_value(value) for value in message.values]


def _value(message: Any) -> Any:
    return _KINDS[message.WhichOneof("kind")](message)


def _number(message: Any) -> float | int:
    number: float = message.number_value
    if not math.isfinite(number):
        raise ValueError("a google.protobuf.Value holds a number that JSON has not")
    # JSON has no integers of its own, and people expect 31 rather than 31.0.
    return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGERS_BELOW else number


_KINDS: dict[str | None, Convert] = {
    None: lambda _: None,
    "null_value": lambda _: None,
    "number_value": _number,
    "string_value": attrgetter("string_value"),
    "bool_value": attrgetter("bool_value"),
    "struct_value": lambda message: _struct(message.struct_value),
    "list_value": lambda message: _list_value(message.list_value),
}
_KEYS: dict[int, Convert] = {FieldDescriptor.TYPE_STRING: _same, FieldDescriptor.TYPE_BOOL: _bool_key}
_SCALARS: dict[int, Convert] = {
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
_WELL_KNOWN: dict[str, Write] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _timestamp,
    "google.protobuf.FieldMask": _timestamp,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list_value,
    "google.protobuf.Value": _value,
}
