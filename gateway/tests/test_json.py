# SPDX-License-Identifier: Apache-2.0
"""Protobuf to JSON and back, compared with `google.protobuf.json_format` over every message of the contract."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from chassis.errors import Invalid
from gateway.transcode import contract, writer
from gateway.transcode.reader import Readers
from gateway.transcode.writer import Writers, is_map
from google.protobuf import descriptor_pool, duration_pb2, json_format, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALARS = tuple(type_ for type_ in range(1, 19) if type_ not in (10, 11))
"""Every type of field but groups and messages."""
WELL_KNOWN = ("Timestamp", "Duration", "Struct", "Value", "ListValue", "FieldMask", "Int64Value", "StringValue")


def everything() -> Descriptor:
    """Return a message type with every kind of field that proto3 has, also those that the contract does not use yet."""
    file = FileDescriptorProto(name="gateway_tests.proto", package="gateway.tests", syntax="proto3")
    for name in ("timestamp", "duration", "struct", "field_mask", "wrappers"):
        file.dependency.append(f"google/protobuf/{name}.proto")
    enum = file.enum_type.add(name="Colour")
    for number, name in enumerate(("COLOUR_UNSPECIFIED", "RED", "BLUE")):
        enum.value.add(name=name, number=number)
    message = file.message_type.add(name="Everything")
    message.oneof_decl.add(name="choice")
    message.oneof_decl.add(name="_maybe_double")
    _add_fields(message)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("gateway.tests.Everything")


def _add_fields(message: Any) -> None:
    one, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    numbers = iter(range(1, 1000))

    def add(name: str, type_: int, label: int = one, type_name: str = "", **more: Any) -> None:
        field = message.field.add(name=name, number=next(numbers), type=type_, label=label, **more)
        if type_name:
            field.type_name = type_name

    for type_ in SCALARS:
        enum = ".gateway.tests.Colour" if type_ == FieldDescriptor.TYPE_ENUM else ""
        add(f"one_{type_}", type_, one, enum)
        add(f"many_{type_}", type_, many, enum)
    for name in WELL_KNOWN:
        add(f"known_{name.lower()}", 11, one, f".google.protobuf.{name}")
        add(f"all_{name.lower()}", 11, many, f".google.protobuf.{name}")
    add("inner", 11, one, ".gateway.tests.Everything")
    add("inners", 11, many, ".gateway.tests.Everything")
    add("left", FieldDescriptor.TYPE_STRING, oneof_index=0)
    add("right", FieldDescriptor.TYPE_INT64, oneof_index=0)
    add("maybe_double", FieldDescriptor.TYPE_DOUBLE, oneof_index=1, proto3_optional=True)
    for key in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_INT32, 3):
        for value in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_BYTES, 11):
            entry = message.nested_type.add(name=f"Map{key}To{value}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=key, label=one)
            held = entry.field.add(name="value", number=2, type=value, label=one)
            if value == FieldDescriptor.TYPE_MESSAGE:
                held.type_name = ".gateway.tests.Everything"
            add(f"map{key}_to{value}", 11, many, f".gateway.tests.Everything.{entry.name}")


EVERYTHING = everything()
METHODS = contract.load().methods
REQUESTS = {method.descriptor.input_type.full_name: method.descriptor.input_type for method in METHODS}
RESPONSES = {method.descriptor.output_type.full_name: method.descriptor.output_type for method in METHODS}
ALL = {**REQUESTS, **RESPONSES, EVERYTHING.full_name: EVERYTHING}

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
doubles = st.floats(allow_nan=True, allow_infinity=True)
seconds = st.integers(-62135596800, 253402300799)
free_form = st.recursive(
    st.none() | st.booleans() | text | st.floats(-1e15, 1e15) | st.integers(-(2**52), 2**52),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def _single_precision(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: doubles,
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32).map(_single_precision),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: text,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_SFIXED32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT64: st.integers(-(2**63), 2**63 - 1),
}


def _parsed(message_class: Callable[[], Message]) -> Callable[[Any], Message]:
    return lambda value: json_format.ParseDict(value, message_class())


KNOWN: dict[str, st.SearchStrategy[Message]] = {
    "google.protobuf.Timestamp": st.builds(timestamp_pb2.Timestamp, seconds=seconds, nanos=st.integers(0, 999_999_999)),
    "google.protobuf.Duration": st.builds(
        duration_pb2.Duration, seconds=st.integers(0, 315576000000), nanos=st.integers(0, 999_999_999)
    ),
    "google.protobuf.Struct": st.dictionaries(text, free_form, max_size=3).map(_parsed(struct_pb2.Struct)),
    "google.protobuf.ListValue": st.lists(free_form, max_size=3).map(_parsed(struct_pb2.ListValue)),
    "google.protobuf.Value": free_form.map(_parsed(struct_pb2.Value)),
    "google.protobuf.FieldMask": st.lists(st.sampled_from(["name", "rule_version", "a.b_c"]), max_size=3).map(
        lambda paths: _field_mask(paths)
    ),
    "google.protobuf.Int64Value": st.builds(wrappers_pb2.Int64Value, value=VALUES[FieldDescriptor.TYPE_INT64]),
    "google.protobuf.StringValue": st.builds(wrappers_pb2.StringValue, value=text),
}


def _field_mask(paths: list[str]) -> Message:
    from google.protobuf.field_mask_pb2 import FieldMask

    return FieldMask(paths=paths)


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 2) -> Message:
    """Fill some fields of a message with anything that they can hold."""
    if descriptor.full_name in KNOWN:
        return draw(KNOWN[descriptor.full_name])
    message = GetMessageClass(descriptor)()
    fields = [f for f in descriptor.fields if depth or f.message_type is None or is_known(f)]
    for field in draw(st.lists(st.sampled_from(fields), unique_by=lambda f: f.number, max_size=8)) if fields else []:
        _fill(draw, message, field, depth)
    return message


def is_known(field: FieldDescriptor) -> bool:
    """Tell whether the generator knows how to make a message of the field's type."""
    return field.message_type is not None and field.message_type.full_name in KNOWN


