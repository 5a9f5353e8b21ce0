# SPDX-License-Identifier: Apache-2.0
"""The tracking plan."""

from collections.abc import Iterable

from chassis.clock import timestamp_from_us
from chassis.events import counted_name
from chassis.streams import Delivery
from dangol.events.v1.events_pb2 import Event, EventBatch
from dangol.profile.v1 import ingest_pb2 as pb

from svc_profile.domain.fragments import storable_text
from svc_profile.domain.planning import Property, TrackedEvent, compare
from svc_profile.domain.tracking import MAX_BYTES, MAX_INSPECTED, OTHERS, TYPES, EventSeen, Tally, inspect
from svc_profile.wire.collecting import RESOLVED_PREFIX, stated
from svc_profile.wire.values import in_years


def tally_of(deliveries: Iterable[Delivery[EventBatch]]) -> Tally:
    """Count the events of resolved messages; those that are only told anew were counted the first time."""
    told: dict[tuple[str, str], list[Event]] = {}
    for delivery in deliveries:
        if delivery.message_id.startswith(RESOLVED_PREFIX):
            for event in delivery.message.events:
                told.setdefault((counted_name(event.type, event.name), event.source), []).append(event)
    tally = Tally()
    for (name, source), events in told.items():
        known = storable_text(name) if len(name.encode()) <= MAX_BYTES else OTHERS
        times = [event.received_time_us for event in events]
        counted = EventSeen(in_years(min(times)), in_years(max(times)), len(times))
        seen = tally.add(known, storable_text(source), counted)
        for event in events[: MAX_INSPECTED - seen.inspected]:
            inspect(seen, stated(event), in_years(event.received_time_us))
    return tally


def tracked_to_proto(event: TrackedEvent, *, with_properties: bool) -> pb.TrackedEvent:
    """Write the events of one name."""
    written = pb.TrackedEvent(
        name=event.name,
        sources=[_source(source, seen) for source, seen in event.by_source.items()],
        schema_version=event.schema.version if event.schema else 0,
        enforcement=pb.SchemaEnforcement.ValueType(event.schema.enforcement if event.schema else 0),
    )
    total = event.total
    if total is not None:
        written.event_count, written.inspected_count = total.count, total.inspected
        written.first_seen_time.CopyFrom(timestamp_from_us(total.first_us))
        written.last_seen_time.CopyFrom(timestamp_from_us(total.last_us))
    if with_properties:
        inspected = total.inspected if total else 0
        found = compare(total.properties if total else {}, event.schema)
        written.properties.extend(_property(each, inspected) for each in found)
    return written


def _source(source: str, seen: EventSeen) -> pb.TrackedSource:
    return pb.TrackedSource(
        source=source,
        event_count=seen.count,
        first_seen_time=timestamp_from_us(seen.first_us),
        last_seen_time=timestamp_from_us(seen.last_us),
    )


def _property(each: Property, inspected: int) -> pb.TrackedProperty:
    written = pb.TrackedProperty(path=each.path, planned=each.is_planned, unplanned_types=each.unplanned_types)
    seen = each.seen
    if seen is None:
        return written
    written.event_count = seen.count
    written.share = seen.count / inspected if inspected else 0
    written.types.extend(
        pb.TrackedType(type=name, event_count=count) for name, count in zip(TYPES, seen.types, strict=True) if count
    )
    written.first_seen_time.CopyFrom(timestamp_from_us(seen.first_us))
    written.last_seen_time.CopyFrom(timestamp_from_us(seen.last_us))
    return written
