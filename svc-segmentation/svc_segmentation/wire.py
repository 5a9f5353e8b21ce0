# SPDX-License-Identifier: Apache-2.0
"""Between the contract and the domain."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from chassis.clock import to_timestamp
from chassis.errors import Invalid
from chassis.events import (
    ORDER_COMPLETED,
    ORDER_REFUNDED,
    counted_name,
    json_object,
    moves_money,
    order_amount,
)
from chassis.identity import format_profile_id, parse_profile_id
from dangol.events.v1 import events_pb2
from dangol.operations.v1.operations_pb2 import TRACE_PHASE_SEGMENTS, TracedEvent, TracedSegment, TraceStep
from dangol.profile.v1.identity_pb2 import FragmentsRemapped
from dangol.profile.v1.profile_pb2 import SegmentMembership
from dangol.profile.v1.traits_pb2 import TraitsFolded
from dangol.segmentation.v1 import segmentation_pb2 as pb

from chassis import pages
from svc_segmentation.domain.behaviour import Amount, Behaviour, Decided, clamped, event_key, storable, tie_break
from svc_segmentation.domain.segments import Change, Draft, Membership, PastChange, Preview, Previewed, Segment

MAX_CHANGES = 1_000
MAX_PLACED = 100_000

_CHANGEABLE = ("name", "description", "rule")
_IDENTIFY = events_pb2.EVENT_TYPE_IDENTIFY
_ORDERS = (ORDER_COMPLETED, ORDER_REFUNDED)
_MOST = 10**13
_EXACT = Decimal("0.0001")


class EventReader:
    """Reads resolved events; of their properties only what is summed is decoded."""

    def __init__(self, properties: Collection[str]) -> None:
        self._properties = sorted(properties)
        self._nothing = (None,) * len(self._properties)
        fields = [(f"p{number}", Any, None) for number in range(len(self._properties))]
        renamed = {f"p{number}": name for number, name in enumerate(self._properties)}
        self._decode = msgspec.json.Decoder(msgspec.defstruct("Summed", fields, rename=renamed)).decode

    def read(self, batches: Iterable[events_pb2.EventBatch]) -> Behaviour:
        """Return what some batches say, by fragment."""
        behaviour = Behaviour()
        for batch in batches:
            for event in batch.events:
                self._add(event, behaviour)
        return behaviour

    def _add(self, event: events_pb2.Event, behaviour: Behaviour) -> None:
        fragment, profile, properties = event.fragment_id, event.profile_id, event.properties
        name = counted_name(event.type, event.name)
        if len(fragment) != 16 or len(profile) != 16:
            raise Invalid.field("events.fragment_id", "a resolved event has a fragment and a profile of 16 bytes")
        time_us = clamped(event.time_us)
        amounts = self._amounts(event, name, properties, time_us) if properties else ()
        behaviour.happened(fragment, event_key(name), time_us, amounts)
        behaviour.belongs(fragment, event.mapping_revision, profile)
        if name == "identify" and event.type == _IDENTIFY and event.traits:
            traits = storable(json_object(event.traits))
            behaviour.stated(fragment, traits, time_us, tie_break(event.source, event.message_id))

    def _amounts(self, event: events_pb2.Event, name: str, properties: bytes, time_us: int) -> Collection[Amount]:
        try:
            carried = msgspec.structs.astuple(self._decode(properties))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return ()
        if name in _ORDERS and moves_money(event.type, event.name):
            return self._order_amounts(event, properties, time_us, carried)
        if carried == self._nothing:
            return ()
        return self._numbers(time_us, carried)

    def _numbers(self, time_us: int, carried: tuple[Any, ...]) -> list[Amount]:
        return [
            (name, time_us, text)
            for name, value in zip(self._properties, carried, strict=True)
            if value is not None and (text := _number(value))
        ]

    def _order_amounts(
        self, event: events_pb2.Event, properties: bytes, time_us: int, carried: tuple[Any, ...]
    ) -> list[Amount]:
        """Sum what an order or a refund moved as its revenue, in all and by currency."""
        amounts = [amount for amount in self._numbers(time_us, carried) if amount[0] != "revenue"]
        moved = order_amount(event.name, json_object(properties))
        if moved is not None and moved.value:
            # What was refunded is summed under the refund, so it is no less than 0.
            value = str(abs(moved.value))
            amounts += [("revenue", time_us, value), (f"revenue.{moved.currency}", time_us, value)]
        return amounts


def read_decided(messages: Iterable[TraitsFolded]) -> dict[bytes, Decided]:
    """Return what was decided about traits, by fragment; the highest revision of each."""
    decided: dict[bytes, Decided] = {}
    for message in messages:
        for each in message.fragments:
            if len(each.fragment_id) != 16:
                raise Invalid.field("fragments.fragment_id", "is 16 bytes")
            known = decided.get(each.fragment_id)
            if known is None or known.revision < each.revision:
                decided[each.fragment_id] = Decided(each.revision, storable(json_object(each.traits)))
    return decided


def _number(value: Any) -> str:
    """Read a number, also from a text, with at most four decimals; empty when it is none, absurd, or 0."""
    kind = type(value)
    if kind is float or kind is int:
        rounded = round(value, 4)
        return repr(rounded) if rounded and -_MOST < rounded < _MOST else ""
    if kind is not str:
        return ""
    try:
        number = Decimal(value.strip())
        return str(number.quantize(_EXACT)) if number.is_finite() and number and abs(number) < _MOST else ""
    except ArithmeticError:
        return ""


def read_mappings(messages: Iterable[FragmentsRemapped]) -> tuple[list[UUID], list[UUID], list[int]]:
    """Return fragments, their profiles and the revisions of both, as columns."""
    mappings = [mapping for message in messages for mapping in message.mappings]
    if any(len(m.fragment_id) != 16 or len(m.profile_id) != 16 for m in mappings):
        raise Invalid.field("mappings", "a fragment and a profile have 16 bytes")
    return (
        [UUID(bytes=mapping.fragment_id) for mapping in mappings],
        [UUID(bytes=mapping.profile_id) for mapping in mappings],
        [mapping.revision for mapping in mappings],
    )


def read_placements(request: pb.PreviewMembershipsRequest) -> dict[UUID, list[UUID]]:
    """Return the fragments of each profile, none of them in two places."""
    if sum(len(placement.fragment_ids) for placement in request.placements) > MAX_PLACED:
        raise Invalid.field("placements", f"have more than {MAX_PLACED} fragments in all")
    placements: dict[UUID, list[UUID]] = {}
    placed: set[bytes] = set()
    for number, placement in enumerate(request.placements):
        at = f"placements[{number}]"
        profile_id = _placed_profile(placement.profile_id, f"{at}.profile_id")
        for place, fragment in enumerate(placement.fragment_ids):
            if len(fragment) != 16:
                raise Invalid.field(f"{at}.fragment_ids[{place}]", "a fragment has 16 bytes")
            if fragment in placed:
                raise Invalid.field(f"{at}.fragment_ids[{place}]", "the fragment is given twice")
            placed.add(fragment)
        if profile_id.bytes not in placement.fragment_ids:
            raise Invalid.field(f"{at}.profile_id", "must be one of the fragments: the one that names the customer")
        placements[profile_id] = [UUID(bytes=fragment) for fragment in placement.fragment_ids]
    return placements


def _placed_profile(text: str, field: str) -> UUID:
    try:
        return parse_profile_id(text)
    except Invalid as error:
        raise Invalid.field(field, error.violations[0].rule) from error


def previewed_to_proto(profile_id: UUID, segments: Iterable[Previewed]) -> pb.PreviewedProfile:
    """Write which segments a customer would be in."""
    return pb.PreviewedProfile(
        profile_id=format_profile_id(profile_id),
        segments=[
            SegmentMembership(
                segment_id=segment.segment_id,
                name=segment.name,
                entered_time=None if segment.entered_time is None else to_timestamp(segment.entered_time),
                rule_version=segment.rule_version,
            )
            for segment in segments
        ],
    )


def draft(request: pb.UpdateSegmentRequest) -> Draft:
    """Return what an update asks for: the fields of its mask, or every one that is set."""
    segment, paths = request.segment, set(request.update_mask.paths)
    if unknown := paths - set(_CHANGEABLE):
        raise Invalid.field(
            "update_mask", f"{sorted(unknown)[0]} cannot be changed; these can: {', '.join(_CHANGEABLE)}"
        )
    for name in ("name", "rule"):
        if name in paths and not getattr(segment, name):
            raise Invalid.field(f"segment.{name}", "is required")
    wanted = {name: getattr(segment, name) for name in _CHANGEABLE}
    given = {name: value if (name in paths if paths else value) else None for name, value in wanted.items()}
    return Draft(**given)


def name_position(page_token: str) -> str:
    """Return the name that a page of segments begins after."""
    name = pages.decode_token(page_token).get("name", "")
    if not isinstance(name, str):
        raise _bad_token()
    return name


def after_name(segment: Segment) -> str:
    """Return the token of the page after a segment."""
    return pages.encode_token({"name": segment.name})


def profile_position(page_token: str) -> UUID:
    """Return the profile that a page of members begins after."""
    profile_id = pages.decode_token(page_token).get("profile_id", str(UUID(int=0)))
    try:
        return UUID(profile_id)
    except (ValueError, AttributeError, TypeError) as error:
        raise _bad_token() from error


def after_profile(membership: Membership) -> str:
    """Return the token of the page after a member."""
    return pages.encode_token({"profile_id": str(membership.profile_id)})


def _bad_token() -> Invalid:
    return Invalid.field("page_token", "must be the next_page_token of an earlier answer")


def segment_to_proto(segment: Segment) -> pb.Segment:
    """Write a segment."""
    return pb.Segment(
        segment_id=segment.segment_id,
        name=segment.name,
        description=segment.description,
        rule=segment.rule,
        rule_version=segment.rule_version,
        member_count=segment.member_count,
        created_time=to_timestamp(segment.created_time),
        updated_time=to_timestamp(segment.updated_time),
    )


def preview_to_proto(preview: Preview) -> pb.PreviewSegmentResponse:
    """Write what a rule gives."""
    return pb.PreviewSegmentResponse(
        count=preview.count,
        population=preview.population,
        sample_profile_ids=[format_profile_id(profile_id) for profile_id in preview.sample],
    )


def member_to_proto(membership: Membership) -> pb.SegmentMember:
    """Write a customer in a segment."""
    return pb.SegmentMember(
        profile_id=format_profile_id(membership.profile_id), entered_time=to_timestamp(membership.entered_time)
    )


def profile_segments(profile_id: UUID, memberships: Sequence[Membership]) -> pb.ListProfileSegmentsResponse:
    """Write what a customer is in."""
    return pb.ListProfileSegmentsResponse(
        profile_id=format_profile_id(profile_id),
        segments=[
            pb.ProfileSegment(
                segment_id=membership.segment_id,
                name=membership.name,
                entered_time=to_timestamp(membership.entered_time),
            )
            for membership in memberships
        ],
    )


def memberships_changed(changes: Sequence[Change], moment: datetime) -> Iterator[pb.MembershipsChanged]:
    """Announce changes, in messages of at most 1,000."""
    change_time = to_timestamp(moment)
    for start in range(0, len(changes), MAX_CHANGES):
        yield pb.MembershipsChanged(
            changes=[
                pb.MembershipChange(
                    segment_id=change.segment_id,
                    segment_name=change.name,
                    profile_id=change.profile_id.bytes,
                    member=change.member,
                    revision=change.revision,
                    change_time=change_time,
                    rule_version=change.rule_version,
                )
                for change in changes[start : start + MAX_CHANGES]
            ]
        )


def segment_saved(segment: Segment) -> pb.SegmentSaved:
    """Announce that a segment is new or different."""
    return pb.SegmentSaved(
        segment_id=segment.segment_id,
        name=segment.name,
        rule_version=segment.rule_version,
        saved_time=to_timestamp(segment.updated_time),
    )


def segment_deleted(segment: Segment) -> pb.SegmentDeleted:
    """Announce that a segment is gone."""
    return pb.SegmentDeleted(segment_id=segment.segment_id, name=segment.name)


def trace_to_proto(event: TracedEvent, change: PastChange) -> TraceStep:
    """Write that a customer entered or left a segment shortly after an event."""
    return TraceStep(
        source=event.source,
        phase=TRACE_PHASE_SEGMENTS,
        outcome="ENTERED" if change.member else "LEFT",
        time=to_timestamp(change.change_time),
        detail="within a minute after the event was received; another event of that minute may be the cause",
        segment=TracedSegment(segment_id=change.segment_id, name=change.name),
    )