def _fill(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    if is_map(field):
        key, value = (contract.message_of(field).fields_by_name[name] for name in ("key", "value"))
        for name in draw(st.lists(VALUES[key.type], max_size=2)):
            held = _value(draw, value, depth)
            if value.message_type is not None:
                getattr(message, field.name)[name].CopyFrom(held)
            else:
                getattr(message, field.name)[name] = held
    elif field.is_repeated:
        getattr(message, field.name).extend([_value(draw, field, depth) for _ in range(draw(st.integers(0, 2)))])
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(_value(draw, field, depth))
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(draw, field, depth))


def _value(draw: st.DrawFn, field: FieldDescriptor, depth: int) -> Any:
    if field.message_type is not None:
        return draw(messages(field.message_type, max(0, depth - 1)))
    if field.enum_type is not None:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    return draw(VALUES[field.type])


def written(message: Message) -> Any:
    """Return our JSON, parsed."""
    descriptor: Any = message.DESCRIPTOR
    return json.loads(writer.encode(Writers().of(descriptor)(message)))


def expected(message: Message) -> Any:
    """Return the JSON of protobuf's own library, parsed."""
    return json.loads(json_format.MessageToJson(message, always_print_fields_with_no_presence=True))


SLOW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("name", sorted(ALL))
@given(data=st.data())
@SLOW
def test_json_is_what_protobufs_own_library_writes(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(ALL[name]))
    assert written(message) == expected(message)


@pytest.mark.parametrize("name", sorted(ALL))
@given(data=st.data())
@SLOW
def test_reading_back_gives_the_same_message(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(ALL[name]))
    for spelling in (written(message), json_format.MessageToDict(message, preserving_proto_field_name=True)):
        assert expected(Readers().read(ALL[name], spelling)) == expected(message)


def test_an_empty_message_shows_every_plain_field() -> None:
    shown = written(GetMessageClass(EVERYTHING)())
    assert shown["one9"] == ""
    assert shown["one3"] == "0"
    assert shown["one14"] == "COLOUR_UNSPECIFIED"
    assert shown["many9"] == []
    assert shown["map9To1"] == {}
    assert "knownTimestamp" not in shown
    assert "maybeDouble" not in shown


def test_a_number_of_an_enum_that_nobody_knows_stays_a_number() -> None:
    message = GetMessageClass(EVERYTHING)()
    message.one_14 = 77  # type: ignore[attr-defined]
    assert written(message)["one14"] == 77


