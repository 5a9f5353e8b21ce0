# SPDX-License-Identifier: Apache-2.0
"""Between protobuf and records on legal hold."""

from collections.abc import Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from chassis.events import TYPE_NAMES, json_object
from dangol.events.v1.events_pb2 import Event
from dangol.profile.v1 import legal_hold_pb2 as pb

from svc_profile.domain.legal_hold import HeldRecord
from svc_profile.wire.values import bad_token, fill_struct


def record_to_proto(record: HeldRecord) -> pb.HeldRecord:
    """Write a record."""
    message = pb.HeldRecord(
        record_id=record.record_id,
        data_request_id=record.data_request_id,
        event=record.event,
        event_time=timestamp_from_us(record.event_time_us),
        law=record.law,
        held_time=timestamp_from_us(record.held_time_us),
        expire_time=timestamp_from_us(record.expire_time_us),
    )
    fill_struct(message.content, _content(Event.FromString(record.payload)))
    return message


def _content(event: Event) -> Mapping[str, Any]:
    content: dict[str, Any] = {
        "messageId": event.message_id,
        "type": TYPE_NAMES.get(event.type, ""),
        "name": event.name,
        "source": event.source,
        "userId": event.user_id,
        "anonymousId": event.anonymous_id,
        "groupId": event.group_id,
        "properties": json_object(event.properties),
        "traits": json_object(event.traits),
        "context": json_object(event.context),
    }
    return {name: value for name, value in content.items() if value}


def held_position(token: Mapping[str, Any]) -> int | None:
    """Read where a page begins; None is the beginning."""
    if not token:
        return None
    before = token.get("before")
    if not isinstance(before, int):
        raise bad_token()
    return before
