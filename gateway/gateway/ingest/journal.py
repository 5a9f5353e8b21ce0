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

from gateway.ingest.rejection import Rejected
from gateway.ingest.verdict import Taken

MAX_EVENTS = 500
"""Events of one message, as the contract has it."""
MAX_MESSAGE_BYTES = 960 * 1024
"""Below NATS's default limit of 1 MiB, with room for headers."""
MAX_COMMITS = 4
"""Commits under way at once; more of them would only be smaller."""

MAX_WAIT_S = 0.005
"""How long a commit waits for requests that keep arriving."""

_TURNS = 3
_TYPES = {REJECTED: pb.RejectedEventBatch.DESCRIPTOR.full_name}
_COLLECTED_TYPE = pb.EventBatch.DESCRIPTOR.full_name


class Publisher(Protocol):
    """What the journal needs of `chassis.bus.Bus`."""

    async def publish_all(self, messages: Iterable[Outgoing]) -> None:
        """Return when all messages are stored."""
        ...


@dataclass(slots=True)
class _Message:
    """A message that is still filling up: serialised batches of one event, which in a row are one batch."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _Commit:
    """Events of one or more requests that become durable together."""

    done: asyncio.Future[None]
    filling: dict[str, _Message] = field(default_factory=dict)
    full: list[tuple[str, _Message]] = field(default_factory=list)
    size: int = 0
    requests: int = 0

    def add(self, subject: str, payload: bytes) -> None:
        """Put one event into the message of its subject."""
        size = len(payload)
        self.size += size
        message = self.filling.get(subject)
        if message is None:
            message = self.filling[subject] = _Message()
        elif len(message.parts) >= MAX_EVENTS or message.size + size > MAX_MESSAGE_BYTES:
            self.full.append((subject, message))
            message = self.filling[subject] = _Message()
        message.parts.append(payload)
        message.size += size

    def messages(self) -> list[Outgoing]:
        """Return what is to be published."""
        return [
            Outgoing(
                subject,
                b"".join(message.parts),
                os.urandom(16).hex(),
                type=_TYPES.get(subject, _COLLECTED_TYPE),
            )
            for subject, message in (*self.full, *self.filling.items())
        ]


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
        commit.requests += 1
        subjects = self._subjects
        for shard, payload in taken:
            commit.add(subjects[shard], payload)
        for event in rejected:
            commit.add(REJECTED, _rejected_payload(event, source, received_us))
        self.waiting_bytes += commit.size - before
        if not self._under_way or (commit.full and len(self._under_way) < MAX_COMMITS):
            self._start()
        # Shielded, because other requests wait for the same commit.
        await asyncio.shield(commit.done)

    def _start(self) -> None:
        self._under_way.add(asyncio.create_task(self._store()))

    async def _store(self) -> None:
        try:
            await self._wait_for_company()
            commit, self._collecting = self._collecting, None
            if commit is not None:
                await self._publish(commit)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._under_way.discard(task)
            if self._collecting is not None and not self._under_way:
                self._start()

    async def _wait_for_company(self) -> None:
        """Let requests join whose bytes have arrived already: as long as some do, the loop is busy, not idle.

        A request needs a few turns of the loop from its bytes to its events. Without company they cost nothing.
        """
        commit = self._collecting
        end = asyncio.get_running_loop().time() + MAX_WAIT_S
        joined = 0
        while commit is not None and joined < commit.requests and not commit.full:
            joined = commit.requests
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > end:
                return

    async def _publish(self, commit: _Commit) -> None:
        try:
            await self._publisher.publish_all(commit.messages())
        except DangolError as error:
            _fail(commit, error)
        except BaseException:
            _fail(commit, Unavailable("the events could not be stored"))
            raise
        else:
            commit.done.set_result(None)
        finally:
            self.waiting_bytes -= commit.size


def _fail(commit: _Commit, error: DangolError) -> None:
    commit.done.set_exception(error)
    # Looked at here, because the requests that would hear of it may be gone.
    commit.done.exception()


def _rejected_payload(event: Rejected, source: str, received_us: int) -> bytes:
    kept = pb.RejectedEvent(
        message_id=event.message_id,
        source=source,
        reason=event.reason,
        detail=event.detail,
        position=event.position,
        received_time_us=received_us,
        body=event.body,
    )
    return pb.RejectedEventBatch(events=[kept]).SerializeToString()
