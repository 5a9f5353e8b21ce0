# SPDX-License-Identifier: Apache-2.0
"""What the streams still hold of a customer: found message by message, and overwritten on the disk."""

from collections.abc import AsyncIterator, Collection, Mapping

import nats.errors
from dangol.events.v1.events_pb2 import EventBatch, RejectedEventBatch
from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis.bus import DEAD, DOMAIN, EVENTS, Bus
from chassis.errors import Unavailable
from chassis.privacy.personal import Traces

_AT_ONCE = 50
_PATIENCE_S = 30.0

_BATCHES: Mapping[str, type[EventBatch | RejectedEventBatch]] = {
    "events.collected": EventBatch,
    "events.resolved": EventBatch,
    "events.rejected": RejectedEventBatch,
}


async def ends(bus: Bus) -> dict[str, int]:
    """Return the number of the last message of the streams that consumers read."""
    return {name: (await _info(bus, name)).state.last_seq for name in (EVENTS, DOMAIN)}


async def all_passed(bus: Bus, services: Collection[str], until: Mapping[str, int]) -> bool:
    """Tell whether every consumer of the services has done with the messages up to some numbers."""
    for name, last in until.items():
        for consumer in await bus.jetstream.consumers_info(bus.stream(name)):
            if consumer.name.partition("-")[0] not in services:
                continue
            is_idle = not consumer.num_pending and not consumer.num_ack_pending
            floor = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
            if not is_idle and floor < last:
                return False
    return True


async def clean(bus: Bus, traces: Traces, until: Mapping[str, int]) -> dict[str, int]:
    """Delete every message that names a customer, securely; returns how many by stream.

    Of events and domain events those up to the given numbers, which nobody needs any more. Dead letters are written
    anew without the customer when they hold events of others too.
    """
    cleaned: dict[str, int] = {}
    for name in (EVENTS, DOMAIN, DEAD):
        last = (await _info(bus, name)).state.last_seq if name == DEAD else until.get(name, 0)
        count = 0
        async for message in _messages(bus, name, last):
            if not traces.found_in(message.data):
                continue
            if name == DEAD:
                await _bury_the_rest(bus, message, traces)
            await delete(bus, name, [message.metadata.sequence.stream])
            count += 1
        cleaned[name] = count
    return cleaned


async def forget_words(bus: Bus, kinds: Collection[type[Message]], words: bytes) -> None:
    """Delete the domain events of some kinds that hold some words."""
    last = (await _info(bus, DOMAIN)).state.last_seq
    for kind in kinds:
        async for message in _messages(bus, DOMAIN, last, kind.DESCRIPTOR.full_name):
            if words in message.data:
                await delete(bus, DOMAIN, [message.metadata.sequence.stream])


async def delete(bus: Bus, name: str, sequences: Collection[int]) -> None:
    """Overwrite messages; those that are gone already are gone."""
    for sequence in sequences:
        try:
            await bus.jetstream.delete_msg(bus.stream(name), sequence)
        except NotFoundError:
            continue
        except JetStreamError as error:
            # The server says 500 "message … not found" when retention was faster.
            if "found" not in str(error):
                raise Unavailable("JetStream did not delete the message") from error


async def _bury_the_rest(bus: Bus, message: Msg, traces: Traces) -> None:
    headers = dict(message.headers or {})
    subject = headers.get("Dangol-Subject", "")
    kind = next((each for prefix, each in _BATCHES.items() if subject.startswith(prefix)), None)
    if kind is None:
        return
    try:
        batch = kind.FromString(message.data)
    except DecodeError:
        return
    rest = [event for event in batch.events if not traces.found_in(event.SerializeToString())]
    if rest:
        await bus.publish(
            message.subject.removeprefix(bus.prefix),
            kind(events=rest).SerializeToString(),  # type: ignore[arg-type]
            message_id=f"cleaned:{message.metadata.sequence.stream}:{len(rest)}",
            message_type=headers.get("ce-type", ""),
            headers={key: value for key, value in headers.items() if key.startswith("Dangol-")},
        )


async def _messages(bus: Bus, name: str, last: int, subject: str = ">") -> AsyncIterator[Msg]:
    """Read a stream from its beginning up to a message, some at a time."""
    subscription = await bus.jetstream.pull_subscribe(
        bus.subject(subject),
        stream=bus.stream(name),
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=60
        ),
    )
    consumer = await subscription.consumer_info()
    try:
        if not consumer.num_pending:
            return
        while True:
            try:
                fetched = await subscription.fetch(_AT_ONCE, timeout=_PATIENCE_S)
            except nats.errors.TimeoutError as error:
                raise Unavailable(f"JetStream does not send the stream {name}") from error
            for message in fetched:
                if message.metadata.sequence.stream <= last:
                    yield message
            if fetched[-1].metadata.sequence.stream >= last or not fetched[-1].metadata.num_pending:
                return
    finally:
        await subscription.unsubscribe()
        # It would stay for a minute, with all the messages that it was not asked for.
        await bus.jetstream.delete_consumer(bus.stream(name), consumer.name)


async def _info(bus: Bus, name: str) -> StreamInfo:
    return await bus.jetstream.stream_info(bus.stream(name))
