# SPDX-License-Identifier: Apache-2.0
"""The verdict on each event: taken, with the fields of `dangol.events.v1.Event`, or rejected with a reason."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from chassis.identity import MAX_VALUE_LENGTH, is_junk
from dangol.events.v1 import events_pb2 as pb
from gateway.ingest import repair, shapes
from gateway.ingest.repair import Unstorable
from gateway.ingest.shapes import Incoming
from gateway.ingest.times import NOT_GIVEN, event_time, read_time

MAX_DEPTH = 24
"""Nesting of properties, traits and context; `google.protobuf.Struct` breaks at 32 on its way out."""
MAX_MESSAGE_ID_LENGTH = 100
MAX_NAME_LENGTH = 255
"""Names become keys of tables, and an index entry of PostgreSQL holds 2,700 bytes."""
REJECTED_BODY_BYTES = 4096

TYPES: Mapping[str, int] = {
    "identify": pb.EVENT_TYPE_IDENTIFY,
    "track": pb.EVENT_TYPE_TRACK,
    "page": pb.EVENT_TYPE_PAGE,
    "screen": pb.EVENT_TYPE_SCREEN,
    "group": pb.EVENT_TYPE_GROUP,
    "alias": pb.EVENT_TYPE_ALIAS,
}

_NOTHING = frozenset((b"", b"null", b"{}", b"[]"))
"""What clients send for no properties; `[]` is how PHP writes an empty object."""


class Taken(NamedTuple):
    """An event that will be published."""

    shard: int
    size: int
    """About the bytes that it takes on the wire; never less."""
    fields: dict[str, Any]


class Rejected(NamedTuple):
    """An event that will not."""

    position: int
    message_id: str
    reason: str
    detail: str
    body: bytes


class Rejection(Exception):  # noqa: N818 - a verdict
    """Why an event is not taken."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Examiner:
    """Judges the events of one request."""

    source: str
    shards: int
    max_event_bytes: int
    received_us: int
    sent_us: int = NOT_GIVEN
    type: str | None = None
    """Set when the path says what the event is."""
    context: bytes = b""
    """Context of the whole batch; an event's own members win."""
    may_hold_nul: bool = False
    _checked_context: bytes = field(default=b"", init=False)

    def examine(self, position: int, raw: bytes | msgspec.Raw) -> Taken | Rejected:
        """Return the verdict on one event as it came."""
        try:
            return self._take(raw)
        except Rejection as rejection:
            return reject(position, raw, rejection.reason, rejection.detail)

    def _take(self, raw: bytes | msgspec.Raw) -> Taken:
        size = len(raw)  # type: ignore[arg-type]  # Raw has a length, its stub does not say so
        if size > self.max_event_bytes:
            raise Rejection("EVENT_TOO_LARGE", f"the event has {size} bytes, at most {self.max_event_bytes} are taken")
        event = self._decode(raw)
        event_type = self._type(event)
        user_id, anonymous_id = _identity(event)
        original_us = read_time(event.original_timestamp or event.timestamp)
        sent_us = read_time(event.sent_at) or self.sent_us
        fields: dict[str, Any] = {
            "message_id": _message_id(event.message_id),
            "type": event_type,
            "source": self.source,
            "user_id": user_id,
            "anonymous_id": anonymous_id,
            "time_us": event_time(self.received_us, sent_us, original_us),
            "received_time_us": self.received_us,
            "sent_time_us": sent_us,
            "original_time_us": original_us,
        }
        fields["context"] = context = self._context(event.context)
        _FILL[event_type](event, fields, context)
        return Taken(crc32((user_id or anonymous_id).encode()) % self.shards, 2 * size + 256, fields)

    def _decode(self, raw: bytes | msgspec.Raw) -> Incoming:
        try:
            if self.may_hold_nul and b"\\u0000" in bytes(raw):
                raw = repair.repair(bytes(raw))
            return shapes.decode_incoming(raw)
        except msgspec.ValidationError as error:
            raise Rejection("WRONG_TYPE", str(error)) from error
        except UnicodeDecodeError as error:
            raise Rejection("INVALID_UTF8", "text must be UTF-8") from error
        except RecursionError as error:
            raise Rejection(repair.NESTED_TOO_DEEP, "the event is nested too deep") from error
        except ValueError as error:
            raise Rejection("INVALID_JSON", str(error)) from error

    def _type(self, event: Incoming) -> int:
        name = self.type or event.type
        if name is None:
            raise Rejection("TYPE_MISSING", "type: must be identify, track, page, screen, group or alias")
        found = TYPES.get(name) or TYPES.get(name.lower())
        if found is None:
            raise Rejection("UNKNOWN_TYPE", "type: must be identify, track, page, screen, group or alias")
        return found

    def _context(self, raw: msgspec.Raw) -> bytes:
        text = bytes(raw)
        # A server's client sends the same context with every event of a batch, so one look is enough.
        if text != self._checked_context:
            own = _object(text, "context")
            text = merge(self.context, own) if self.context else own
            self._checked_context = text
        return text


def batch_context(raw: msgspec.Raw) -> bytes:
    """Return the context that a batch gives to all its events; one that cannot be kept is left out."""
    try:
        return _object(bytes(raw), "context")
    except Rejection:
        return b""


def reject(position: int, raw: bytes | msgspec.Raw, reason: str, detail: str) -> Rejected:
    """Return the record of an event that is not taken; all of it is text that every store can hold."""
    body = bytes(raw)[:REJECTED_BODY_BYTES]
    text = repair.clean_text(body.decode(errors="replace"))
    return Rejected(position, _claimed_message_id(raw), reason, repair.clean_text(detail)[:500], text.encode())


