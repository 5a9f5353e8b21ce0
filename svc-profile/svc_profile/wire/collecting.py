# SPDX-License-Identifier: Apache-2.0
"""Collected and resolved events."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from chassis.events import counted_name, json_object, moves_money, order_amount
from dangol.events.v1 import events_pb2
from msgspec.structs import replace

from svc_profile.domain.events import NO_CONSENT, NO_NAMES, NO_TRAITS, Batch, Event, FragmentKey, Namer, event_key
from svc_profile.domain.fragments import storable, storable_text
from svc_profile.domain.identity import Placement
from svc_profile.domain.schemas import NO_JUDGES, Judge, Judges
from svc_profile.domain.statements import DECISIONS
from svc_profile.wire.values import FIRST_US, LAST_US

MAX_EVENTS = 500
"""Most events of one message."""

_IDENTIFY = events_pb2.EVENT_TYPE_IDENTIFY
_ALIAS = events_pb2.EVENT_TYPE_ALIAS
_GROUP = events_pb2.EVENT_TYPE_GROUP

RESOLVED_PREFIX = "resolved:"
"""What the id of a message of resolved events begins with when it tells a collected message for the first time."""

_CONSENT = b'"consent"'
"""Only a context that holds this is opened."""
_MOST_CATEGORIES = 100


def read_batch(message_id: str, batch: events_pb2.EventBatch, namer: Namer, judges: Judges = NO_JUDGES) -> Batch:
    """Read a collected message, and judge the events whose names have a schema."""
    batch_id = blake2b(message_id.encode(), digest_size=16).digest()
    events = [read_event(event, namer) for event in batch.events]
    if judges:
        events = [
            _judged(event, message, judges[event.counted_name]) if event.counted_name in judges else event
            for event, message in zip(events, batch.events, strict=True)
        ]
    return Batch(batch_id, events)


def _judged(event: Event, message: events_pb2.Event, judge: Judge) -> Event:
    """Note what a schema says against an event; one that it rejects is nobody's."""
    breach = judge.breach(stated(message))
    if breach is None:
        return event
    return replace(event, breach=breach, names=NO_NAMES if breach.rejects else event.names)


def stated(message: events_pb2.Event) -> dict[str, Any]:
    """Return what a schema is about: the traits of `identify` and `group`, the properties of all other events."""
    return json_object(message.traits if message.type in (_IDENTIFY, _GROUP) else message.properties)


def read_event(event: events_pb2.Event, namer: Namer) -> Event:
    """Read what an event tells; its properties are opened only when it may move money."""
    # Each reading of a text makes it anew, so each is read once.
    kind, name, source, message_id = event.type, event.name, event.source, event.message_id
    time_us = event.time_us
    traits = _traits(event.traits) if kind == _IDENTIFY else NO_TRAITS
    previous_id = event.previous_id if kind == _ALIAS else ""
    return Event(
        event_key(source, message_id),
        time_us if FIRST_US <= time_us <= LAST_US else min(max(time_us, FIRST_US), LAST_US),
        storable_text(counted_name(kind, name)),
        namer.names(event.user_id, event.anonymous_id, previous_id, traits),
        source,
        message_id,
        event.received_time_us,
        traits,
        storable_text(event.group_id) if kind == _GROUP else "",
        _amount(event) if moves_money(kind, name) else None,
        _consent(event) if name in DECISIONS or _CONSENT in event.context else NO_CONSENT,
        event.SerializeToString(),
        group_traits=_traits(event.traits) if kind == _GROUP else NO_TRAITS,
    )


def _consent(event: events_pb2.Event) -> Mapping[str, bool]:
    """Read Segment's `context.consent.categoryPreferences`; what tells of a decision may say it in its properties."""
    stated: list[Any] = [json_object(event.context).get("consent")]
    if event.name in DECISIONS:
        properties = json_object(event.properties)
        stated += [properties.get("consent"), properties]
    for each in stated:
        preferences = each.get("categoryPreferences") if isinstance(each, dict) else None
        if isinstance(preferences, dict):
            answers = {storable_text(name): value for name, value in preferences.items() if isinstance(value, bool)}
            return dict(sorted(answers.items())[:_MOST_CATEGORIES])
    return NO_CONSENT


def _traits(data: bytes) -> Mapping[str, Any]:
    return storable(json_object(data)) if data else NO_TRAITS


def _amount(event: events_pb2.Event) -> tuple[str, Decimal] | None:
    amount = order_amount(event.name, json_object(event.properties))
    return None if amount is None else (amount.currency, amount.value)


def resolved_batch(
    batch: events_pb2.EventBatch,
    events: Sequence[Event],
    kept: Sequence[int],
    owners: Mapping[bytes, FragmentKey],
    placements: Mapping[FragmentKey, Placement],
) -> events_pb2.EventBatch:
    """Return the kept events of a collected message, each with its fragment, its profile and the revision of both.

    `owners` names the fragment of an event where that is not the one of its strongest name, by event key.
    No event leaves the collected message itself, because it may have to be handled again.
    """
    messages = batch.events
    for position in kept:
        message, event = messages[position], events[position]
        fragment = owners.get(event.key) or event.names.seen[0].fragment
        placement = placements.get(fragment)
        message.fragment_id = fragment
        message.profile_id, message.mapping_revision = placement or (fragment, 0)
    if len(kept) == len(messages):
        return batch
    return events_pb2.EventBatch(events=[messages[position] for position in kept])


def replayed_batches(
    events: Sequence[Event], placements: Mapping[FragmentKey, Placement]
) -> Iterator[events_pb2.EventBatch]:
    """Say events again under the fragments that they belong to now, in messages of at most 500."""
    for start in range(0, len(events), MAX_EVENTS):
        batch = events_pb2.EventBatch()
        for event in events[start : start + MAX_EVENTS]:
            message = batch.events.add()
            message.MergeFromString(event.payload)
            message.fragment_id = event.owner.fragment
            placement = placements.get(event.owner.fragment)
            message.profile_id, message.mapping_revision = placement or (event.owner.fragment, 0)
        yield batch
