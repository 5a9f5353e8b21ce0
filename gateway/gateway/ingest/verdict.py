# SPDX-License-Identifier: Apache-2.0
"""The verdict on each event: taken, with the fields of `dangol.events.v1.Event`, or rejected with a reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from zlib import crc32

import msgspec
from chassis.incoming import repair
from chassis.incoming.names import Value, text_of, usable_id
from chassis.incoming.times import NOT_GIVEN, event_time, read_time
from dangol.events.v1 import events_pb2 as pb
from msgspec import Raw

from gateway.ingest import shapes
from gateway.ingest.rejection import Rejected, Rejection, reject, rejection_of
from gateway.ingest.shapes import Incoming

MAX_DEPTH = 24
"""Nesting of properties, traits and context; `google.protobuf.Struct` breaks at 32 on its way out."""

TYPES: Mapping[str | None, int] = {
    "identify": pb.EVENT_TYPE_IDENTIFY,
    "track": pb.EVENT_TYPE_TRACK,
    "page": pb.EVENT_TYPE_PAGE,
    "screen": pb.EVENT_TYPE_SCREEN,
    "group": pb.EVENT_TYPE_GROUP,
    "alias": pb.EVENT_TYPE_ALIAS,
}

_NOTHING = frozenset((b"", b"null", b"{}", b"[]"))
"""What clients send for no properties; `[]` is how PHP writes an empty object."""

MAX_PAYLOAD_BYTES = 900 * 1024
"""An event has to fit in one message, and NATS takes 1 MiB by default."""


Taken = tuple[int, bytes]
"""An event that will be published: its shard, and an `EventBatch` of it alone.

