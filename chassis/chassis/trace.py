# SPDX-License-Identifier: Apache-2.0
"""The truth call: what became of one event. Each service answers for its part, the gateway puts the parts together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from dangol.events.v1.events_pb2 import EventBatch, RejectedEventBatch
from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import TraceServiceServicer
from google.protobuf.message import DecodeError, Message
from grpc.aio import ServicerContext

from chassis import dead_letters
from chassis.bus import Bus
from chassis.clock import to_timestamp
from chassis.dead_letters import DeadLetter
from chassis.errors import NotFound
from chassis.streams import Subscription

Trace = Callable[[pb.TraceEventRequest], Awaitable[pb.TraceEventResponse]]
"""What a service knows of an event. The chassis adds who says so, and the dead letters of the service's consumers."""

MOST_DEAD_LETTERS = 1000
"""How many dead letters of one consumer are searched, oldest first."""

_BATCHES = (EventBatch, RejectedEventBatch)


class TraceRpc(TraceServiceServicer):
    """Tells what one service knows of an event."""

    def __init__(self, service: str, bus: Bus, heard: Sequence[Subscription], trace: Trace | None) -> None:
        self._service = service
        self._bus = bus
        self._consumers = {f"{service}-{each.short_name}": each for each in heard if each.message in _BATCHES}
        self._trace = trace

    async def TraceEvent(self, request: pb.TraceEventRequest, context: ServicerContext) -> pb.TraceEventResponse:
        """Answer with every step, and NOT_FOUND when there is none."""
        answer = await self._trace(request) if self._trace else pb.TraceEventResponse()
        for step in answer.steps:
            step.service = self._service
        for consumer, subscription in self._consumers.items():
            answer.steps.extend([step async for step in self._buried(request, consumer, subscription)])
        if not answer.steps and not answer.events:
            raise NotFound("nothing is known of this event")
        return answer

    async def _buried(
        self, request: pb.TraceEventRequest, consumer: str, heard: Subscription
    ) -> AsyncIterator[pb.TraceStep]:
        async for letter, payload in dead_letters.read(self._bus, consumer=consumer, most=MOST_DEAD_LETTERS):
            for source in _sources(request, heard.message, payload):
                yield pb.TraceStep(
                    service=self._service,
                    source=source,
                    phase=pb.TRACE_PHASE_DELIVERY,
                    outcome="DEAD_LETTERED",
                    time=to_timestamp(letter.buried_time),
                    detail=f"{consumer} gave up on the message that holds the event; it can be replayed",
                    dead_letter=letter_to_proto(letter),
                )


def _sources(request: pb.TraceEventRequest, message_type: type[Message], payload: bytes) -> list[str]:
    """Return the sources of the wanted events inside a message."""
    try:
        batch: Any = message_type.FromString(payload)
    except DecodeError:
        return []
    found = {event.source for event in batch.events if event.message_id == request.message_id}
    return sorted(source for source in found if request.source in ("", source))


def letter_to_proto(letter: DeadLetter) -> pb.DeadLetter:
    """Write a dead letter."""
    return pb.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        consumer=letter.consumer,
        subject=letter.subject,
        message_id=letter.message_id,
        error=letter.error,
        deliveries=letter.deliveries,
        buried_time=to_timestamp(letter.buried_time),
        payload_bytes=letter.payload_bytes,
    )
