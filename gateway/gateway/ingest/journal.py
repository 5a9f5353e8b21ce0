# SPDX-License-Identifier: Apache-2.0
"""Group commit: requests that arrive while JetStream is storing share the next messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from chassis.bus import REJECTED, Outgoing
from chassis.errors import DangolError, Unavailable
from dangol.events.v1 import events_pb2 as pb
from gateway.ingest.verdict import Rejected, Taken

MAX_EVENTS = 500
"""Events of one message, as the contract has it."""
MAX_MESSAGE_BYTES = 960 * 1024
"""Below NATS's default limit of 1 MiB, with room for headers."""
MAX_COMMITS = 4
"""Commits under way at once; more of them would only be smaller."""


class Publisher(Protocol):
    """What the journal needs of `chassis.bus.Bus`."""

    async def publish_all(self, messages: Iterable[Outgoing]) -> None:
        """Return when all messages are stored."""
        ...


@dataclass(slots=True)
class _Message:
    """A message that is still filling up."""

    batch: pb.EventBatch | pb.RejectedEventBatch
    events: int = 0
    size: int = 0

    def has_room(self, size: int) -> bool:
        return self.events < MAX_EVENTS and self.size + size <= MAX_MESSAGE_BYTES

    def count(self, size: int) -> None:
        self.events += 1
        self.size += size


@dataclass(slots=True)
class _Commit:
    """Events of one or more requests that become durable together."""

    done: asyncio.Future[None]
    filling: dict[str, _Message] = field(default_factory=dict)
    full: list[tuple[str, _Message]] = field(default_factory=list)
    size: int = 0

    def take(self, subject: str, event: Taken) -> None:
        message = self._room(subject, event.size)
        message.batch.events.add(**event.fields)

    def reject(self, event: Rejected, source: str, received_us: int) -> None:
        message = self._room(REJECTED, len(event.body) + len(event.detail) + 512)
        message.batch.events.add(
            message_id=event.message_id,
            source=source,
            reason=event.reason,
            detail=event.detail,
            position=event.position,
            received_time_us=received_us,
            body=event.body,
        )

    def messages(self) -> list[Outgoing]:
        return [
            Outgoing(
                subject,
                message.batch.SerializeToString(),
                os.urandom(16).hex(),
                type=message.batch.DESCRIPTOR.full_name,
            )
            for subject, message in (*self.full, *self.filling.items())
        ]

    def _room(self, subject: str, size: int) -> _Message:
        message = self.filling.get(subject)
        if message is None or not message.has_room(size):
            if message is not None:
                self.full.append((subject, message))
            message = _Message(pb.RejectedEventBatch() if subject == REJECTED else pb.EventBatch())
            self.filling[subject] = message
        message.count(size)
        self.size += size
        return message


class Journal:
    """Makes events durable; `write` returns when JetStream has stored them."""

    def __init__(self, publisher: Publisher, *, shards: int, max_waiting_bytes: int) -> None:
        self._publisher = publisher
        self._subjects = [f"events.collected.{shard}" for shard in range(shards)]
        self._max_waiting_bytes = max_waiting_bytes
        self._collecting: _Commit | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self.waiting_bytes = 0

    async def write(
        self, taken: Iterable[Taken], rejected: Iterable[Rejected], *, source: str, received_us: int
    ) -> None:
        """Store the events of one request; raises `Unavailable` when that is not certain."""
        if self.waiting_bytes > self._max_waiting_bytes:
            raise Unavailable("too many events wait for JetStream", reason="OVERLOADED", retry_after_seconds=1)
        commit = self._collecting
        if commit is None:
            commit = self._collecting = _Commit(asyncio.get_running_loop().create_future())
        before = commit.size
        for event in taken:
            commit.take(self._subjects[event.shard], event)
        for refused in rejected:
            commit.reject(refused, source, received_us)
        self.waiting_bytes += commit.size - before
        if not self._under_way or (commit.full and len(self._under_way) < MAX_COMMITS):
            self._start()
        # Shielded, because other requests wait for the same commit.
        await asyncio.shield(commit.done)

    def _start(self) -> None:
        task = asyncio.create_task(self._store())
        self._under_way.add(task)

    async def _store(self) -> None:
        # Collecting ends here and not where the task was made, so that requests of the same turn of the loop join.
        commit, self._collecting = self._collecting, None
        try:
            if commit is not None:
                await self._publish(commit)
        finally:
            self._under_way.discard(asyncio.current_task())  # type: ignore[arg-type]
            if self._collecting is not None and not self._under_way:
                self._start()

    async def _publish(self, commit: _Commit) -> None:
        try:
            await self._publisher.publish_all(commit.messages())
        except DangolError as error:
            commit.done.set_exception(error)
            commit.done.exception()  # nobody may be left to hear it
        except BaseException:
            commit.done.set_exception(Unavailable("the events could not be stored"))
            commit.done.exception()
            raise
        else:
            commit.done.set_result(None)
        finally:
            self.waiting_bytes -= commit.size
