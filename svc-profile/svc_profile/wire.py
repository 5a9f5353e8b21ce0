# SPDX-License-Identifier: Apache-2.0
"""Between the contract and the domain."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from chassis.events import counted_name, json_object, moves_money, order_amount
from chassis.identity import format_profile_id
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import profile_pb2 as pb
from google.protobuf.struct_pb2 import Struct

from svc_profile.domain.events import NO_TRAITS, Batch, Event, FragmentKey, Namer, event_key
from svc_profile.domain.fragments import storable, storable_text
from svc_profile.domain.identity import Conflict, Merge, Placement
from svc_profile.domain.profiles import KnownAs, Profile
from svc_profile.domain.rejects import RejectedEvent

MAX_MAPPINGS = 1_000

_IDENTIFY = events_pb2.EVENT_TYPE_IDENTIFY
_TRACK = events_pb2.EVENT_TYPE_TRACK
_ALIAS = events_pb2.EVENT_TYPE_ALIAS
_GROUP = events_pb2.EVENT_TYPE_GROUP

# What a protobuf Timestamp can say: the years 1 to 9999.
_FIRST_US = -62_135_596_800_000_000
_LAST_US = 253_402_300_799_999_999

_MAX_UINT32 = 2**32 - 1


def read_batch(message_id: str, batch: events_pb2.EventBatch, namer: Namer) -> Batch:
    """Read a collected message."""
    batch_id = blake2b(message_id.encode(), digest_size=16).digest()
    return Batch(batch_id, [read_event(event, namer) for event in batch.events])


def read_event(event: events_pb2.Event, namer: Namer) -> Event:
    """Read what an event tells; its properties are opened only when it may move money."""
    kind, source, message_id, time_us = event.type, event.source, event.message_id, event.time_us
    traits = _traits(event.traits) if kind == _IDENTIFY else NO_TRAITS
    previous_id = event.previous_id if kind == _ALIAS else ""
    return Event(
        event_key(source, message_id),
        time_us if _FIRST_US <= time_us <= _LAST_US else min(max(time_us, _FIRST_US), _LAST_US),
        storable_text(counted_name(event)),
        namer.names(event.user_id, event.anonymous_id, previous_id, traits),
        source,
        message_id,
        event.received_time_us,
        traits,
        storable_text(event.group_id) if kind == _GROUP else "",
        _amount(event) if kind == _TRACK and moves_money(event) else None,
    )


def _traits(data: bytes) -> Mapping[str, Any]:
    return storable(json_object(data)) if data else NO_TRAITS


def _amount(event: events_pb2.Event) -> tuple[str, Decimal] | None:
    amount = order_amount(event.name, json_object(event.properties))
    return None if amount is None else (amount.currency, amount.value)


def resolved_batch(
    batch: events_pb2.EventBatch,
    events: Sequence[Event],
    kept: Sequence[int],
    placements: Mapping[FragmentKey, Placement],
) -> events_pb2.EventBatch:
    """Return the kept events of a collected message, each with its fragment, its profile and the revision of both.

    No event leaves the collected message itself, because it may have to be handled again.
    """
    messages = batch.events
    for position in kept:
        message, fragment = messages[position], events[position].names.seen[0].fragment
        placement = placements.get(fragment)
        message.fragment_id = fragment
        message.profile_id, message.mapping_revision = placement or (fragment, 0)
    if len(kept) == len(messages):
        return batch
    return events_pb2.EventBatch(events=[messages[position] for position in kept])


def fragments_remapped(moved: Mapping[FragmentKey, Placement]) -> Iterator[pb.FragmentsRemapped]:
    """Say where fragments belong now, in messages of at most 1,000."""
    items = sorted(moved.items())
    for start in range(0, len(items), MAX_MAPPINGS):
        yield pb.FragmentsRemapped(
            mappings=[
                pb.FragmentMapping(fragment_id=fragment, profile_id=place.profile, revision=place.revision)
                for fragment, place in items[start : start + MAX_MAPPINGS]
            ]
        )


def profiles_merged(merge: Merge) -> pb.ProfilesMerged:
    """Say which profiles became one."""
    return pb.ProfilesMerged(
        profile_id=profile_id(merge.profile),
        absorbed_profile_ids=[profile_id(absorbed) for absorbed in merge.absorbed],
        evidence_time=timestamp_from_us(merge.evidence_us),
    )


def profile_id(profile: FragmentKey) -> str:
    """Write a profile's id for people."""
    return format_profile_id(UUID(bytes=profile))


