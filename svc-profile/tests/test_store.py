# SPDX-License-Identifier: Apache-2.0
"""Tables and queries on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from chassis.database import Database
from chassis.migrations import migrate
from chassis.testing import Engines, settings_for
from svc_profile.app import build
from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.fragments import MAX_COUNTED_NAMES, Fragment, Trait
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.jobs import Forgetting
from svc_profile.settings import Settings
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.links import LinkStore
from svc_profile.store.rejected import Filter, RejectedStore
from svc_profile.store.seen import SeenStore

from chassis import clock


@pytest.fixture(scope="module")
async def settings(engines: Engines) -> Settings:
    return settings_for(Settings, engines)


@pytest.fixture(scope="module")
async def database(settings: Settings) -> AsyncIterator[Database]:
    service = build(settings)
    await migrate(service.database, service.migrations)
    yield service.database
    await service.database.close()


def fragment(key: FragmentKey, **fields: object) -> Fragment:
    return Fragment(Name(key, "user_id", key.hex()), 5, 5, **fields)  # type: ignore[arg-type]


async def fold(database: Database, *fragments: Fragment) -> None:
    async with database.transaction() as tx:
        await FragmentStore(tx).fold({each.name.fragment: each for each in fragments})


async def read(database: Database, key: FragmentKey) -> Fragment:
    async with database.snapshot() as tx:
        found = await FragmentStore(tx).profile(key)
    assert found is not None
    return found[1][0]


async def test_a_fold_adds_to_what_is_known(database: Database) -> None:
    key = uuid4().bytes
    await fold(database, fragment(key, counts={"a": 1}, traits={"x": Trait(1, 5, "k")}, groups={"g1"}))
    later = Fragment(Name(key, "user_id", key.hex()), 3, 9, 3, 9, {"a": 2, "b": 1}, {"x": Trait(2, 4, "k")})
    await fold(database, later)
    known = await read(database, key)
    assert (known.first_seen_us, known.last_seen_us, known.first_event_us, known.last_event_us) == (3, 9, 3, 9)
    assert known.counts == {"a": 3, "b": 1}
    assert known.traits == {"x": Trait(1, 5, "k")}
    assert known.groups == {"g1"}


async def test_replicas_that_make_the_same_fragment_both_count(database: Database) -> None:
    """The slower one finds the fragment made in the meantime, and adds to it."""
    known, new = sorted(uuid4().bytes for _ in range(2))
    await fold(database, fragment(known, counts={"a": 1}))
    made, waiting = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.transaction() as tx:
            await FragmentStore(tx).fold({new: fragment(new, counts={"a": 1})})
            made.set()
            await waiting.wait()

    async def second() -> None:
        await made.wait()
        folding = asyncio.create_task(fold(database, fragment(known, counts={"a": 1}), fragment(new, counts={"a": 1})))
        async with database.snapshot() as tx:
            while not await tx.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"):
                await asyncio.sleep(0.01)
        waiting.set()
        await folding

    await asyncio.gather(first(), second())
    assert [(await read(database, key)).counts for key in (known, new)] == [{"a": 2}, {"a": 2}]


async def test_a_flood_of_event_names_does_not_grow_a_row_without_end(database: Database) -> None:
    key = uuid4().bytes
    names = [f"n{number:05d}" for number in range(MAX_COUNTED_NAMES + 100)]
    for part in (names[50:], names[:50]):
        await fold(database, fragment(key, counts=dict.fromkeys(part, 1)))
    assert (await read(database, key)).counts == dict.fromkeys(names[:MAX_COUNTED_NAMES], 1)


async def test_nobody_has_no_profile(database: Database) -> None:
    async with database.snapshot() as tx:
        assert await FragmentStore(tx).profile(uuid4().bytes) is None


async def test_an_event_is_remembered_with_the_message_that_brought_it(database: Database) -> None:
    key, other, batch = (uuid4().bytes for _ in range(3))
    async with database.transaction() as tx:
        assert await SeenStore(tx).remember({key: batch}) == {}
    async with database.transaction() as tx:
        assert await SeenStore(tx).remember({key: uuid4().bytes, other: batch}) == {key: batch}


async def test_placements_get_ever_higher_revisions(database: Database) -> None:
    one, other = uuid4().bytes, uuid4().bytes
    async with database.transaction() as tx:
        links = LinkStore(tx)
        await links.lock()
        first = await links.place({one: other, other: other})
        second = await links.place({one: one})
        assert first[one].revision == first[other].revision < second[one].revision
        assert await links.placements([one, uuid4().bytes]) == second


async def test_retention_forgets_what_is_past_its_time(database: Database, settings: Settings) -> None:
    old, young = uuid4().bytes, uuid4().bytes
    long_ago = clock.to_us(clock.now() - timedelta(days=settings.rejected_days + 1))
    async with database.transaction() as tx:
        await SeenStore(tx).remember({old: old})
        await tx.execute("UPDATE seen_messages SET seen_day = current_date - 9 WHERE event_key = :key", key=old.hex())
        await SeenStore(tx).remember({young: young})
        rejected = [RejectedEvent("m", "retention", "R", "", 0, us, b"") for us in (long_ago, clock.to_us(clock.now()))]
        await RejectedStore(tx).put(rejected)
    forgetting = Forgetting(database, settings)
    await forgetting.forget_seen()
    await forgetting.forget_rejected()
    async with database.transaction() as tx:
        assert await SeenStore(tx).remember({old: young, young: old}) == {young: young}
        left = await RejectedStore(tx).page(Filter(source="retention"), before=None, most=10)
        assert [event for _, event in left] == rejected[1:]
