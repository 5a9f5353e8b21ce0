# SPDX-License-Identifier: Apache-2.0
"""Check requests against what the proto files say: field_behavior and `dangol.options.v1.rules`."""

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from dangol.options.v1 import options_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from chassis.errors import Invalid, Violation

REQUIRED = field_behavior_pb2.FieldBehavior.Value("REQUIRED")
OUTPUT_ONLY = field_behavior_pb2.FieldBehavior.Value("OUTPUT_ONLY")

Check = Callable[[Message, str], Iterator[Violation]]
ValueCheck = Callable[[Any, str], Iterator[Violation]]


def validate(request: Message) -> None:
    """Raise `Invalid` naming every field that breaks a rule; empties the fields that only the server writes.

    A request with an `update_mask` may leave required fields of its resource out.
    """
    partial = "update_mask" in request.DESCRIPTOR.fields_by_name
    violations = list(_check_of(request.DESCRIPTOR, partial)(request, ""))
    if violations:
        words = "; ".join(f"{violation.field}: {violation.rule}" for violation in violations)
        raise Invalid(words, violations=violations)


@cache
def _check_of(descriptor: Descriptor, partial: bool) -> Check:
    """Compile the checks of one message type, once."""
    checks = [check for field in descriptor.fields if (check := _field_check(field, partial))]

    def run(message: Message, path: str) -> Iterator[Violation]:
        for check in checks:
            yield from check(message, path)

    return run


def _field_check(field: FieldDescriptor, partial: bool) -> Check | None:
    behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    if OUTPUT_ONLY in behavior and not partial:
        return _clear(field)
    owner = field.containing_type
    top_level = owner is not None and "update_mask" in owner.fields_by_name
    required = REQUIRED in behavior and (not partial or top_level)
    value_checks = _value_checks(field, partial)
    max_items = field.GetOptions().Extensions[options_pb2.rules].max_items
    if not (required or value_checks or max_items):
        return None

    def check(message: Message, path: str) -> Iterator[Violation]:
        name = path + field.name
        if not _is_set(message, field):
            if required:
                yield Violation(name, "is required")
            return
        value = getattr(message, field.name)
        if required and isinstance(value, str) and value.isspace():
            yield Violation(name, "is required, and must not be blank")
            return
        if not field.is_repeated:
            for value_check in value_checks:
                yield from value_check(value, name)
            return
        if max_items and len(value) > max_items:
            yield Violation(name, f"has {len(value)} elements, at most {max_items} are allowed")
            return
        if _is_map(field):
            return
        for position, element in enumerate(value):
            for value_check in value_checks:
                yield from value_check(element, f"{name}[{position}]")

    return check


def _clear(field: FieldDescriptor) -> Check:
    def check(message: Message, _path: str) -> Iterator[Violation]:
        message.ClearField(field.name)
        return iter(())

    return check


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.has_presence:
        return message.HasField(field.name)
    value = getattr(message, field.name)
    return bool(len(value)) if field.is_repeated else bool(value)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value_checks(field: FieldDescriptor, partial: bool) -> list[ValueCheck]:
    if field.message_type is not None:
        if _is_map(field) or field.message_type.full_name.startswith("google.protobuf."):
            return []
        return [_nested(field.message_type, partial)]
    checks: list[ValueCheck] = []
    if field.enum_type is not None:
        checks.append(_known_enum(field.enum_type))
    if field.GetOptions().HasExtension(options_pb2.rules):
        rules = field.GetOptions().Extensions[options_pb2.rules]
        is_text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
        checks.extend(_text_rules(rules) if is_text else _number_rules(rules))
    return checks


def _nested(descriptor: Descriptor, partial: bool) -> ValueCheck:
    def check(value: Message, name: str) -> Iterator[Violation]:
        # Looked up when it is used, because message types may contain themselves.
        yield from _check_of(descriptor, partial)(value, f"{name}.")

    return check


def _known_enum(enum: EnumDescriptor) -> ValueCheck:
    numbers = enum.values_by_number

    def check(value: int, name: str) -> Iterator[Violation]:
        if value not in numbers:
            yield Violation(name, f"{value} is not a value of {enum.name}")

    return check


def _text_rules(rules: options_pb2.Rules) -> list[ValueCheck]:
    pattern = re.compile(rules.pattern) if rules.pattern else None

    def check(value: str | bytes, name: str) -> Iterator[Violation]:
        if len(value) < rules.min_length:
            yield Violation(name, f"has {len(value)} characters, at least {rules.min_length} are needed")
        if rules.max_length and len(value) > rules.max_length:
            yield Violation(name, f"has {len(value)} characters, at most {rules.max_length} are allowed")
        elif pattern and isinstance(value, str) and not pattern.fullmatch(value):
            yield Violation(name, f"must match {rules.pattern}")

    return [check]


def _number_rules(rules: options_pb2.Rules) -> list[ValueCheck]:
    low = rules.min if rules.HasField("min") else -math.inf
    high = rules.max if rules.HasField("max") else math.inf

    def check(value: float, name: str) -> Iterator[Violation]:
        if not low <= value <= high:
            yield Violation(name, f"must be from {low:g} to {high:g}")

    return [check]
