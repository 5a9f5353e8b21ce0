# SPDX-License-Identifier: Apache-2.0
"""What happens when an engine goes away under a working service: nothing is lost, nothing needs a hand."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from chassis.bus import Bus
from chassis.database import Database, Transaction
from chassis.engines import NatsEngine, PostgresEngine, free_ports
from chassis.errors import Unavailable
from chassis.service import Service
from chassis.settings import ServiceSettings
from chassis.streams import RESOLVED, Subscription
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch
from dangol.profile.v1 import identity_pb2

from chassis import mapping


class Settings(ServiceSettings):
    service: ClassVar[str] = "faults"


async def on_resolved(tx: Transaction, batches: Sequence[EventBatch]) -> None:
    """Map each event's fragment to itself and say so."""
    events = [event for batch in batches for event in batch.events]
    ids = [UUID(bytes=event.fragment_id) for event in events]
    for change in await mapping.learn(tx, ids, ids, [1] * len(ids)):
        tx.publish(
            identity_pb2.FragmentsRemapped(
                mappings=[identity_pb2.FragmentMapping(fragment_id=change.fragment_id.bytes)]
            )
        )


def build(settings: Settings) -> Service:
    return Service(
        settings=settings,
        bus=Bus(settings, "faults"),
        database=Database(settings),
        migrations=Path("none"),
        subscriptions=[Subscription(EventBatch, on_resolved, subject=RESOLVED)],
    )


@dataclass(frozen=True)
class OwnEngines:
    """Engines that a test may stop."""

    postgres: PostgresEngine
    nats: NatsEngine


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngines]:
    folder = tmp_path_factory.mktemp("faults")
    ports = free_ports(2)
    postgres = PostgresEngine(folder / "postgres", ports[0], throwaway=True)
    nats = NatsEngine(folder / "nats", ports[1])
    with postgres, nats:
        yield OwnEngines(postgres, nats)


@pytest.fixture
async def service(own: OwnEngines) -> AsyncIterator[RunningService]:
    # What was handed out when NATS was killed comes again after five seconds instead of a minute.
    async with running(build, Settings, Engines(own.postgres.url, own.nats.url), ack_wait_seconds=5) as started:
        yield started


async def publish(service: RunningService, count: int) -> list[UUID]:
    """Publish one event a message, as a client that tries until it is stored."""
    ids = [uuid4() for _ in range(count)]
    for number, fragment in enumerate(ids):
        batch = EventBatch(events=[Event(fragment_id=fragment.bytes)])
        while True:
            try:
                await service.bus.publish(
                    f"events.resolved.{number % 2}", batch.SerializeToString(), message_id=str(fragment)
                )
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    return ids


async def handled_and_announced(service: RunningService) -> tuple[set[UUID], list[UUID]]:
    await service.settled()
    async with service.database.snapshot() as tx:
        rows = await tx.rows("SELECT fragment_id FROM fragment_profiles")
    announced = [
        UUID(bytes=change.fragment_id)
        for message in await service.published(identity_pb2.FragmentsRemapped)
        for change in message.mappings
    ]
    return {row.fragment_id for row in rows}, sorted(announced)


async def test_survives_the_loss_of_postgresql(own: OwnEngines, service: RunningService) -> None:
    """Messages wait while PostgreSQL is away; each is handled and announced once."""
    before = await publish(service, 20)
    await asyncio.to_thread(own.postgres.stop)
    during = await publish(service, 20)
    with pytest.raises(Unavailable):
        await service.database.check()
    await asyncio.to_thread(own.postgres.start)
    expected = before + during + await publish(service, 20)
    assert await handled_and_announced(service) == (set(expected), sorted(expected))


async def test_survives_the_loss_of_jetstream(own: OwnEngines, service: RunningService) -> None:
    """Publishing fails clearly while NATS is away, and goes on by itself."""
    before = await publish(service, 20)
    await asyncio.to_thread(own.nats.kill)
    with pytest.raises(Unavailable):
        await service.bus.publish("events.resolved.0", b"", message_id="lost")
    with pytest.raises(Unavailable):
        await service.bus.check()
    waiting = asyncio.create_task(publish(service, 20))
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own.nats.start)
    expected = before + await waiting
    assert await handled_and_announced(service) == (set(expected), sorted(expected))
