# SPDX-License-Identifier: Apache-2.0
"""From the rows of a file to events, by the rules of the gateway, in batches that are the same each time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec
from chassis.identifiers import MAX_VALUE_LENGTH
from chassis.incoming import repair
from chassis.incoming.names import usable_id
from chassis.incoming.times import DAY_US, NOT_GIVEN
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import transfer_pb2 as pb

from svc_profile.domain.columns import Column, FileMapping, Row, RowReader, RowRejected
from svc_profile.domain.imports import BATCH_BYTES, ImportJob, RejectedRow
from svc_profile.wire.archives import decoded, read_rudderstack, read_segment
from svc_profile.wire.files import CsvRows, LineRows, ParquetRows, Problem, readable

MAX_EVENT_BYTES = 32 * 1024
MAX_DEPTH = 24
_MAX_NAME_LENGTH = 255
_MAX_MESSAGE_ID_LENGTH = 100
_SHORT = _MAX_MESSAGE_ID_LENGTH
"""When all texts of an event together are no longer, none is too long."""
_SHORT_OBJECT = 300
_BODY_LENGTH = 1_000
_RULE_LENGTH = 300

_TYPES: Mapping[str, events_pb2.EventType.ValueType] = {
    "identify": events_pb2.EVENT_TYPE_IDENTIFY,
    "track": events_pb2.EVENT_TYPE_TRACK,
    "page": events_pb2.EVENT_TYPE_PAGE,
    "screen": events_pb2.EVENT_TYPE_SCREEN,
    "group": events_pb2.EVENT_TYPE_GROUP,
    "alias": events_pb2.EVENT_TYPE_ALIAS,
}
_IDENTIFY, _TRACK = events_pb2.EVENT_TYPE_IDENTIFY, events_pb2.EVENT_TYPE_TRACK
_GROUP, _ALIAS = events_pb2.EVENT_TYPE_GROUP, events_pb2.EVENT_TYPE_ALIAS

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


class _Object(dict[str, Any]):
    """A row that is an object: what it does not have is None."""

    def __missing__(self, key: str) -> None:
        return None


class Made(NamedTuple):
    """An event that was made of a row."""

    customer: str
    """The id that the shard of the event hangs on."""
    event: bytes
    """An `EventBatch` of one event, serialised."""


@dataclass(frozen=True)
class Slice:
    """The rows of one batch."""

    first_row: int
    """Number of its first row, from 0."""
    read_rows: int
    events: list[Made]
    rejected: list[RejectedRow]
    next_offset: int
    read_bytes: int


class _Rows(Protocol):
    columns: list[str] | None

    @property
    def offset(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def read_bytes(self, file: BinaryIO) -> int: ...
    def body(self, values: Any) -> str: ...


Translate = Callable[[Any, int], Iterable[Made | RowRejected]]


def slices(job: ImportJob, file: BinaryIO, inflated: BinaryIO, identifiers: Iterable[str]) -> Iterator[Slice]:
    """Go through the rest of a file; raises `Invalid` where it cannot be read on.

    `identifiers` are the traits that somebody can be known by.
    """
    with readable():
        rows = _rows(job, inflated)
        translator = _Translator(job, rows.columns, frozenset(identifiers))
        yield from _cut(job, rows, translator.of_format(), file)


def _rows(job: ImportJob, file: BinaryIO) -> Any:
    mapping, offset = read_mapping(job.plan.mapping), job.progress.next_offset
    encoding = mapping.encoding or "utf-8"
    if job.plan.format == pb.IMPORT_FORMAT_CSV:
        return CsvRows(file, offset, delimiter=mapping.delimiter or ",", encoding=encoding, header=mapping.header)
    if job.plan.format == pb.IMPORT_FORMAT_PARQUET:
        return ParquetRows(file, offset, job.progress.received_bytes)
    return LineRows(file, offset, encoding=encoding)


def _cut(job: ImportJob, rows: _Rows, translate: Translate, file: BinaryIO) -> Iterator[Slice]:
    number = first = job.progress.read_rows
    events: list[Made] = []
    rejected: list[RejectedRow] = []
    size = 0
    for values in rows:
        number += 1
        try:
            if isinstance(values, Problem):
                raise RowRejected("row", values.rule)
            for made in translate(values, number):
                if isinstance(made, RowRejected):
                    rejected.append(_rejected(number, made, rows.body(values)))
                else:
                    events.append(made)
                    size += len(made.event)
        except RowRejected as rejection:
            body = values.body if isinstance(values, Problem) else rows.body(values)
            rejected.append(_rejected(number, rejection, body))
        if number - first == job.batch_rows or size + _BODY_LENGTH * len(rejected) >= BATCH_BYTES:
            yield Slice(first, number - first, events, rejected, rows.offset, rows.read_bytes(file))
            first, events, rejected, size = number, [], [], 0
    if number > first:
        yield Slice(first, number - first, events, rejected, rows.offset, rows.read_bytes(file))


def _rejected(number: int, rejection: RowRejected, body: str) -> RejectedRow:
    return RejectedRow(
        row=number,
        field=repair.clean_text(rejection.field),
        rule=repair.clean_text(rejection.rule)[:_RULE_LENGTH],
        body=repair.clean_text(body[:_BODY_LENGTH]),
    )


class _Translator:
    """Makes events of rows."""

    def __init__(self, job: ImportJob, columns: Sequence[str] | None, identifiers: frozenset[str]) -> None:
        self._job = job
        self._identifiers = identifiers
        self._received_us = job.create_time_us
        self._latest_us = job.create_time_us + DAY_US
        self._is_customers = job.plan.kind == pb.IMPORT_KIND_CUSTOMERS
        self._default = _IDENTIFY if self._is_customers else _TRACK
        self._reader = RowReader(read_mapping(job.plan.mapping), columns)
        # One message of each type is filled in again and again: that costs less than half of what a new one does.
        self._forms: dict[int, tuple[events_pb2.EventBatch, events_pb2.Event]] = {}

    def of_format(self) -> Translate:
        """Return the translation of one row of the import's format."""
        if self._job.plan.format == pb.IMPORT_FORMAT_SEGMENT_ARCHIVE:
            return lambda line, number: self._archived(read_segment(line), number)
        if self._job.plan.format == pb.IMPORT_FORMAT_RUDDERSTACK_ARCHIVE:
            return lambda line, number: self._archived(read_rudderstack(line), number)
        return self._object if self._job.plan.format == pb.IMPORT_FORMAT_NDJSON else self._mapped

    def _mapped(self, values: Any, number: int) -> tuple[Made]:
        return (self._event(self._reader.read(values), number, self._received_us),)

    def _object(self, line: bytes, number: int) -> tuple[Made]:
        return self._mapped(_Object(decoded(_decode, line)), number)

    def _archived(self, messages: Iterator[tuple[Row, int] | RowRejected], number: int) -> Iterator[Made | RowRejected]:
        """One line may hold a whole request, of which a bad event costs only itself."""
        for position, message in enumerate(messages):
            if isinstance(message, RowRejected):
                yield message
                continue
            row, received_us = message
            at = f"{number}.{position}" if position else number
            try:
                yield self._event(row, at, received_us or self._received_us)
            except RowRejected as rejection:
                yield rejection

    def _event(self, row: Row, number: int | str, received_us: int) -> Made:
        kind = _TYPES.get(row.type.lower()) if row.type else self._default
        if not kind:
            raise RowRejected("type", "must be identify, track, page, screen, group or alias")
        user_id, anonymous_id, name = usable_id(row.user_id), usable_id(row.anonymous_id), row.name
        if "\x00" in user_id or "\x00" in anonymous_id:
            user_id, anonymous_id = repair.clean_text(user_id), repair.clean_text(anonymous_id)
        if not (user_id or anonymous_id or (kind == _IDENTIFY and self._is_known_by_traits(row))):
            raise RowRejected("user_id, anonymous_id", "one of them must tell who the customer is")
        if kind == _TRACK and (not name or name.isspace()):
            raise RowRejected("name", "a track event needs the name of the event")
        if len(user_id) + len(anonymous_id) + len(name) + len(row.category) + len(row.message_id) > _SHORT:
            _check_lengths(row)
        form, event = self._forms.get(kind) or self._new_form(kind)
        event.message_id = row.message_id or f"{self._job.file_key}-{number}"
        event.user_id = user_id
        event.anonymous_id = anonymous_id
        event.name = repair.clean_text(name) if "\x00" in name else name
        event.category = repair.clean_text(row.category) if row.category else ""
        event.time_us = self._time(row.time)
        event.received_time_us = received_us
        event.original_time_us = row.time
        event.properties = _object_of(row.properties, "properties") if row.properties else b""
        event.traits = _object_of(row.traits, "traits") if row.traits else b""
        event.context = _object_of(row.context, "context") if row.context else b""
        if kind in (_GROUP, _ALIAS):
            _fill_ids(event, row)
        data = form.SerializeToString()
        if len(data) > MAX_EVENT_BYTES:
            raise RowRejected("row", f"makes an event of more than {MAX_EVENT_BYTES} bytes")
        return Made(user_id or anonymous_id, data)

    def _new_form(self, kind: events_pb2.EventType.ValueType) -> tuple[events_pb2.EventBatch, events_pb2.Event]:
        form = events_pb2.EventBatch()
        self._forms[kind] = made = form, form.events.add(type=kind, source=self._job.plan.source)
        return made

    def _is_known_by_traits(self, row: Row) -> bool:
        return any(
            usable_id(value) for name in self._identifiers if isinstance(value := row.traits.get(name), str | int)
        )

    def _time(self, time_us: int) -> int:
        if time_us == NOT_GIVEN:
            if self._is_customers:
                return self._received_us
            raise RowRejected("time", "is required")
        if not 0 < time_us <= self._latest_us:
            raise RowRejected("time", "must lie between 1970 and a day after the import was prepared")
        return time_us


