# SPDX-License-Identifier: Apache-2.0
"""Dead letters: messages that a consumer gave up on, kept in a stream of their own, listed and replayed."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from chassis.bus import DEAD, DOMAIN, EVENTS, Bus
from chassis.clock import now
from chassis.errors import NotFound, Unavailable
from chassis.ids import new_ulid

_MAX_ERROR_LENGTH = 500
_SUBJECT_PREFIX = "dead."


@dataclass(frozen=True)
class DeadLetter:
    """A message that a consumer gave up on."""

    dead_letter_id: int
    consumer: str
    subject: str
    message_id: str
    error: str
    deliveries: int
    buried_time: datetime
    payload_bytes: int


async def bury(bus: Bus, consumer: str, message: Msg, error: Exception) -> None:
    """Keep a message, with the reason, where it can be found."""
    headers = message.headers or {}
    metadata = message.metadata
    message_id = headers.get("Dangol-Message-Id") or headers.get("Nats-Msg-Id") or ""
    # The text of an unforeseen error may quote the data; of our own errors it names field and rule.
    reason = f"{type(error).__name__}: {getattr(error, 'message', '')}"[:_MAX_ERROR_LENGTH]
    await bus.publish(
        _SUBJECT_PREFIX + consumer,
        message.data,
        message_id=f"dead:{consumer}:{metadata.stream}:{metadata.sequence.stream}",
        message_type=headers.get("ce-type", ""),
        headers={
            "Dangol-Consumer": consumer,
            "Dangol-Subject": headers.get("Dangol-Subject") or message.subject.removeprefix(bus.prefix),
            "Dangol-Message-Id": message_id,
            "Dangol-Error": reason.replace("\n", " ").encode("ascii", "backslashreplace").decode(),
            "Dangol-Deliveries": str(metadata.num_delivered),
            "Dangol-Buried-Time": now().isoformat(),
        },
    )


async def list_dead_letters(bus: Bus, *, consumer: str, after: int, limit: int) -> Sequence[DeadLetter]:
    """Return up to `limit` dead letters with an id above `after`, oldest first; of one consumer, or of all."""
    return [letter async for letter, _ in read(bus, consumer=consumer, after=after, most=limit)]


async def read(bus: Bus, *, consumer: str, after: int = 0, most: int) -> AsyncIterator[tuple[DeadLetter, bytes]]:
    """Go through up to `most` dead letters with an id above `after`, oldest first, each with its payload."""
    subject = bus.subject(_SUBJECT_PREFIX + (consumer or "*"))
    sequence = after + 1
    for _ in range(most):
        try:
            raw = await bus.jetstream.get_msg(bus.stream(DEAD), seq=sequence, subject=subject, next=True, direct=True)
        except NotFoundError:
            return
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable("JetStream does not answer") from error
        sequence = (raw.seq or sequence) + 1
        yield _letter(raw), raw.data or b""


def _letter(raw: RawStreamMsg) -> DeadLetter:
    headers = raw.headers or {}
    return DeadLetter(
        dead_letter_id=raw.seq or 0,
        consumer=headers.get("Dangol-Consumer", ""),
        subject=headers.get("Dangol-Subject", ""),
        message_id=headers.get("Dangol-Message-Id", ""),
        error=headers.get("Dangol-Error", ""),
        deliveries=int(headers.get("Dangol-Deliveries", "0")),
        buried_time=datetime.fromisoformat(headers["Dangol-Buried-Time"]),
        payload_bytes=len(raw.data or b""),
    )


async def replay(bus: Bus, dead_letter_ids: Sequence[int]) -> int:
    """Hand dead letters to their consumer, and to it alone, once more; raises `NotFound` before replaying any."""
    letters = await _get(bus, dead_letter_ids)
    for dead_letter_id, raw in letters.items():
        headers = raw.headers or {}
        stream = EVENTS if headers["Dangol-Subject"].startswith("events.") else DOMAIN
        await bus.publish(
            f"{stream.lower()}.replay.{headers['Dangol-Consumer']}",
            raw.data or b"",
            message_id=f"replay:{dead_letter_id}:{new_ulid()}",
            message_type=headers.get("ce-type", ""),
            headers={name: headers[name] for name in ("Dangol-Subject", "Dangol-Message-Id")},
        )
        await bus.jetstream.delete_msg(bus.stream(DEAD), dead_letter_id)
    return len(letters)


async def discard(bus: Bus, dead_letter_ids: Sequence[int]) -> int:
    """Delete dead letters; raises `NotFound` before deleting any."""
    letters = await _get(bus, dead_letter_ids)
    for dead_letter_id in letters:
        await bus.jetstream.delete_msg(bus.stream(DEAD), dead_letter_id)
    return len(letters)


async def _get(bus: Bus, dead_letter_ids: Sequence[int]) -> dict[int, RawStreamMsg]:
    letters = {}
    for dead_letter_id in dead_letter_ids:
        # JetStream counts from 1 and cannot be asked for less.
        if dead_letter_id < 1:
            raise NotFound(f"no dead letter {dead_letter_id}")
        try:
            letters[dead_letter_id] = await bus.jetstream.get_msg(bus.stream(DEAD), seq=dead_letter_id)
        except NotFoundError as error:
            raise NotFound(f"no dead letter {dead_letter_id}") from error
    return letters
