# SPDX-License-Identifier: Apache-2.0
"""Archives of Segment and RudderStack: lines that hold API messages as they were received.

Segment's S3 destination writes gzipped, newline-separated JSON with the full calls. RudderStack's archiver writes lines
`{"userId", "payload", "createdAt", "messageId"}`, where `payload` is one event, or, from the gateway's own backups, a
whole request with its `batch`; older ones call it `event_payload`. In both, the `timestamp` of an event is already
corrected for the client's clock.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from chassis.incoming import repair
from chassis.incoming.names import text_of
from chassis.incoming.times import DAY_US, NOT_GIVEN, event_time, read_time
from msgspec import Raw

from svc_profile.domain.columns import Row, RowRejected

_Text = str | int | float | None
_Object = dict[str, Any] | Annotated[list[Any], msgspec.Meta(max_length=0)] | None
"""`[]` is how PHP writes an empty object."""


class _Message(msgspec.Struct, rename="camel", gc=False):
    """What is read of an API message."""

    type: str | None = None
    message_id: _Text = None
    user_id: _Text = None
    anonymous_id: _Text = None
    previous_id: _Text = None
    group_id: _Text = None
    event: _Text = None
    name: _Text = None
    category: _Text = None
    timestamp: Any = None
    original_timestamp: Any = None
    sent_at: Any = None
    received_at: Any = None
    properties: _Object = None
    traits: _Object = None
    context: _Object = None


class _Backup(msgspec.Struct, rename="camel", gc=False):
    """A line of a backup of RudderStack."""

    payload: Raw = Raw()
    event_payload: Raw = msgspec.field(default_factory=Raw, name="event_payload")
    created_at: Any = None


class _Request(msgspec.Struct, rename="camel", gc=False):
    """A request that RudderStack's gateway kept as a whole."""

    batch: list[Raw] | None = None
    received_at: Any = None


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_backup = msgspec.json.Decoder(_Backup).decode
_decode_request = msgspec.json.Decoder(_Request).decode


def read_segment(line: bytes) -> Iterator[tuple[Row, int]]:
    """Return the event of a line and when it was received; raises `RowRejected`."""
    yield _read(decoded(_decode_message, line))


def read_rudderstack(line: bytes) -> Iterator[tuple[Row, int] | RowRejected]:
    """Return the events of a line and when each was received, or why one of a request is not taken.

    Raises `RowRejected` when the line itself cannot be read.
    """
    backup = decoded(_decode_backup, line)
    payload = bytes(backup.payload) or bytes(backup.event_payload) or line
    request = decoded(_decode_request, payload)
    if request.batch is None:
        yield _read(decoded(_decode_message, payload), backup.created_at)
        return
    for message in request.batch:
        try:
            yield _read(decoded(_decode_message, bytes(message)), request.received_at or backup.created_at)
        except RowRejected as rejection:
            yield rejection


def decoded(decode: Any, data: bytes) -> Any:
    """Decode a line, repaired as the gateway repairs what real clients send; raises `RowRejected`."""
    try:
        try:
            return decode(data)
        except msgspec.ValidationError:
            raise
        except ValueError:
            if not repair.is_repairable(data):
                raise
            return decode(repair.repair(data))
    except msgspec.ValidationError as error:
        raise RowRejected("row", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise RowRejected("row", "must be a JSON object in UTF-8") from error


def _read(message: _Message, received: Any = None) -> tuple[Row, int]:
    kind = (message.type or "").lower()
    received_us = read_time(message.received_at or received)
    name = message.event if kind == "track" else message.name
    row = Row(
        user_id=text_of(message.user_id),
        anonymous_id=text_of(message.anonymous_id),
        previous_id=text_of(message.previous_id),
        group_id=text_of(message.group_id),
        message_id=text_of(message.message_id),
        type=kind,
        name=text_of(name),
        category=text_of(message.category),
        time=_time(message, received_us),
        traits=_members(message.traits),
        properties=_members(message.properties),
        context=_members(message.context),
    )
    if kind == "identify" and isinstance(row.context.get("traits"), dict):
        row.traits = {**row.context["traits"], **row.traits}
    return row, received_us


def _members(value: _Object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _time(message: _Message, received_us: int) -> int:
    """Return when it happened: as corrected by those who received it, else corrected here, else as received."""
    corrected = read_time(message.timestamp)
    if corrected != NOT_GIVEN and (received_us == NOT_GIVEN or corrected <= received_us + DAY_US):
        return corrected
    original = read_time(message.original_timestamp)
    if received_us == NOT_GIVEN:
        return original
    return event_time(received_us, read_time(message.sent_at), original)
