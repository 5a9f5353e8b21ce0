# SPDX-License-Identifier: Apache-2.0
"""Between protobuf and what the service works with; batches of events become columns here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from chassis.events import TYPE_NAMES, Amount, counted_name, json_object, moves_money, order_amount
from chassis.identity import FragmentId, ProfileId, format_profile_id
from chassis.pages import decode_token, encode_token
from chassis.streams import Delivery
from dangol.events.v1.events_pb2 import Event, EventBatch
from dangol.metrics.v1 import metrics_pb2 as pb
from dangol.operations.v1.operations_pb2 import TRACE_PHASE_METRICS, TracedRow, TraceEventRequest, TraceStep
from dangol.profile.v1.identity_pb2 import FragmentsRemapped
from dangol.segmentation.v1.segmentation_pb2 import MembershipsChanged, SegmentSaved
from google.protobuf.struct_pb2 import Struct

from svc_metrics import domain

# What DateTime64 can hold: 1900-01-01 to 2299-12-31. A time outside is a broken clock and counts at the edge.
_EARLIEST_US = -2_208_988_800_000_000
_LATEST_US = 10_413_791_999_999_999

_DEEPEST = 30
_EXACT_INTEGER = 2**53


def events_of(deliveries: Sequence[Delivery[EventBatch]]) -> list[Event]:
    """Unpack batches; raises `Invalid` when an event is not as svc-profile resolves them."""
    events = [event for delivery in deliveries for event in delivery.message.events]
    for event in events:
        if len(event.fragment_id) != 16 or event.type not in TYPE_NAMES:
            raise Invalid(f"event {event.message_id} is not resolved: it needs a type and a fragment_id of 16 bytes")
    return events


def insert_token(deliveries: Sequence[Delivery[EventBatch]]) -> str:
    """Name a batch by exactly the messages in it.

    First and last sequence alone are not enough: after a crash the gaps between them may be filled, and after the
    stream was made anew its numbers start again. Either would drop events that were never inserted.
    """
    sequences = [delivery.stream_sequence for delivery in deliveries]
    ids = "\n".join(f"{delivery.stream_sequence} {delivery.message_id}" for delivery in deliveries)
    digest = blake2b(ids.encode(), digest_size=16).hexdigest()
    return f"events-{min(sequences)}-{max(sequences)}-{digest}"


def event_columns(events: Sequence[Event]) -> pa.Table:
    """Turn events into columns, one pass per column."""
    currencies, order_ids, order_keys = [""] * len(events), [""] * len(events), [""] * len(events)
    revenue = np.zeros(len(events), np.int64)
    for index, amount in _amounts(events):
        revenue[index] = int(amount.value.scaleb(4))
        currencies[index] = amount.currency
        order_ids[index] = amount.order_id
        if amount.is_order:
            # An order that the shop gave no id is one of its own.
            order_keys[index] = f"o{amount.order_id}" if amount.order_id else f"e{events[index].message_id}"
    columns = {
        "fragment_id": [event.fragment_id for event in events],
        "event_time": _times(event.time_us for event in events),
        "received_time": _times(event.received_time_us for event in events),
        "source": [event.source for event in events],
        "message_id": [event.message_id for event in events],
        "type": [event.type for event in events],
        "name": [event.name for event in events],
        "counted_name": [counted_name(event.type, event.name) for event in events],
        "revenue": _decimals(revenue),
        "currency": currencies,
        "order_id": order_ids,
        "order_key": order_keys,
        "properties": [event.properties or event.traits for event in events],
        "context": [event.context for event in events],
    }
    return pa.table(columns, schema=domain.EVENT_SCHEMA)


def _amounts(events: Sequence[Event]) -> Iterator[tuple[int, Amount]]:
    for index, event in enumerate(events):
        if moves_money(event.type, event.name):
            amount = order_amount(event.name, json_object(event.properties))
            if amount:
                yield index, amount


def _times(microseconds: Iterable[int]) -> pa.Array:
    clipped = np.clip(np.fromiter(microseconds, np.int64), _EARLIEST_US, _LATEST_US)
    return pa.array(clipped, pa.timestamp("us", "UTC"))


def _decimals(ten_thousandths: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """Widen to the two words per value that Arrow's decimal has; `Decimal` objects would cost far more."""
    words = np.stack([ten_thousandths, ten_thousandths >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(18, 4), len(ten_thousandths), [None, pa.py_buffer(words.tobytes())])


def mappings_of_events(events: Sequence[Event]) -> list[domain.Mapping]:
    """Return where the events' fragments belong, each once.

    A fragment that is its own profile is left out: that is what a fragment is while nobody says otherwise, and a way
    back to it is always announced with `FragmentsRemapped`.
    """
    found = {
        (event.fragment_id, event.profile_id, event.mapping_revision)
        for event in events
        if event.profile_id and event.profile_id != event.fragment_id
    }
    return [_mapping(*each) for each in found]


def mappings_of(messages: Iterable[FragmentsRemapped]) -> list[domain.Mapping]:
    """Unpack announced mappings."""
    return [_mapping(m.fragment_id, m.profile_id, m.revision) for message in messages for m in message.mappings]


def _mapping(fragment_id: bytes, profile_id: bytes, revision: int) -> domain.Mapping:
    return domain.Mapping(
        FragmentId(_uuid("fragment_id", fragment_id)),
        ProfileId(_uuid("profile_id", profile_id)),
        _revision(revision),
    )


def segment_names_of(messages: Iterable[SegmentSaved]) -> list[tuple[str, str, int]]:
    """Unpack what segments are called: id, name, time of saving in microseconds."""
    return [(m.segment_id, m.name, m.saved_time.ToMicroseconds()) for m in messages]


def memberships_of(messages: Iterable[MembershipsChanged]) -> list[domain.Membership]:
    """Unpack announced changes of membership."""
    return [
        domain.Membership(
            segment_id=change.segment_id,
            segment_name=change.segment_name,
            profile_id=ProfileId(_uuid("profile_id", change.profile_id)),
            member=change.member,
            revision=_revision(change.revision),
            change_time_us=change.change_time.ToMicroseconds(),
        )
        for message in messages
        for change in message.changes
    ]


def _uuid(field: str, value: bytes) -> UUID:
    if len(value) != 16:
        raise Invalid.field(field, "must be 16 bytes")
    return UUID(bytes=value)


def _revision(value: int) -> int:
    if value < 0:
        raise Invalid.field("revision", "must not be negative")
    return value


def kpi_response(series: domain.KpiSeries) -> pb.QueryKpisResponse:
    """Encode key figures."""
    return pb.QueryKpisResponse(
        days=[_kpis(day) for day in series.days],
        total=_kpis(series.total),
        currency=series.currency,
        time_zone=series.range.time_zone,
    )


def _kpis(kpis: domain.Kpis) -> pb.Kpis:
    return pb.Kpis(
        date=kpis.date.isoformat(),
        active_customers=kpis.active_customers,
        events=kpis.events,
        orders=kpis.orders,
        revenue=float(kpis.revenue),
        buyers=kpis.buyers,
        conversion=kpis.conversion,
        average_order_value=kpis.average_order_value,
    )


def funnel_response(steps: Iterable[domain.FunnelStep]) -> pb.QueryFunnelResponse:
    """Encode a funnel."""
    return pb.QueryFunnelResponse(
        steps=[
            pb.FunnelStepResult(
                event=step.event,
                customers=step.customers,
                step_conversion=step.step_conversion,
                total_conversion=step.total_conversion,
            )
            for step in steps
        ]
    )


def timeline_response(timeline: domain.Timeline) -> pb.ListProfileEventsResponse:
    """Encode a page of a timeline."""
    return pb.ListProfileEventsResponse(
        profile_id=format_profile_id(timeline.profile_id),
        events=[_timeline_event(event) for event in timeline.events],
        next_page_token=_token(timeline.events[-1].position) if timeline.more else "",
    )


def _timeline_event(event: domain.TimelineEvent) -> pb.ProfileEvent:
    return pb.ProfileEvent(
        message_id=event.message_id,
        type=TYPE_NAMES[event.type],
        name=event.name,
        event_time=timestamp_from_us(event.position.event_time_us),
        received_time=timestamp_from_us(event.received_time_us),
        properties=struct_of(json_object(event.properties)),
    )


def _token(position: domain.Position) -> str:
    return encode_token({"time": position.event_time_us, "event": str(position.event_id)})


def position_of(page_token: str) -> domain.Position | None:
    """Decode a page token; None for the first page, `Invalid` for anything that is no token of ours."""
    found = decode_token(page_token)
    if not found:
        return None
    try:
        position = domain.Position(int(found["time"]), UUID(found["event"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        position = None
    if position is None or not _EARLIEST_US <= position.event_time_us <= _LATEST_US:
        raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
    return position


def struct_of(properties: Mapping[str, Any]) -> Struct:
    """Encode a JSON object; what a protobuf number cannot hold exactly, and very deep nesting, becomes its text."""
    struct = Struct()
    struct.update({_text(key): _value(value, 1) for key, value in properties.items()})
    return struct


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float) and not -_EXACT_INTEGER <= value <= _EXACT_INTEGER:
        return str(value)
    if isinstance(value, dict | list) and depth >= _DEEPEST:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return {_text(key): _value(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_value(each, depth + 1) for each in value]
    return value


def _text(value: str) -> str:
    # Half a surrogate pair is legal in JSON and in no other text.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def event_names_response(names: Iterable[domain.EventName]) -> pb.ListEventNamesResponse:
    """Encode event names."""
    return pb.ListEventNamesResponse(
        event_names=[
            pb.EventName(
                name=name.name,
                count=name.count,
                first_seen_time=timestamp_from_us(name.first_seen_us),
                last_seen_time=timestamp_from_us(name.last_seen_us),
            )
            for name in names
        ]
    )


def traced_places(request: TraceEventRequest) -> list[tuple[FragmentId, int]]:
    """Read where the events that are asked about are kept: fragment, and time of the event."""
    known = [event for event in request.events if len(event.fragment_id) == 16]
    times = (event.event_time.ToMicroseconds() for event in known)
    kept = (min(max(time_us, _EARLIEST_US), _LATEST_US) for time_us in times)
    return [(FragmentId(UUID(bytes=event.fragment_id)), time_us) for event, time_us in zip(known, kept, strict=True)]


def trace_to_proto(row: domain.EventRow) -> TraceStep:
    """Write that an event is counted."""
    return TraceStep(
        source=row.source,
        phase=TRACE_PHASE_METRICS,
        outcome="COUNTED",
        time=timestamp_from_us(row.received_time_us),
        detail="one row of the events that key figures, funnels and timelines are made from",
        row=TracedRow(counted_name=row.counted_name, revenue=row.revenue, currency=row.currency if row.revenue else ""),
    )