def _check_lengths(row: Row) -> None:
    limits = {
        "user_id": MAX_VALUE_LENGTH,
        "anonymous_id": MAX_VALUE_LENGTH,
        "previous_id": MAX_VALUE_LENGTH,
        "group_id": MAX_VALUE_LENGTH,
        "name": _MAX_NAME_LENGTH,
        "category": _MAX_NAME_LENGTH,
        "message_id": _MAX_MESSAGE_ID_LENGTH,
    }
    for field, most in limits.items():
        if len(getattr(row, field)) > most:
            raise RowRejected(field, f"must have at most {most} characters")


def _fill_ids(event: events_pb2.Event, row: Row) -> None:
    """Set the ids that only some kinds of event have."""
    _check_lengths(row)
    if event.type == _GROUP:
        event.group_id = _needed(row.group_id, "group_id", "a group event needs the id of the group")
    else:
        _needed(row.user_id, "user_id", "an alias event needs the new id")
        event.previous_id = _needed(row.previous_id, "previous_id", "an alias event needs the old id")


def _needed(value: str, field: str, rule: str) -> str:
    text = repair.clean_text(usable_id(value))
    if not text:
        raise RowRejected(field, rule)
    return text


def _object_of(values: dict[str, Any], field: str) -> bytes:
    """Return JSON that every store can hold; raises `RowRejected`."""
    try:
        text = _encode(values)
        if b"\\u0000" in text:
            text = repair.repair(text)
        # Python's floats fit in a double, and a short text holds no long number.
        if len(text) > _SHORT_OBJECT or text.count(b"{") + text.count(b"[") > MAX_DEPTH:
            repair.is_storable_object(text, MAX_DEPTH)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowRejected(field, str(error) or "cannot be kept") from error
    return text


def read_mapping(data: bytes) -> FileMapping:
    """Read a mapping that is kept."""
    return mapping_from_proto(pb.ImportMapping.FromString(data))


def mapping_from_proto(mapping: pb.ImportMapping) -> FileMapping:
    """Read a mapping of the contract."""
    return FileMapping(
        columns=tuple(Column(c.column, c.field, c.type, c.empty_is_null) for c in mapping.columns),
        constants=tuple((constant.field, constant.value) for constant in mapping.constants),
        other_columns=mapping.other_columns,
        time_zone=mapping.time_zone,
        time_format=mapping.time_format,
        delimiter=mapping.delimiter,
        encoding=mapping.encoding,
        header=tuple(mapping.header),
    )
