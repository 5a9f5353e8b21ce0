# SPDX-License-Identifier: Apache-2.0
"""Events without a person: what may be counted of somebody who refuses to be analysed."""

import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from chassis.events import json_object
from dangol.events.v1 import events_pb2

_COUNTED = frozenset({events_pb2.EVENT_TYPE_TRACK, events_pb2.EVENT_TYPE_PAGE, events_pb2.EVENT_TYPE_SCREEN})
"""Calls that say what happened; the others say who somebody is."""

_MOST_EVENTS = 500


def anonymous_batches(payloads: Iterable[bytes], properties: Collection[str]) -> Sequence[events_pb2.EventBatch]:
    """Return events with nothing of the customer: name, time and allowed properties, each by an unknown of its own."""
    events = [
        _anonymous(event, properties) for event in map(events_pb2.Event.FromString, payloads) if event.type in _COUNTED
    ]
    return [events_pb2.EventBatch(events=events[at : at + _MOST_EVENTS]) for at in range(0, len(events), _MOST_EVENTS)]


def _anonymous(event: events_pb2.Event, properties: Collection[str]) -> events_pb2.Event:
    # Chance, not a hash: nobody, whatever keys they hold, finds the customer or a second event of the same one.
    unknown = os.urandom(16)
    return events_pb2.Event(
        message_id=os.urandom(16).hex(),
        type=event.type,
        source=event.source,
        name=event.name,
        category=event.category,
        time_us=event.time_us,
        received_time_us=event.received_time_us,
        properties=_allowed_json(event.properties, properties),
        fragment_id=unknown,
        profile_id=unknown,
    )


def _allowed_json(data: bytes, properties: Collection[str]) -> bytes:
    kept = _allowed(json_object(data), properties)
    return msgspec.json.encode(kept) if kept else b""


def _allowed(value: Any, properties: Collection[str]) -> Any:
    """Keep allowed properties, also those of the objects in an allowed list."""
    if isinstance(value, dict):
        return {name: _allowed(inner, properties) for name, inner in value.items() if name in properties}
    if isinstance(value, list):
        return [_allowed(inner, properties) for inner in value]
    return value


def without_person(payload: bytes, properties: Collection[str]) -> bytes:
    """Return a kept event with nothing of the customer in it; of calls that say who somebody is, name and time stay."""
    event = events_pb2.Event.FromString(payload)
    kept = _anonymous(event, properties)
    if event.type not in _COUNTED:
        kept.ClearField("properties")
    return kept.SerializeToString()
