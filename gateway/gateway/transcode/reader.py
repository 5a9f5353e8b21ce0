# SPDX-License-Identifier: Apache-2.0
"""JSON to protobuf, compiled once per message type: the proto3 JSON mapping, every mistake named with its field."""

from __future__ import annotations

from typing import Any

from chassis.errors import Invalid
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcode.contract import message_of
from gateway.transcode.values import (
    FREE_FORM,
    INTEGERS,
    KEYS,
    SCALARS,
    SKIP,
    TEXT_FORMS,
    Convert,
    Problems,
    enum_value,
    free_form,
    in_camel_case,
    integer,
)
from gateway.transcode.writer import is_map, name_is_googles


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
                if converted is not SKIP:
                    arguments[field.name] = converted
            _check_oneofs(descriptor, arguments, prefix, problems)
            return SKIP if problems.violations else message_class(**arguments)

        return read

    def _convert(self, field: FieldDescriptor) -> Convert:
        if is_map(field):
            return self._convert_map(field)
        one = self._convert_one(field)
        return _list_of(one, allows_null=_is_value(field)) if field.is_repeated else one

    def _convert_map(self, field: FieldDescriptor) -> Convert:
        key_field, value_field = (message_of(field).fields_by_name[name] for name in ("key", "value"))
        convert_key = KEYS.get(key_field.type) or self._convert_one(key_field)
        convert_value = self._convert_one(value_field)

        def convert(value: Any, path: str, problems: Problems) -> Any:
            if type(value) is not dict:
                return problems.add(path, "must be an object")
            converted = {}
            for name, given in value.items():
                key = convert_key(name, path, problems)
                one = convert_value(given, f"{path}.{name}", problems)
                if key is not SKIP and one is not SKIP:
                    converted[key] = one
            return converted

        return convert

    def _convert_one(self, field: FieldDescriptor) -> Convert:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            return enum_value(field.enum_type)
        if field.type in INTEGERS:
            return integer(*INTEGERS[field.type])
        return SCALARS[field.type]

    def _well_known(self, descriptor: Descriptor) -> Convert | None:
        if not name_is_googles(descriptor):
            return None
        message_class = GetMessageClass(descriptor)
        if descriptor.full_name in FREE_FORM:
            return free_form(message_class, *FREE_FORM[descriptor.full_name])
        rule = TEXT_FORMS.get(descriptor.full_name, "is not valid")
        is_mask = descriptor.full_name == "google.protobuf.FieldMask"

        def convert(value: Any, path: str, problems: Problems) -> Any:
            # Like a field, a name in a mask may be spelt as in the contract too: errors of services spell it so.
            given: Any = in_camel_case(value) if is_mask and isinstance(value, str) else value
            try:
                return ParseDict(given, message_class())
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
            if item is not SKIP:
                converted.append(item)
        return converted

    return convert
