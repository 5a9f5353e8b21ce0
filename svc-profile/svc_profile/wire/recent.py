# SPDX-License-Identifier: Apache-2.0
"""Events as they were collected, for people to look at."""

from chassis.clock import timestamp_from_us
from chassis.events import json_object
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import profile_pb2 as pb

from svc_profile.domain.fragments import storable
from svc_profile.domain.views import RecentEvent
from svc_profile.wire.values import fill_struct, in_years


def read_recent(name: str, event: events_pb2.Event) -> RecentEvent:
    """Read a stored event; `name` is the one that it is counted under."""
    return RecentEvent(
        message_id=event.message_id,
        name=name,
        time_us=in_years(event.time_us),
        received_time_us=in_years(event.received_time_us),
        source=event.source,
        properties=storable(json_object(event.properties)),
        traits=storable(json_object(event.traits)),
    )


def recent_to_proto(event: RecentEvent) -> pb.RecentEvent:
    """Write an event."""
    message = pb.RecentEvent(
        message_id=event.message_id,
        name=event.name,
        event_time=timestamp_from_us(event.time_us),
        received_time=timestamp_from_us(event.received_time_us),
        source=event.source,
    )
    if event.properties:
        fill_struct(message.properties, event.properties)
    if event.traits:
        fill_struct(message.traits, event.traits)
    return message
