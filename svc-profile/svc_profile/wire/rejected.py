# SPDX-License-Identifier: Apache-2.0
"""Events that were not taken."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from chassis.clock import from_timestamp, timestamp_from_us, to_us
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import ingest_pb2 as pb

from svc_profile.domain.rejects import RejectedEvent
from svc_profile.wire.values import FIRST_US, LAST_US, in_bigint, require_empty


def read_rejected(batches: Iterable[events_pb2.RejectedEventBatch]) -> list[RejectedEvent]:
    """Read what the gateway did not take."""
    return [
        RejectedEvent(
            message_id=event.message_id,
            source=event.source,
            reason=event.reason,
            detail=event.detail,
            position=event.position,
            received_time_us=min(max(event.received_time_us, FIRST_US), LAST_US),
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
        trace=trace_path(event.message_id, event.source) if event.message_id else "",
    )


def trace_path(message_id: str, source: str) -> str:
    """Write the path of the call that tells all that is known of an event."""
    return f"/v1/events/{quote(message_id, safe='')}:trace?{urlencode({'source': source})}"


def span_of(request: pb.ListRejectedEventsRequest) -> tuple[int | None, int | None]:
    """Read the span of time that is asked for, in microseconds."""
    start, end = (
        to_us(from_timestamp(getattr(request, field))) if request.HasField(field) else None
        for field in ("start_time", "end_time")
    )
    return start, end


def position_of_rejected(position: tuple[int, int]) -> dict[str, Any]:
    """Write where a rejected event stands in the list."""
    return {"time": position[0], "id": position[1]}


def rejected_position(token: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read what `position_of_rejected` wrote; None is the beginning."""
    match token:
        case {"time": int(time_us), "id": int(number)}:
            return in_bigint(time_us), in_bigint(number)
    require_empty(token)
    return None