Serialised batches that stand in a row are one batch, because protobuf merges repeated fields.
"""


@dataclass(slots=True)
class Examiner:
    """Judges the events of one request."""

    source: str
    shards: int
    max_event_bytes: int
    received_us: int
    sent_us: int = NOT_GIVEN
    type: int = pb.EVENT_TYPE_UNSPECIFIED
    """Given when the path says what the event is."""
    batch_context: bytes = b""
    """Context of the whole batch; an event's own members win."""
    may_hold_nul: bool = False
    _seen_context: Raw = field(default_factory=Raw, init=False)
    _context: bytes = field(default=b"", init=False)
    _forms: dict[int, tuple[pb.EventBatch, pb.Event]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._context = self.batch_context

    def examine(self, position: int, raw: bytes | Raw) -> Taken | Rejected:
        """Return the verdict on one event as it came."""
        try:
            return self._take(position, raw)
        except Rejection as rejection:
            return reject(position, raw, rejection)
        except (ValueError, RecursionError) as error:
            return reject(position, raw, rejection_of(error))

    def _take(self, position: int, raw: bytes | Raw) -> Taken:
        """Take an event or raise; what is unusual about it is left to others, because this runs for every event."""
        size = len(raw)
        if size > self.max_event_bytes:
            raise Rejection("EVENT_TOO_LARGE", f"has {size} bytes, at most {self.max_event_bytes} are taken")
        if self.may_hold_nul and b"\\u0000" in bytes(raw):
            raw = repair.repair(bytes(raw))
        event = shapes.decode_incoming(raw)
        event_type = self.type or TYPES.get(event.type) or _unusual_type(event.type)
        user_id, anonymous_id = usable_id(event.user_id), usable_id(event.anonymous_id)
        owner = user_id or anonymous_id
        if not owner:
            raise _nobody(event)
        message_id = event.message_id
        if type(message_id) is not str or not message_id:
            # Without an id of the client nothing can tell a retry from a second event.
            message_id = text_of(message_id) or f"dangol-{os.urandom(16).hex()}"
        sent_us = self.sent_us if event.sent_at is None else read_time(event.sent_at) or self.sent_us
        original_us = read_time(event.original_timestamp or event.timestamp)
        # A server's client sends the same context with every event of a batch, so one look is enough.
        if event.context != self._seen_context:
            self._look_at_context(event.context)
        # One message is filled in again and again: that costs half of what a new one does.
        form, out = self._forms.get(event_type) or self._new_form(event_type)
        out.message_id = message_id
        out.user_id = user_id
        out.anonymous_id = anonymous_id
        # Events of a batch that name no time happened in the order in which they stand.
        out.time_us = event_time(self.received_us, sent_us, original_us) if original_us else self.received_us + position
        out.sent_time_us = sent_us
        out.original_time_us = original_us
        out.context = self._context
        _FILL[event_type](event, out)
        payload = form.SerializeToString()
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise Rejection("EVENT_TOO_LARGE", f"takes {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are possible")
        return crc32(owner.encode()) % self.shards, payload

    def _new_form(self, event_type: int) -> tuple[pb.EventBatch, pb.Event]:
        batch = pb.EventBatch()
        event = batch.events.add(type=event_type, source=self.source, received_time_us=self.received_us)
        self._forms[event_type] = batch, event
        return batch, event

    def _look_at_context(self, raw: Raw) -> None:
        self._context = merge(self.batch_context, storable_object(raw, "context"))
        self._seen_context = raw


def context_of_batch(raw: Raw) -> bytes:
    """Return the context that a batch gives to all its events; one that cannot be kept is left out."""
    try:
        return storable_object(raw, "context")
    except Rejection:
        return b""


def merge(below: bytes, above: bytes) -> bytes:
    """Merge two JSON objects, member by member; those of `above` win, and bytes of values go through untouched."""
    if not below or not above:
        return above or below
    return msgspec.json.encode(shapes.decode_members(below) | shapes.decode_members(above))


def storable_object(raw: Raw, name: str) -> bytes:
    """Return a JSON object that every store can hold, empty when there is nothing in it."""
    text = bytes(raw)
    if text in _NOTHING:
        return b""
    try:
        if repair.is_storable_object(text, MAX_DEPTH):
            return text
    except (ValueError, RecursionError) as error:
        raise rejection_of(error, name) from error
    raise Rejection("WRONG_TYPE", f"{name}: must be an object")


def _unusual_type(name: str | None) -> int:
    found = TYPES.get(name.lower()) if name is not None else None
    if found is None:
        reason = "TYPE_MISSING" if name is None else "UNKNOWN_TYPE"
        raise Rejection(reason, "type: must be identify, track, page, screen, group or alias")
    return found


def _nobody(event: Incoming) -> Rejection:
    if event.user_id is None and event.anonymous_id is None:
        return Rejection("ID_MISSING", "userId, anonymousId: one of them is needed")
    return Rejection("JUNK_ID", "userId, anonymousId: neither tells who the customer is")


def _id(value: Value, name: str, reason: str, rule: str) -> str:
    text = usable_id(value)
    if not text:
        raise Rejection(reason, f"{name}: {rule}")
    return text


def _fill_track(event: Incoming, out: pb.Event) -> None:
    name = event.event if type(event.event) is str else text_of(event.event)
    if not name or name.isspace():
        raise Rejection("EVENT_NAME_MISSING", "event: a track call needs the name of the event")
    out.name = name
    out.properties = storable_object(event.properties, "properties")


def _fill_view(event: Incoming, out: pb.Event) -> None:
    out.name = text_of(event.name)
    out.category = text_of(event.category)
    out.properties = storable_object(event.properties, "properties")


def _fill_identify(event: Incoming, out: pb.Event) -> None:
    traits = storable_object(event.traits, "traits")
    if b'"traits"' in out.context:
        below = bytes(shapes.decode_traits_of_context(out.context).traits)
        if below.startswith(b"{"):
            traits = merge(below, traits)
    out.traits = traits


def _fill_group(event: Incoming, out: pb.Event) -> None:
    out.group_id = _id(event.group_id, "groupId", "GROUP_ID_MISSING", "a group call needs the id of the group")
    out.traits = storable_object(event.traits, "traits")


def _fill_alias(event: Incoming, out: pb.Event) -> None:
    if not out.user_id:
        raise Rejection("USER_ID_MISSING", "userId: an alias call needs the new id")
    out.previous_id = _id(event.previous_id, "previousId", "PREVIOUS_ID_MISSING", "an alias call needs the old id")


_FILL: Mapping[int, Callable[[Incoming, pb.Event], None]] = {
    pb.EVENT_TYPE_IDENTIFY: _fill_identify,
    pb.EVENT_TYPE_TRACK: _fill_track,
    pb.EVENT_TYPE_PAGE: _fill_view,
    pb.EVENT_TYPE_SCREEN: _fill_view,
    pb.EVENT_TYPE_GROUP: _fill_group,
    pb.EVENT_TYPE_ALIAS: _fill_alias,
}