def profile_to_proto(profile: Profile) -> pb.Profile:
    """Write a customer."""
    message = pb.Profile(
        profile_id=profile_id(profile.profile),
        identifiers=[_identifier(known) for known in profile.known_as],
        first_seen_time=timestamp_from_us(profile.first_seen_us),
        last_seen_time=timestamp_from_us(profile.last_seen_us),
        event_counts={name: min(count, _MAX_UINT32) for name, count in profile.counts.items()},
        revenue={currency: float(value) for currency, value in profile.revenue.items()},
        groups=profile.groups,
    )
    _fill(message.traits, profile.traits)
    return message


def _identifier(known: KnownAs) -> pb.Identifier:
    return pb.Identifier(
        namespace=known.namespace,
        value=known.value,
        first_seen_time=timestamp_from_us(known.first_seen_us),
        last_seen_time=timestamp_from_us(known.last_seen_us),
    )


def _fill(struct: Struct, values: Mapping[str, Any]) -> None:
    struct.Clear()
    struct.update({name: _exact(value) for name, value in values.items()})


def _exact(value: Any) -> Any:
    """Keep the value of a number that a Struct's double cannot hold: as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value) if _fits_double(value) else str(value)
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return value


def _fits_double(value: int) -> bool:
    try:
        return Decimal(repr(float(value))) == value
    except (OverflowError, InvalidOperation):
        return False


def conflict_to_proto(conflict: Conflict) -> pb.IdentityConflict:
    """Write a refused link."""
    return pb.IdentityConflict(
        identifier=_identifier(conflict.identifier),
        profile_id=profile_id(conflict.profile),
        claiming_profile_id=profile_id(conflict.claiming_profile),
        rule=conflict.rule,
        message_id=conflict.message_id,
        claim_time=timestamp_from_us(conflict.claim_time_us),
    )


def read_rejected(batches: Iterable[events_pb2.RejectedEventBatch]) -> list[RejectedEvent]:
    """Read what the gateway did not take."""
    return [
        RejectedEvent(
            message_id=event.message_id,
            source=event.source,
            reason=event.reason,
            detail=event.detail,
            position=event.position,
            received_time_us=min(max(event.received_time_us, _FIRST_US), _LAST_US),
            body=event.body,
        )
        for batch in batches
        for event in batch.events
    ]


def rejected_to_proto(event: RejectedEvent) -> pb.RejectedEvent:
    """Write an event that was not taken; a body that is no text keeps what can be read of it."""
    return pb.RejectedEvent(
        message_id=event.message_id,
        source=event.source,
        reason=event.reason,
        detail=event.detail,
        position=event.position,
        received_time=timestamp_from_us(event.received_time_us),
        body=event.body.decode(errors="replace"),
    )


def position_of_conflict(conflict: Conflict) -> dict[str, Any]:
    """Write where a conflict stands in the list."""
    child, parent = conflict.pair
    return {"time": conflict.claim_time_us, "child": child.hex(), "parent": parent.hex()}


def conflict_position(token: Mapping[str, Any]) -> tuple[int, FragmentKey, FragmentKey] | None:
    """Read what `position_of_conflict` wrote; None is the beginning."""
    match token:
        case {"time": int(time_us), "child": str(child), "parent": str(parent)}:
            return _in_bigint(time_us), _key(child), _key(parent)
    _require_empty(token)
    return None


def position_of_rejected(position: tuple[int, int]) -> dict[str, Any]:
    """Write where a rejected event stands in the list."""
    return {"time": position[0], "id": position[1]}


def rejected_position(token: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read what `position_of_rejected` wrote; None is the beginning."""
    match token:
        case {"time": int(time_us), "id": int(number)}:
            return _in_bigint(time_us), _in_bigint(number)
    _require_empty(token)
    return None


def _require_empty(token: Mapping[str, Any]) -> None:
    if token:
        raise _bad_token()


def _in_bigint(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise _bad_token()
    return value


def _key(text: str) -> FragmentKey:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise _bad_token()
    return key


def _bad_token() -> Invalid:
    return Invalid.field("page_token", "must be the next_page_token of an earlier answer")
