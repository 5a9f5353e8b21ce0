# SPDX-License-Identifier: Apache-2.0
"""Message types as JSON Schema (2020-12): types, descriptions, examples, what is required, limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dangol.options.v1 import options_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from gateway.transcode.contract import message_of
from gateway.transcode.writer import is_map

Schema = dict[str, Any]

REQUIRED = field_behavior_pb2.FieldBehavior.Value("REQUIRED")
OUTPUT_ONLY = field_behavior_pb2.FieldBehavior.Value("OUTPUT_ONLY")
IMMUTABLE = field_behavior_pb2.FieldBehavior.Value("IMMUTABLE")

_INT32: Schema = {"type": "integer", "format": "int32"}
_UINT32: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Value": {},
}
_PATCH = "Patch"


def behaves(field: FieldDescriptor, behavior: int) -> bool:
    """Tell whether a field has a `google.api.field_behavior`."""
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


class Schemas:
    """The schemas of all message types that operations use, by their short names."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._owners: dict[str, str] = {}
        self.components: dict[str, Schema] = {}

    def ref(self, descriptor: Descriptor, *, patch: bool = False) -> Schema:
        """Return a reference to a message's schema; with `patch` to the one in which nothing is required."""
        if descriptor.full_name in _KNOWN:
            return dict(_KNOWN[descriptor.full_name])
        name = self._name(descriptor) + (_PATCH if patch else "")
        if name not in self.components:
            self.components[name] = {}  # in place first, because messages may contain themselves
            self.components[name] = self.object(descriptor, descriptor.fields, patch=patch)
        return {"$ref": f"#/components/schemas/{name}"}

    def object(self, descriptor: Descriptor, fields: Iterable[FieldDescriptor], *, patch: bool = False) -> Schema:
        """Return the schema of an object with some of a message's fields."""
        fields = list(fields)
        schema: Schema = {"type": "object"}
        if comment := self._comments.get(descriptor.full_name):
            schema["description"] = comment
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        required = [field.json_name for field in fields if behaves(field, REQUIRED) and not patch]
        if required:
            schema["required"] = required
        example = example_of(descriptor)
        if example and not patch:
            schema["examples"] = [example]
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """Return the schema of one field, with all that the contract says of it."""
        schema = self._type(field)
        if "$ref" not in schema:
            schema |= _limits(field)
        if comment := self._comments.get(field.full_name):
            schema["description"] = comment
        if behaves(field, OUTPUT_ONLY):
            schema["readOnly"] = True
        example = field.GetOptions().Extensions[options_pb2.example]
        if example:
            schema["examples"] = [json.loads(example)]
        return schema

    def _type(self, field: FieldDescriptor) -> Schema:
        if is_map(field):
            value = message_of(field).fields_by_name["value"]
            return {"type": "object", "additionalProperties": self._one(value)}
        if field.is_repeated:
            return {"type": "array", "items": self._one(field)}
        return self._one(field)

    def _one(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.ref(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return dict(_SCALARS[field.type])

    def _enum(self, enum: EnumDescriptor) -> Schema:
        name = self._name(enum)
        lines = [self._comments.get(enum.full_name, ""), ""]
        prefix = enum.full_name
        for value in enum.values:
            lines.append(f"- `{value.name}`: {self._comments.get(f'{prefix}.{value.name}', '')}")
        self.components[name] = {
            "type": "string",
            "enum": [value.name for value in enum.values],
            "description": "\n".join(lines).strip(),
        }
        return {"$ref": f"#/components/schemas/{name}"}

    def _name(self, descriptor: Descriptor | EnumDescriptor) -> str:
        name: str = descriptor.name
        if self._owners.setdefault(name, descriptor.full_name) != descriptor.full_name:
            # Two packages may use one name; the later one carries its package in front.
            name = descriptor.full_name.split(".")[1].capitalize() + name
            self._owners[name] = descriptor.full_name
        return name


def example_of(descriptor: Descriptor) -> dict[str, Any]:
    """Compose an example of a message from the examples of its fields."""
    example: dict[str, Any] = {}
    for field in descriptor.fields:
        text = field.GetOptions().Extensions[options_pb2.example]
        if text:
            example[field.json_name] = json.loads(text)
        elif field.message_type is not None and not is_map(field) and behaves(field, REQUIRED):
            inner = example_of(field.message_type)
            example[field.json_name] = [inner] if field.is_repeated else inner
    return example


def _limits(field: FieldDescriptor) -> Schema:
    options = field.GetOptions()
    if not options.HasExtension(options_pb2.rules):
        return {}
    rules = options.Extensions[options_pb2.rules]
    limits: Schema = {}
    if rules.max_items:
        limits["maxProperties" if is_map(field) else "maxItems"] = rules.max_items
    if not field.is_repeated:
        limits |= _value_limits(field, rules)
    return limits


def _value_limits(field: FieldDescriptor, rules: options_pb2.Rules) -> Schema:
    limits: Schema = {}
    is_required = behaves(field, REQUIRED)
    if rules.min_length and is_required:
        limits["minLength"] = rules.min_length
    if rules.max_length:
        limits["maxLength"] = rules.max_length
    if rules.pattern:
        # A field that is not required may be empty whatever its pattern says.
        limits["pattern"] = f"^(?:{rules.pattern})$" if is_required else f"^(?:{rules.pattern})?$"
    is_number = _SCALARS.get(field.type, {}).get("type") in ("integer", "number")
    if is_number and rules.HasField("min"):
        limits["minimum"] = _plain(rules.min)
    if is_number and rules.HasField("max"):
        limits["maximum"] = _plain(rules.max)
    return limits


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() else value
