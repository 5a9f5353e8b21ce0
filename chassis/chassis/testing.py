# SPDX-License-Identifier: Apache-2.0
"""Run a real service on real embedded engines inside a test (a pytest plugin)."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from chassis.bus import DEAD, DOMAIN, EVENTS, Bus, Outgoing
from chassis.client import CallerToken, channel
from chassis.database import Database
from chassis.engines import NatsEngine, PostgresEngine, free_ports
from chassis.ids import new_ulid
from chassis.migrations import migrate
from chassis.privacy.tables import IMPERSONAL
from chassis.service import ROLES, Runner, Service
from chassis.settings import ServiceSettings
from chassis.tokens import TokenSigner

S = TypeVar("S", bound=ServiceSettings)
M = TypeVar("M", bound=Message)

IDENTITY_KEY = "00112233445566778899aabbccddeeff"
TOKEN_KEY = "only-for-tests-only-for-tests-only-for-tests"  # noqa: S105

_PATIENCE_S = 60.0
_LOOK_S = 0.01
_QUIET_LOOKS = 2
_numbers = itertools.count()


@dataclass(frozen=True)
class Engines:
    """Where the embedded engines of this test session listen."""

    postgres_url: str
    nats_url: str


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Start PostgreSQL and NATS once for all tests, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="dangol-test-") as folder:
        postgres_port, nats_port = free_ports(2)
        postgres = PostgresEngine(Path(folder) / "postgres", postgres_port, throwaway=True)
        nats = NatsEngine(Path(folder) / "nats", nats_port)
        with postgres, nats:
            yield Engines(postgres.url, nats.url)


class RunningService:
    """A service at work, and what a test does with it."""

    def __init__(self, service: Service, runner: Runner) -> None:
        self.service = service
        self.runner = runner
        self._channels: list[grpc.aio.Channel] = []

    @property
    def database(self) -> Database:
        """The service's own database."""
        return self.service.database

    @property
    def bus(self) -> Bus:
        """The service's own connection to JetStream."""
        return self.service.bus

    @property
    def target(self) -> str:
        """Address of the service's gRPC port."""
        return f"127.0.0.1:{self.runner.rpc.port}"

    def stub(self, stub_class: Callable[[grpc.aio.Channel], Any], scopes: Sequence[str] = ("*",)) -> Any:
        """Return a client of the service whose caller holds `scopes`."""
        signer = TokenSigner(self.service.settings.token_key.get_secret_value())
        opened = channel(self.target, [CallerToken(signer, "test", scopes)])
        self._channels.append(opened)
        return stub_class(opened)

    async def deliver(
        self, *messages: Message, subject: str | None = None, message_ids: Sequence[str] | None = None
    ) -> None:
        """Publish messages and wait until the service has handled them and what followed from them."""
        ids = message_ids or [new_ulid() for _ in messages]
        for message, message_id in zip(messages, ids, strict=True):
            name = message.DESCRIPTOR.full_name
            await self.bus.publish_all([Outgoing(subject or name, message.SerializeToString(), message_id, name)])
        await self.settled()

    async def settled(self) -> None:
        """Wait until every consumer of the service has handled everything and the outbox is empty."""
        # The broker counts a message for its consumers a moment after it has stored it: one look could come too early.
        quiet = 0
        async with asyncio.timeout(_PATIENCE_S):
            while quiet < _QUIET_LOOKS:
                quiet = quiet + 1 if await self._is_settled() else 0
                await asyncio.sleep(_LOOK_S)

    async def published(self, message_type: type[M]) -> list[M]:
        """Return all domain events of a type that were published on this platform so far."""
        return await self.sent(message_type, message_type.DESCRIPTOR.full_name, DOMAIN)

    async def sent(self, message_type: type[M], subject: str, stream: str = EVENTS) -> list[M]:
        """Return all messages on a subject so far."""
        manager = self.bus.jetstream
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, filter_subject=self.bus.subject(subject))
        subscription = await manager.pull_subscribe(
            self.bus.subject(subject), stream=self.bus.stream(stream), config=config
        )
        try:
            pending = (await subscription.consumer_info()).num_pending or 0
            messages: list[M] = []
            while len(messages) < pending:
                fetched = await subscription.fetch(pending - len(messages), timeout=_PATIENCE_S)
                messages += [message_type.FromString(message.data) for message in fetched]
            return messages
        finally:
            await subscription.unsubscribe()

    async def undeclared_tables(self) -> set[str]:
        """Return tables that are there and of which nobody said whether they are personal, and the other way round."""
        async with self.database.snapshot() as tx:
            rows = await tx.rows(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        declared = {name for store in self.service.personal for name in getattr(store, "declared", ())}
        tables = {row.table_name for row in rows}
        return (tables - declared) | (declared - tables - IMPERSONAL)

    async def close(self) -> None:
        """Stop the service and remove its streams."""
        for stream in (EVENTS, DOMAIN, DEAD):
            # Another service on the same streams may have been the first.
            with suppress(NotFoundError):
                await self.bus.jetstream.delete_stream(self.bus.stream(stream))
        await self.stop()

    async def stop(self) -> None:
        """Stop the service; its database and its streams stay for another one."""
        for opened in self._channels:
            await opened.close()
        await self.runner.stop()

    async def _is_settled(self) -> bool:
        manager = self.bus.jetstream
        for subscription in self.service.heard:
            name = f"{self.service.name}-{subscription.short_name}"
            try:
                info = await manager.consumer_info(self.bus.stream(subscription.stream), name)
            except JetStreamError:
                return False
            if info.num_pending or info.num_ack_pending:
                return False
        async with self.database.snapshot() as tx:
            return not await tx.value("SELECT count(*) FROM outbox")


def settings_for(settings_class: type[S], engines: Engines, **overrides: Any) -> S:
    """Return settings for a service on its own database and streams."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "postgres_url": engines.postgres_url,
        "postgres_database": f"test_{settings_class.service}_{number}",
        "nats_url": engines.nats_url,
        "stream_prefix": f"t{number}.",
        "stream_max_bytes": 64 * 2**20,
        "event_shards": 2,
        "identity_key": IDENTITY_KEY,
        "token_key": TOKEN_KEY,
        "local": True,
        "port": 0,
        "prometheus_port": 0,
        "drain_seconds": 5,
        "postgres_pool": 8,
        **overrides,
    }
    return settings_class(**values)


@asynccontextmanager
async def running(
    build: Callable[[S], Service],
    settings_class: type[S],
    engines: Engines,
    roles: Sequence[str] = ROLES,
    **overrides: Any,
) -> AsyncIterator[RunningService]:
    """Build a service with settings of its own, migrate, start it, and stop it at the end."""
    service = build(settings_for(settings_class, engines, **overrides))
    await migrate(service.database, service.migrations)
    runner = Runner(service, roles)
    await runner.start()
    running_service = RunningService(service, runner)
    try:
        yield running_service
    finally:
        await running_service.close()
