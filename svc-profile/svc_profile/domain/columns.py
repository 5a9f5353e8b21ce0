# SPDX-License-Identifier: Apache-2.0
"""What the columns of a file mean: from the values of a row to the parts of an event."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from chassis.errors import Invalid

from svc_profile.domain.cells import (
    Times,
    as_it_is,
    read_boolean,
    read_id,
    read_json,
    read_list,
    read_number,
    read_text,
)

TEXT, NUMBER, BOOLEAN, TIME, JSON, LIST = 1, 2, 3, 4, 5, 6
"""Kinds of value, with the numbers of the contract; 0 is as the file has it."""

IGNORE, TRAITS, PROPERTIES = 0, 1, 2
"""What happens to columns that the mapping does not name."""

MAX_COLUMNS = 2_000

_PLAIN = ("user_id", "anonymous_id", "previous_id", "group_id", "message_id", "type", "name", "category", "time")
_FIELD = re.compile(r"(traits|properties|context)((?:\.[^.\x00]{1,200}){1,8})")


class RowRejected(Exception):
    """A row breaks a rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


@dataclass(frozen=True)
class Column:
    """What one column means."""

    column: str
    field: str
    type: int = 0
    empty_is_null: bool = False


@dataclass(frozen=True)
class FileMapping:
    """What the columns of a file mean."""

    columns: tuple[Column, ...] = ()
    constants: tuple[tuple[str, str], ...] = ()
    other_columns: int = IGNORE
    time_zone: str = ""
    time_format: str = ""
    delimiter: str = ""
    encoding: str = ""
    header: tuple[str, ...] = ()


class Row(msgspec.Struct, gc=False):
    """The parts of an event that one row makes; texts are as they came."""

    user_id: str = ""
    anonymous_id: str = ""
    previous_id: str = ""
    group_id: str = ""
    message_id: str = ""
    type: str = ""
    name: str = ""
    category: str = ""
    time: int = 0
    """Microseconds since the epoch; 0 when not given."""
    traits: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    context: dict[str, Any] = {}


Read = Callable[[Any], Any]


class _Put(msgspec.Struct, frozen=True, gc=False):
    """Where one value of a row goes."""

    key: int | str
    """Where it stands in the row: a number, or a name when rows are objects."""
    path: tuple[str, ...]
    """Where it stands inside the value."""
    field: str
    whole: str
    target: tuple[str, ...]
    """Where it goes inside that part of the event; empty when it is all of it."""
    read: Read
    empty_is_null: bool
    name: str = ""
    """The only step of `target`, as most have it."""


