# SPDX-License-Identifier: Apache-2.0
"""What a service hears, as data: a message type, a subject, and the function that handles a micro-batch."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from google.protobuf import any_pb2
from google.protobuf.message import Message

from chassis.bus import COLLECTED, DOMAIN, EVENTS, REJECTED, RESOLVED
from chassis.clock import EPOCH
from chassis.database import Transaction

__all__ = ["COLLECTED", "REJECTED", "RESOLVED", "Delivery", "DomainSubscription", "StreamSubscription", "Subscription"]

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Delivery(Generic[M]):
    """One message as it was delivered, with where it came from."""

    message: M
    message_id: str
    """Id that the publisher gave it; the same at every delivery."""
    subject: str
    stream_sequence: int
    delivered_count: int
    """1 at the first delivery."""
    announced_time: datetime = EPOCH
    """When it was announced, as far as its publisher says."""

    @property
    def redelivered(self) -> bool:
        """True when it was delivered before."""
        return self.delivered_count > 1


@dataclass(frozen=True)
class Subscription:
    """A message type and its handler; each micro-batch is one PostgreSQL transaction.

    With `inbox` the handler gets the messages that this consumer has not handled before:
    `handler(tx, messages)`. Without, it gets every delivery and is itself the judge of repetition:
    `handler(tx, deliveries)`.
    """

    message: type[Message]
    handler: Callable[[Transaction, Sequence[Any]], Awaitable[None]]
    subject: str | None = None
    """Subject to hear; the message's full name when None."""
    batch_messages: int = 16
    """Most messages in one transaction."""
    at_once: int = 1
    """Transactions of one process at the same time: Python works on one while PostgreSQL has another. Each hears shards
    of its own, so that none waits for rows of a customer that another has locked."""
    inbox: bool = True
    name: str | None = None
    """Short name of the consumer; made from the message's name when None."""
    rest_s: float = 0.0
    """Seconds to rest after a micro-batch that was not full, so that what comes is handled in fewer transactions."""
    whole: bool = False
    """With `inbox`: True when the handler gets deliveries, with message id and subject, rather than messages."""

    @property
    def heard_subject(self) -> str:
        """The subject that is heard."""
        return self.subject or self.message.DESCRIPTOR.full_name

    @property
    def stream(self) -> str:
        """The stream that carries the subject."""
        return EVENTS if self.heard_subject.startswith("events.") else DOMAIN

    @property
    def short_name(self) -> str:
        """Name of the consumer inside its service, such as `events-resolved`."""
        if self.name:
            return self.name
        if self.subject:
            return self.subject.removesuffix(".*").replace(".", "-")
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.message.DESCRIPTOR.name).lower()

    def read(self, message_type: str, data: bytes) -> Message:
        """Decode a message; raises DecodeError."""
        return self.message.FromString(data)


@dataclass(frozen=True)
class StreamSubscription(Subscription):
    """The same for a store that is not PostgreSQL: no transaction, no inbox, `handler(deliveries)`.

    The handler must make repetition harmless itself.
    """

    handler: Callable[[Sequence[Any]], Awaitable[None]]  # type: ignore[assignment]
    inbox: bool = False


@dataclass(frozen=True)
class DomainSubscription(Subscription):
    """Every domain event, whatever its type: deliveries hold `google.protobuf.Any`, for the handler to open.

    The handler must make repetition harmless itself.
    """

    message: type[Message] = any_pb2.Any
    handler: Callable[[Transaction, Sequence[Any]], Awaitable[None]] = field(kw_only=True)
    subject: str | None = "dangol.>"
    inbox: bool = False
    name: str | None = "domain-events"

    def read(self, message_type: str, data: bytes) -> Message:
        """Wrap a message as it is."""
        return any_pb2.Any(type_url=f"type.googleapis.com/{message_type}", value=data)
