# SPDX-License-Identifier: Apache-2.0
"""What is done on a shared device, and what other services hear of it, whenever a login becomes known."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from chassis.bus import Outgoing
from chassis.database import Database
from chassis.migrations import migrate
from chassis.streams import Delivery
from chassis.testing import Engines, settings_for
from dangol.events.v1.events_pb2 import Event as Message
from dangol.events.v1.events_pb2 import EventBatch, EventType
from dangol.profile.v1.identity_pb2 import FORGET_REASON_REBUILT, FragmentsForgotten
from hypothesis import HealthCheck, given, settings
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.settings import Settings

from .test_convergence import NAMER, arrivals


@pytest.fixture(scope="module")
async def database(engines: Engines) -> AsyncIterator[Database]:
    """Nothing runs on it, so that the outbox keeps what is announced."""
    service = build(settings_for(Settings, engines))
    await migrate(service.database, service.migrations)
    yield service.database
    await service.database.close()


async def forget_everything(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("TRUNCATE fragments, links, fragment_profiles, events, derived_fragments, outbox")


@dataclass
class Listener:
    """Another service: it keeps events by fragment, each message once, and forgets fragments when it is told to."""

    seen: set[str] = field(default_factory=set)
    kept: Counter[tuple[bytes, str]] = field(default_factory=Counter)
    forgotten: set[bytes] = field(default_factory=set)

    def hear(self, message_id: str, batch: EventBatch) -> None:
        if message_id not in self.seen:
            self.seen.add(message_id)
            self.kept.update((event.fragment_id, event.message_id) for event in batch.events)

    def holds(self) -> Counter[tuple[bytes, str]]:
        """What it keeps in the end, in whatever order messages and orders to forget came."""
        return Counter({place: count for place, count in self.kept.items() if place[0] not in self.forgotten})


async def collect(database: Database, number: int, batch: list[Message], *, crash: bool) -> list[Outgoing]:
    """Do what the consumer does with one message; a crash happens between commit and publishing."""
    copies = [Message.FromString(message.SerializeToString()) for message in batch]
    delivery = Delivery(EventBatch(events=copies), f"m{number}", "events.collected.0", number, 1)
    async with database.transaction() as tx:
        await Collecting(NAMER).on_collected(tx, [delivery])
    return [] if crash else tx.outgoing()


async def announced(database: Database, listener: Listener) -> None:
    """Hear what the outbox holds."""
    async with database.snapshot() as tx:
        for row in await tx.rows("SELECT message_id, subject, type, payload FROM outbox"):
            if row.subject.startswith("events.resolved."):
                listener.hear(row.message_id, EventBatch.FromString(row.payload))
            if row.type == FragmentsForgotten.DESCRIPTOR.full_name:
                message = FragmentsForgotten.FromString(row.payload)
                assert message.reason == FORGET_REASON_REBUILT
                listener.forgotten.update(message.fragment_ids)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
async def test_what_others_hear_adds_up(
    database: Database, arrival: tuple[list[Message], Sequence[list[Message]]]
) -> None:
    """Whatever is found late, and whenever the process dies, each event is kept once, where it belongs."""
    _, batches = arrival
    await forget_everything(database)
    listener = Listener()
    for number, batch in enumerate(batches):
        published = await collect(database, number, batch, crash=number % 3 == 0)
        for outgoing in published:
            listener.hear(outgoing.message_id, EventBatch.FromString(outgoing.payload))
    # The broker brings again what was not acknowledged, and a little more.
    for number, batch in enumerate(batches):
        for outgoing in await collect(database, number, batch, crash=False):
            listener.hear(outgoing.message_id, EventBatch.FromString(outgoing.payload))
    await announced(database, listener)
    async with database.snapshot() as tx:
        rows = await tx.rows("SELECT fragment_id, payload FROM events WHERE payload IS NOT NULL")
    stored = Counter((row.fragment_id.bytes, Message.FromString(row.payload).message_id) for row in rows)
    assert listener.holds() == stored


async def test_an_erased_place_gets_no_event_again(database: Database) -> None:
    """A fragment that was forgotten is never told of again: the next generation has another id."""
    await forget_everything(database)
    listener = Listener()
    page = Message(type=EventType.EVENT_TYPE_PAGE, source="web", anonymous_id="tablet")
    for number in range(4):
        visits = [Message.FromString(page.SerializeToString()) for _ in range(3)]
        for place, visit in enumerate(visits):
            visit.message_id, visit.time_us = f"p{number}-{place}", (number * 10 + place) * 1_000_000
        for outgoing in await collect(database, number, visits, crash=False):
            listener.hear(outgoing.message_id, EventBatch.FromString(outgoing.payload))
    for number, at in enumerate((5, 25, 15)):
        login = Message(
            type=EventType.EVENT_TYPE_IDENTIFY,
            source="web",
            anonymous_id="tablet",
            user_id=f"u{number}",
            time_us=at * 1_000_000,
        )
        login.message_id = f"l{number}"
        for outgoing in await collect(database, 10 + number, [login], crash=False):
            listener.hear(outgoing.message_id, EventBatch.FromString(outgoing.payload))
    await announced(database, listener)
    of_fragment: dict[bytes, set[str]] = {}
    for fragment, message_id in listener.holds():
        of_fragment.setdefault(fragment, set()).add(message_id)
    pages = sorted(sorted(ids) for ids in of_fragment.values() if any(i.startswith("p") for i in ids))
    assert pages == [
        ["p0-0", "p0-1", "p0-2", "p1-0", "p1-1", "p1-2"],
        ["p2-0", "p2-1", "p2-2"],
        ["p3-0", "p3-1", "p3-2"],
    ]
    assert len(listener.forgotten) == 2
