# SPDX-License-Identifier: Apache-2.0
"""Domain events as the JSON that webhooks carry, and endpoints as the contract has them."""

import importlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from chassis.clock import from_us, timestamp_from_us, to_us
from chassis.errors import Invalid
from chassis.streams import Delivery as Heard
from dangol.profile.v1 import webhooks_pb2 as pb
from dangol.profile.v1.privacy_pb2 import ExportPart, ProbeRequested
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto
from google.protobuf.message_factory import GetMessageClass

from svc_profile.domain.webhooks import Delivery, Endpoint, Message, State
from svc_profile.wire.values import bad_token, in_bigint, require_empty

_PATTERN = re.compile(r"\*|dangol(\.[a-z0-9_]+)*\.\*|dangol(\.[a-z0-9_]+)+\.[A-Z][A-Za-z0-9]*")
_BETWEEN_SERVICES = {message.DESCRIPTOR.full_name for message in (ExportPart, ProbeRequested)}
"""They say a customer's data or names, to services alone, and are deleted as soon as these have heard."""

_CHANGEABLE = ("url", "event_types", "description", "disabled")


def read_messages(deliveries: Iterable[Heard[any_pb2.Any]]) -> list[Message]:
    """Read what was announced; a type that this version does not know cannot be sent."""
    found = (_read(each) for each in deliveries)
    return [message for message in found if message is not None]


def _read(heard: Heard[any_pb2.Any]) -> Message | None:
    name = heard.message.TypeName()
    known = message_class(name)
    if known is None or name in _BETWEEN_SERVICES:
        return None
    try:
        event = known.FromString(heard.message.value)
    except DecodeError:
        return None
    return message_of(event, heard.message_id, to_us(heard.announced_time))


def message_of(event: Proto, webhook_id: str, time_us: int) -> Message:
    """Write a domain event: type, time and data in the JSON mapping of proto3."""
    name = event.DESCRIPTOR.full_name
    time = from_us(time_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = msgspec.json.encode({"type": name, "timestamp": time, "data": MessageToDict(event)})
    return Message(webhook_id, name, time_us, body)


@cache
def message_class(name: str) -> type[Proto] | None:
    """Return the class of a message of the contract."""
    _import_contract()
    try:
        return GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    except KeyError:
        return None


@cache
def _import_contract() -> None:
    for file in _described():
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")


@cache
def _packages() -> frozenset[str]:
    return frozenset(file.package for file in _described())


def _described() -> list[FileDescriptorProto]:
    described = FileDescriptorSet.FromString((files("dangol") / "descriptors.binpb").read_bytes())
    return [file for file in described.file if file.package.startswith("dangol.")]


def check_event_types(event_types: Iterable[str]) -> None:
    """Raise `Invalid` for a pattern that nothing can match."""
    for pattern in event_types:
        if not _PATTERN.fullmatch(pattern) or not _can_match(pattern):
            rule = f"{pattern!r} must be the full name of a domain event, dangol.<…>.* or *"
            raise Invalid.field("webhook_endpoint.event_types", rule)


def _can_match(pattern: str) -> bool:
    if "*" in pattern:
        return any(f"{package}.".startswith(pattern.removesuffix("*")) for package in _packages())
    return pattern not in _BETWEEN_SERVICES and message_class(pattern) is not None


def changes_from_proto(request: pb.UpdateWebhookEndpointRequest) -> Mapping[str, Any]:
    """Return the fields that an update changes: those of its mask, or every one that is set."""
    endpoint, paths = request.webhook_endpoint, set(request.update_mask.paths)
    if unknown := paths - set(_CHANGEABLE):
        raise Invalid.field("update_mask", f"{min(unknown)} cannot be changed; these can: {', '.join(_CHANGEABLE)}")
    for name in ("url", "event_types"):
        if name in paths and not getattr(endpoint, name):
            raise Invalid.field(f"webhook_endpoint.{name}", "is required")
    values = {name: getattr(endpoint, name) for name in _CHANGEABLE} | {"event_types": tuple(endpoint.event_types)}
    set_fields = {field.name for field, _ in endpoint.ListFields()}
    return {name: value for name, value in values.items() if name in (paths or set_fields)}


def endpoint_to_proto(endpoint: Endpoint, now_us: int) -> pb.WebhookEndpoint:
    """Write an endpoint; never its secret."""
    message = pb.WebhookEndpoint(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        event_types=endpoint.event_types,
        description=endpoint.description,
        disabled=endpoint.disabled,
        disabled_reason=endpoint.disabled_reason,
        create_time=timestamp_from_us(endpoint.create_time_us),
    )
    if endpoint.former_secret_until_us > now_us:
        message.former_secret_expire_time.CopyFrom(timestamp_from_us(endpoint.former_secret_until_us))
    if endpoint.last_success_us is not None:
        message.last_success_time.CopyFrom(timestamp_from_us(endpoint.last_success_us))
    return message


def delivery_to_proto(delivery: Delivery) -> pb.WebhookDelivery:
    """Write what became of a message."""
    message = pb.WebhookDelivery(
        webhook_id=delivery.message.webhook_id,
        event_type=delivery.message.event_type,
        event_time=timestamp_from_us(delivery.message.event_time_us),
        state=pb.WebhookDeliveryState.ValueType(delivery.state),
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
    )
    if delivery.last_attempt_us is not None:
        message.last_attempt_time.CopyFrom(timestamp_from_us(delivery.last_attempt_us))
    if delivery.state is State.PENDING:
        message.next_attempt_time.CopyFrom(timestamp_from_us(delivery.next_attempt_us))
    return message


def delivery_position(token: Mapping[str, Any]) -> tuple[int, str] | None:
    """Read where a page of deliveries begins; None is the beginning."""
    match token:
        case {"time": int(time_us), "id": str(webhook_id)}:
            if "\x00" in webhook_id:
                raise bad_token()
            return in_bigint(time_us), webhook_id
    require_empty(token)
    return None


def position_of_delivery(delivery: Delivery) -> dict[str, Any]:
    """Write where a delivery stands in the list."""
    return {"time": delivery.message.event_time_us, "id": delivery.message.webhook_id}


def pinged(endpoint_id: str) -> pb.WebhookPinged:
    """Return the test message of an endpoint."""
    return pb.WebhookPinged(endpoint_id=endpoint_id)


def endpoint_disabled(endpoint_id: str, reason: str) -> pb.WebhookEndpointDisabled:
    """Announce that nothing is sent to an endpoint any more."""
    return pb.WebhookEndpointDisabled(endpoint_id=endpoint_id, disabled_reason=reason)