def merge(below: bytes, above: bytes) -> bytes:
    """Merge two JSON objects, member by member; those of `above` win, and bytes of values go through untouched."""
    if not below or not above:
        return above or below
    return msgspec.json.encode(shapes.decode_members(below) | shapes.decode_members(above))


def _object(text: bytes, name: str) -> bytes:
    """Return a JSON object that every store can hold, empty when there is nothing in it."""
    if text in _NOTHING:
        return b""
    try:
        if repair.check_object(text, MAX_DEPTH):
            return text
    except Unstorable as error:
        raise Rejection(error.reason, f"{name}: {error}") from error
    except UnicodeDecodeError as error:
        raise Rejection("INVALID_UTF8", f"{name}: text must be UTF-8") from error
    except RecursionError as error:
        raise Rejection(repair.NESTED_TOO_DEEP, f"{name}: must be nested at most {MAX_DEPTH} levels deep") from error
    raise Rejection("WRONG_TYPE", f"{name}: must be an object")


def _identity(event: Incoming) -> tuple[str, str]:
    """Return the ids by which the customer can be known; junk that clients send for "nobody" is dropped."""
    user_id = _id(event.user_id, "userId")
    anonymous_id = _id(event.anonymous_id, "anonymousId")
    if user_id or anonymous_id:
        return user_id, anonymous_id
    if event.user_id is None and event.anonymous_id is None:
        raise Rejection("ID_MISSING", "userId, anonymousId: one of them is needed")
    raise Rejection("JUNK_ID", "userId, anonymousId: neither tells who the customer is")


def _id(value: shapes.Name, name: str) -> str:
    if value is None:
        return ""
    text = _usable_id(_text(value))
    if len(text) > MAX_VALUE_LENGTH:
        raise Rejection("ID_TOO_LONG", f"{name}: must have at most {MAX_VALUE_LENGTH} characters")
    return text


@lru_cache(maxsize=65536)
def _usable_id(text: str) -> str:
    text = text.strip()
    return "" if is_junk(text) else text


def _text(value: shapes.Name) -> str:
    """Spell a number the way JavaScript does: 12.0 is `12`."""
    if type(value) is str:
        return value
    if type(value) is float and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _message_id(value: shapes.Name) -> str:
    text = _text(value).strip()
    if len(text) > MAX_MESSAGE_ID_LENGTH:
        raise Rejection("MESSAGE_ID_TOO_LONG", f"messageId: must have at most {MAX_MESSAGE_ID_LENGTH} characters")
    # Without an id of the client nothing can tell a retry from a second event.
    return text or f"dangol-{os.urandom(16).hex()}"


def _claimed_message_id(raw: bytes | msgspec.Raw) -> str:
    try:
        claimed = shapes.decode_message_id(raw).message_id
        text = _text(claimed) if isinstance(claimed, str | int | float) else ""
        return repair.clean_text(text)[:MAX_MESSAGE_ID_LENGTH]
    except (ValueError, RecursionError):
        return ""


def _name(value: shapes.Name, member: str) -> str:
    text = _text(value)
    if len(text) > MAX_NAME_LENGTH:
        raise Rejection("NAME_TOO_LONG", f"{member}: must have at most {MAX_NAME_LENGTH} characters")
    return text


def _fill_track(event: Incoming, fields: dict[str, Any], _: bytes) -> None:
    fields["name"] = _name(event.event, "event")
    if not fields["name"].strip():
        raise Rejection("EVENT_NAME_MISSING", "event: a track call needs the name of the event")
    fields["properties"] = _object(bytes(event.properties), "properties")


def _fill_view(event: Incoming, fields: dict[str, Any], _: bytes) -> None:
    fields["name"] = _name(event.name, "name")
    fields["category"] = _name(event.category, "category")
    fields["properties"] = _object(bytes(event.properties), "properties")


def _fill_identify(event: Incoming, fields: dict[str, Any], context: bytes) -> None:
    traits = _object(bytes(event.traits), "traits")
    if b'"traits"' in context:
        below = bytes(shapes.decode_traits_of_context(context).traits)
        if below.startswith(b"{"):
            traits = merge(below, traits)
    fields["traits"] = traits


def _fill_group(event: Incoming, fields: dict[str, Any], _: bytes) -> None:
    fields["group_id"] = _id(event.group_id, "groupId")
    if not fields["group_id"]:
        raise Rejection("GROUP_ID_MISSING", "groupId: a group call needs the id of the group")
    fields["traits"] = _object(bytes(event.traits), "traits")


def _fill_alias(event: Incoming, fields: dict[str, Any], _: bytes) -> None:
    fields["previous_id"] = _id(event.previous_id, "previousId")
    if not fields["user_id"]:
        raise Rejection("USER_ID_MISSING", "userId: an alias call needs the new id")
    if not fields["previous_id"]:
        raise Rejection("PREVIOUS_ID_MISSING", "previousId: an alias call needs the old id")


_FILL = {
    pb.EVENT_TYPE_IDENTIFY: _fill_identify,
    pb.EVENT_TYPE_TRACK: _fill_track,
    pb.EVENT_TYPE_PAGE: _fill_view,
    pb.EVENT_TYPE_SCREEN: _fill_view,
    pb.EVENT_TYPE_GROUP: _fill_group,
    pb.EVENT_TYPE_ALIAS: _fill_alias,
}