class RowReader:
    """Turns the values of a row into the parts of an event; made once for the columns of a file.

    Without columns each row is an object, and may have members of its own.
    """

    def __init__(self, mapping: FileMapping, columns: Sequence[str] | None) -> None:
        if columns is not None and len(columns) > MAX_COLUMNS:
            raise Invalid.field("file", f"has {len(columns)} columns, at most {MAX_COLUMNS} are read")
        self._times = Times(mapping.time_zone, mapping.time_format)
        self._constants = _constants(mapping, self._times)
        self._others = {TRAITS: "traits", PROPERTIES: "properties"}.get(mapping.other_columns, "")
        self._puts = self._plan(mapping, None if columns is None else {name: n for n, name in enumerate(columns)})
        # What every value of every row asks for; the rest of a put is for the few.
        self._steps = [(put, put.key, put.path, put.read, put.name, put.whole) for put in self._puts]
        self._named = {put.key for put in self._puts}
        self._is_open = columns is None and bool(self._others)

    def _plan(self, mapping: FileMapping, numbers: Mapping[str, int] | None) -> list[_Put]:
        puts = []
        for column in mapping.columns:
            name, path = _find(column.column, numbers)
            puts.append(self._put(name if numbers is None else numbers[name], path, column))
        if self._others and numbers is not None:
            used = {put.key for put in puts}
            puts += [
                _Put(number, (), name, self._others, (name,), as_it_is, False, name)
                for name, number in numbers.items()
                if name and number not in used
            ]
        return puts

    def _put(self, key: int | str, path: tuple[str, ...], column: Column) -> _Put:
        whole, target = split_field(column.field)
        read = self._reader(column.type) if target else self._times.read if whole == "time" else read_id
        name = target[0] if len(target) == 1 else ""
        return _Put(key, path, column.field, whole, target, read, column.empty_is_null, name)

    def _reader(self, kind: int) -> Read:
        readers: Mapping[int, Read] = {
            TEXT: read_text,
            NUMBER: read_number,
            BOOLEAN: read_boolean,
            TIME: self._times.written,
            JSON: read_json,
            LIST: read_list,
        }
        return readers.get(kind, as_it_is)

    def read(self, values: Any) -> Row:
        """Return the parts of the event that a row makes; raises `RowRejected`."""
        row = Row()
        for whole, target, value in self._constants:
            _assign(row, whole, target, value)
        for put, key, path, read, name, whole in self._steps:
            value = values[key]
            if path:
                value = _follow(value, path)
            if value is None or value == "":
                if put.empty_is_null and put.target:
                    _assign(row, whole, put.target, None)
                continue
            # Most values are texts that stay what they are.
            if read is not as_it_is or type(value) is not str:
                try:
                    value = read(value)
                except (ValueError, ArithmeticError) as error:
                    raise RowRejected(put.field, str(error)) from error
            if name:
                getattr(row, whole)[name] = value
            elif put.target:
                _assign(row, whole, put.target, value)
            else:
                setattr(row, whole, value)
        if self._is_open:
            rest = getattr(row, self._others)
            rest.update({name: value for name, value in values.items() if name not in self._named})
        return row


def _find(column: str, numbers: Mapping[str, int] | None) -> tuple[str, tuple[str, ...]]:
    """Find a column by its name, or by the longest beginning of a path with dots that is one."""
    steps = column.split(".")
    if numbers is None:
        return steps[0], tuple(steps[1:])
    for length in range(len(steps), 0, -1):
        name = ".".join(steps[:length])
        if name in numbers:
            return name, tuple(steps[length:])
    raise Invalid.field("mapping.columns", f"the file has no column {column}")


def _follow(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _assign(row: Row, whole: str, target: Sequence[str], value: Any) -> None:
    if not target:
        setattr(row, whole, value)
        return
    into, (*parents, last) = getattr(row, whole), target
    for parent in parents:
        inner = into.get(parent)
        if not isinstance(inner, dict):
            inner = into[parent] = {}
        into = inner
    into[last] = value


def split_field(field: str) -> tuple[str, tuple[str, ...]]:
    """Split the name of a target into its part of the event and the path inside; raises `Invalid`."""
    if field in _PLAIN:
        return field, ()
    found = _FIELD.fullmatch(field)
    if found is None:
        rule = f"{field!r} must be one of {', '.join(_PLAIN)}, or a path below traits, properties or context"
        raise Invalid.field("mapping.columns", rule)
    return found[1], tuple(found[2][1:].split("."))


def _constants(mapping: FileMapping, times: Times) -> list[tuple[str, tuple[str, ...], Any]]:
    constants: list[tuple[str, tuple[str, ...], Any]] = []
    for field, value in mapping.constants:
        whole, target = split_field(field)
        constants.append((whole, target, times.read(value) if whole == "time" else value))
    return constants


def check_mapping(mapping: FileMapping) -> None:
    """Raise `Invalid` when a mapping cannot work for any file."""
    fields = [column.field for column in mapping.columns] + [field for field, _ in mapping.constants]
    for field in fields:
        split_field(field)
    twice = sorted({field for field in fields if fields.count(field) > 1})
    if twice:
        raise Invalid.field("mapping.columns", f"{twice[0]} is set twice")
    try:
        _constants(mapping, Times(mapping.time_zone, mapping.time_format))
    except ValueError as error:
        raise Invalid.field("mapping.constants", f"time: {error}") from error
