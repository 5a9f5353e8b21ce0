# SPDX-License-Identifier: Apache-2.0
"""From path, query and body to the one JSON object that is the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from chassis.errors import Invalid
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.transcode.contract import Binding
from gateway.transcode.router import variables_of
from gateway.transcode.values import Problems

MAX_PARAMETERS = 1000
_TEXT_MESSAGES = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")
_BOOLS = {"true": True, "false": False, "1": True, "0": False}

_decode = msgspec.json.Decoder().decode


def assemble(
    descriptor: Descriptor, binding: Binding, path_values: Mapping[str, str], query: bytes, body: bytes
) -> dict[str, Any]:
    """Return the request as JSON by field name; raises `Invalid` naming parameters that cannot be."""
    request: dict[str, Any] = {}
    if binding.body:
        request = _from_body(descriptor, binding, body)
    if query:
        _add_query(request, descriptor, binding, query)
    for name, value in path_values.items():
        _put(request, _field_names(descriptor, name), value)
    return request


def _from_body(descriptor: Descriptor, binding: Binding, body: bytes) -> dict[str, Any]:
    value = _parse(body) if body.strip() else {}
    if binding.body == "*":
        if not isinstance(value, dict):
            raise Invalid.field("body", "must be a JSON object")
        return value
    return {descriptor.fields_by_name[binding.body].json_name: value}


def _parse(body: bytes) -> Any:
    try:
        return _decode(body)
    except RecursionError as error:
        raise Invalid("the body is nested too deep", reason="NESTED_TOO_DEEP") from error
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", reason="INVALID_JSON") from error
    except ValueError as error:
        raise Invalid(f"the body is not JSON: {error}", reason="INVALID_JSON") from error


def _add_query(request: dict[str, Any], descriptor: Descriptor, binding: Binding, query: bytes) -> None:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
    except ValueError as error:
        raise Invalid("the query is not UTF-8, or has too many parameters", reason="INVALID_QUERY") from error
    problems = Problems()
    taken = set(variables_of(binding.template))
    for name, text in pairs:
        fields = _fields(descriptor, name)
        if fields is None:
            problems.add(name, "is not known")
            continue
        if ".".join(field.name for field in fields) in taken:
            problems.add(name, "is part of the path")
        elif binding.body in ("*", fields[0].name):
            problems.add(name, "belongs in the body")
        else:
            _add_parameter(request, fields, name, text, problems)
    problems.check()


def _add_parameter(
    request: dict[str, Any], fields: list[FieldDescriptor], name: str, text: str, problems: Problems
) -> None:
    field = fields[-1]
    value = _BOOLS.get(text.lower(), text) if field.type == FieldDescriptor.TYPE_BOOL else text
    if not text and field.type != FieldDescriptor.TYPE_STRING:
        return
    names = [f.json_name for f in fields]
    holder = _holder(request, names)
    if field.is_repeated:
        holder.setdefault(names[-1], []).append(value)
    elif names[-1] in holder:
        problems.add(name, "is given twice")
    else:
        holder[names[-1]] = value


def _fields(descriptor: Descriptor, name: str) -> list[FieldDescriptor] | None:
    """Follow a parameter such as `segment.name` to its field; None when there is none that a query can hold."""
    found: list[FieldDescriptor] = []
    at: Descriptor | None = descriptor
    for part in name.split("."):
        field = _field(at, part) if at is not None else None
        if field is None or (found and found[-1].is_repeated):
            return None
        found.append(field)
        at = field.message_type
    return found if can_be_parameter(found[-1]) else None


def can_be_parameter(field: FieldDescriptor) -> bool:
    """Tell whether a field can be spelt in a query: a scalar, an enum, a time, or several of them."""
    return field.message_type is None or field.message_type.full_name in _TEXT_MESSAGES


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    if descriptor.full_name in _TEXT_MESSAGES:
        return None
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
    return found


def _field_names(descriptor: Descriptor, path: str) -> list[str]:
    names = []
    for part in path.split("."):
        field = descriptor.fields_by_name[part]
        names.append(field.json_name)
        if field.message_type is not None:
            descriptor = field.message_type
    return names


def _put(request: dict[str, Any], names: list[str], value: str) -> None:
    holder = _holder(request, names)
    # The path decides, also where the body spells the field the other way.
    for spelling in [key for key in holder if key.replace("_", "").lower() == names[-1].lower()]:
        del holder[spelling]
    holder[names[-1]] = value


def _holder(request: dict[str, Any], names: list[str]) -> dict[str, Any]:
    for name in names[:-1]:
        inner = request.get(name)
        if inner is None:
            inner = request[name] = {}
        if not isinstance(inner, dict):
            # Not an object where one is needed: left for the reader, which names the field.
            return {}
        request = inner
    return request