def check_refusal(refused: Invalid) -> None:
    """Fail when a refusal does not name its fields and rules."""
    assert refused.violations
    assert all(violation.field and violation.rule for violation in refused.violations)


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=6) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
field_names = st.sampled_from([f.json_name for f in EVERYTHING.fields] + [f.name for f in EVERYTHING.fields])


@given(value=st.dictionaries(field_names | st.text(max_size=5), json_values, max_size=4) | json_values)
@settings(max_examples=150, deadline=None)
def test_whatever_json_comes_it_is_read_or_refused_by_field(value: Any) -> None:
    try:
        message = Readers().read(EVERYTHING, value)
    except Invalid as refused:
        check_refusal(refused)
    else:
        expected(message)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"one5": 1.5}, "one5"),
        ({"one5": True}, "one5"),
        ({"one5": "1.5"}, "one5"),
        ({"one13": -1}, "one13"),
        ({"one3": 2**63}, "one3"),
        ({"one4": "18446744073709551616"}, "one4"),
        ({"one1": "1,5"}, "one1"),
        ({"one1": "1e999"}, "one1"),
        ({"one2": 1e39}, "one2"),
        ({"one8": 1}, "one8"),
        ({"one8": "true"}, "one8"),
        ({"one2": 3.4028236e38}, "one2"),
        ({"one9": 1}, "one9"),
        ({"one9": "\x00"}, "one9"),
        ({"one12": "not base64!"}, "one12"),
        ({"one12": 5}, "one12"),
        ({"one14": "GREEN"}, "one14"),
        ({"one14": 99}, "one14"),
        ({"many5": 1}, "many5"),
        ({"many5": [1, None]}, "many5[1]"),
        ({"many5": [1, "x"]}, "many5[1]"),
        ({"inner": {"inner": {"nope": 1}}}, "inner.inner.nope"),
        ({"inners": [{}, {"one9": 1}]}, "inners[1].one9"),
        ({"inners": [None]}, "inners[0]"),
        ({"left": "a", "right": 1}, "right"),
        ({"one9": "a", "one_9": "b"}, "one_9"),
        ({"map9To3": {"a": "x"}}, "map9To3.a"),
        ({"map9To3": []}, "map9To3"),
        ({"map8To3": {"yes": 1}}, "map8To3.yes"),
        ({"map5To3": {"1.5": 1}}, "map5To3"),
        ({"knownTimestamp": "2026-13-01T00:00:00Z"}, "knownTimestamp"),
        ({"knownTimestamp": 5}, "knownTimestamp"),
        ({"knownDuration": "5"}, "knownDuration"),
        ({"knownFieldmask": 5}, "knownFieldmask"),
        ({"knownStruct": []}, "knownStruct"),
        ({"knownStruct": {"a": [{"b": "\x00"}]}}, "knownStruct.a.b"),
        ({"knownStruct": {"\x00": 1}}, "knownStruct"),
        ({"knownStruct": {"a": 10**400}}, "knownStruct.a"),
        ({"knownValue": json.loads("[" * 30 + "]" * 30)}, "knownValue"),
        ({"knownListvalue": {}}, "knownListvalue"),
    ],
)
def test_a_mistake_is_named_with_its_field(value: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        Readers().read(EVERYTHING, value)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("value", "field", "read"),
    [
        ({"one5": 7.0}, "one_5", 7),
        ({"one5": "7"}, "one_5", 7),
        ({"one5": 1e2}, "one_5", 100),
        ({"one5": "1e2"}, "one_5", 100),
        ({"one3": "-9223372036854775808"}, "one_3", -(2**63)),
        ({"one1": "2.5"}, "one_1", 2.5),
        ({"one1": "-Infinity"}, "one_1", float("-inf")),
        ({"one2": 3.40282347e38}, "one_2", 3.4028234663852886e38),
        ({"one12": "_-8"}, "one_12", b"\xff\xef"),
        ({"one12": "/+8="}, "one_12", b"\xff\xef"),
        ({"one14": 2}, "one_14", 2),
        ({"one9": None}, "one_9", ""),
        ({"many5": None}, "many_5", []),
    ],
)
def test_the_spellings_that_proto3_json_allows_are_read(value: Any, field: str, read: Any) -> None:
    assert getattr(Readers().read(EVERYTHING, value), field) == read
