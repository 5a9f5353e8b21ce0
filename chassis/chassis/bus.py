# SPDX-License-Identifier: Apache-2.0
"""The connection to NATS JetStream: streams, and publishing that is done when it is stored."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
)
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis import telemetry
from chassis.clock import now
from chassis.errors import Unavailable
from chassis.settings import CommonSettings

log = logging.getLogger(__name__)

EVENTS = "EVENTS"
DOMAIN = "DOMAIN"
DEAD = "DEAD"

COLLECTED = "events.collected.*"
RESOLVED = "events.resolved.*"
REJECTED = "events.rejected"

PUBLISH_TIMEOUT_S = 5.0
_DAY_S = 86_400


@dataclass(frozen=True)
class Outgoing:
    """A message that is to be published."""

    subject: str
    payload: bytes
    message_id: str
    type: str = "dangol.events.v1.EventBatch"
    headers: Mapping[str, str] | None = None


class Bus:
    """JetStream as this process sees it. Subjects are given without the platform's prefix."""

    def __init__(self, settings: CommonSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: Client | None = None
        self.prefix = settings.stream_prefix
        self.reconnected = asyncio.Event()

    async def open(self) -> None:
        """Connect, waiting for the server as long as it takes, and make the streams."""
        while True:
            try:
                self._client = await nats.connect(
                    self._settings.nats_url.split(","),
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    reconnected_cb=self._on_reconnected,
                )
                await self.ensure_streams()
                return
            except (OSError, nats.errors.Error, TimeoutError) as error:
                await self.close()
                log.warning("JetStream cannot be reached yet: %s", type(error).__name__)
                await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Send what is buffered and disconnect."""
        if self._client and not self._client.is_closed:
            try:
                await asyncio.wait_for(self._client.drain(), 5)
            except (nats.errors.Error, TimeoutError, OSError):
                await self._client.close()

    @property
    def client(self) -> Client:
        """The connection; raises `Unavailable` before `open`."""
        if self._client is None:
            raise Unavailable("JetStream is not connected")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream half of the connection."""
        return self.client.jetstream(timeout=PUBLISH_TIMEOUT_S)

    @property
    def connected(self) -> bool:
        """True while the connection stands."""
        return self._client is not None and self._client.is_connected

    def stream(self, name: str) -> str:
        """Return the name of a stream on this platform."""
        return f"{self.prefix.upper().replace('.', '_')}{name}"

    def subject(self, name: str) -> str:
        """Return a subject on this platform."""
        return f"{self.prefix}{name}"

    async def publish(
        self,
        subject: str,
        payload: bytes,
        *,
        message_id: str,
        message_type: str = "dangol.events.v1.EventBatch",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish one message; returns when JetStream has stored it, raises `Unavailable` when that is not certain."""
        if not self.connected:
            # nats-py would buffer and answer after its timeout; the caller can retry better than we can wait.
            raise Unavailable("JetStream is not connected", retry_after_seconds=1)
        try:
            await self.jetstream.publish(
                self.subject(subject),
                payload,
                timeout=PUBLISH_TIMEOUT_S,
                headers=self._headers(message_id, message_type, headers),
            )
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise Unavailable("JetStream did not store the message", retry_after_seconds=1) from error

    async def publish_all(self, messages: Iterable[Outgoing]) -> None:
        """Publish many messages at once; returns when all are stored, raises `Unavailable` otherwise."""
        await asyncio.gather(
            *(
                self.publish(m.subject, m.payload, message_id=m.message_id, message_type=m.type, headers=m.headers)
                for m in messages
            )
        )

    async def check(self) -> None:
        """Raise `Unavailable` unless JetStream answers and the events stream takes writes."""
        if not self.connected:
            raise Unavailable("JetStream is not connected")
        try:
            info = await self.jetstream.stream_info(self.stream(EVENTS))
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise Unavailable("JetStream does not answer") from error
        if info.state.bytes >= self._settings.stream_max_bytes:
            raise Unavailable("the events stream is full")

    async def events_fill(self) -> float:
        """Return which share of the events stream is used; raises `Unavailable`."""
        try:
            info = await self.jetstream.stream_info(self.stream(EVENTS))
        except (nats.errors.Error, JetStreamError, TimeoutError, OSError) as error:
            raise Unavailable("JetStream does not answer") from error
        return info.state.bytes / self._settings.stream_max_bytes

    async def ensure_streams(self) -> None:
        """Create or update the three streams."""
        # DiscardPolicy.NEW: a full stream refuses (503 at the gateway) instead of forgetting what nobody read yet.
        await self._ensure(
            EVENTS,
            [COLLECTED, RESOLVED, REJECTED, "events.replay.*"],
            max_age=7 * _DAY_S,
            max_bytes=self._settings.stream_max_bytes,
        )
        await self._ensure(
            DOMAIN,
            ["dangol.>", "domain.replay.*"],
            max_age=14 * _DAY_S,
            max_bytes=self._settings.stream_max_bytes // 4,
        )
        await self._ensure(DEAD, ["dead.*"], max_age=90 * _DAY_S, max_bytes=self._settings.stream_max_bytes // 8)

    async def trim(self) -> None:
        """Forget events that every consumer has handled, once the stream is half full."""
        manager = self.jetstream
        name = self.stream(EVENTS)
        info = await manager.stream_info(name)
        if info.state.bytes < self._settings.stream_max_bytes // 2:
            return
        consumers = await manager.consumers_info(name)
        floors = [c.ack_floor.stream_seq for c in consumers if c.ack_floor is not None]
        if floors and min(floors) > info.state.first_seq:
            await manager.purge_stream(name, seq=min(floors))

    async def _ensure(self, name: str, subjects: list[str], *, max_age: float, max_bytes: int) -> None:
        config = StreamConfig(
            name=self.stream(name),
            subjects=[self.subject(subject) for subject in subjects],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_age=max_age,
            max_bytes=max_bytes,
            num_replicas=self._settings.stream_replicas,
            duplicate_window=120,
            allow_direct=True,
            compression=StoreCompression.NONE,
        )
        try:
            current = await self.jetstream.stream_info(self.stream(name))
        except NotFoundError:
            await self.jetstream.add_stream(config)
            return
        wanted = (config.subjects, config.max_bytes, config.max_age, config.num_replicas)
        found = current.config
        if (found.subjects, found.max_bytes, found.max_age, found.num_replicas) != wanted:
            await self.jetstream.update_stream(config)

    def _headers(self, message_id: str, message_type: str, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers = {
            "Nats-Msg-Id": message_id,
            "ce-specversion": "1.0",
            "ce-id": message_id,
            "ce-type": message_type,
            "ce-source": f"dangol/{self._name}",
            "ce-time": now().isoformat(),
            **(extra or {}),
        }
        telemetry.inject(headers)
        return headers

    async def _on_error(self, error: Exception) -> None:
        log.warning("NATS: %s", type(error).__name__)

    async def _on_reconnected(self) -> None:
        log.info("NATS is connected again")
        self.reconnected.set()
