# SPDX-License-Identifier: Apache-2.0
"""Tables and queries on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from chassis.database import Database
from chassis.migrations import migrate
from chassis.testing import Engines, settings_for
from dangol.events.v1 import events_pb2
from svc_profile.app import build
from svc_profile.domain.events import Event, FragmentKey, Name, Names
from svc_profile.domain.flags import SHARED
from svc_profile.domain.fragments import MAX_COUNTED_NAMES, Fragment
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.domain.traces import Repeated
from svc_profile.domain.traits import Trait
from svc_profile.jobs import Forgetting
from svc_profile.settings import Settings
from svc_profile.store.derived import DerivedStore
from svc_profile.store.events import Bringing, EventStore
from svc_profile.store.folding import FlaggedError, FoldStore
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.links import LinkStore
from svc_profile.store.rejected import Filter, RejectedStore
from svc_profile.store.repetitions import Repetition, RepetitionStore

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
        await FoldStore(tx).fold({each.name.fragment: each for each in fragments})


async def read(database: Database, key: FragmentKey) -> Fragment:
    async with database.snapshot() as tx:
        found = await FragmentStore(tx).profile(key)
    assert found is not None
    return found[1][0]


async def somebody_waits(database: Database, how_many: int = 1) -> None:
    """Wait until one transaction waits for another, or several do."""
    async with database.snapshot() as tx:
        while await tx.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'") < how_many:
            await asyncio.sleep(0.01)


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
            await FoldStore(tx).fold({new: fragment(new, counts={"a": 1})})
            made.set()
            await waiting.wait()

    async def second() -> None:
        await made.wait()
        folding = asyncio.create_task(fold(database, fragment(known, counts={"a": 1}), fragment(new, counts={"a": 1})))
        await somebody_waits(database)
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


async def test_one_name_more_than_a_crowded_fragment_may_count_is_left_out(database: Database) -> None:
    key = uuid4().bytes
    names = [f"n{number:05d}" for number in range(MAX_COUNTED_NAMES)]
    await fold(database, fragment(key, counts=dict.fromkeys(names, 1)))
    await fold(database, fragment(key, counts={names[7]: 2}), fragment(uuid4().bytes, counts={"a": 1}))
    await fold(database, fragment(key, counts={"z": 1}))
    await fold(database, fragment(key, counts={"a": 1}))
    assert (await read(database, key)).counts == {**dict.fromkeys(names[:-1], 1), names[7]: 3, "a": 1}


async def test_other_flags_than_expected_stop_a_whole_fold(database: Database) -> None:
    """Whoever folds has to divert what flagged identifiers own before anything is added up."""
    plain, flagged = (uuid4().bytes for _ in range(2))
    await fold(database, fragment(plain), fragment(flagged))
    async with database.transaction() as tx:
        flags = await DerivedStore(tx).flag([flagged], SHARED)
        both = {key: fragment(key, counts={"a": 1}) for key in (plain, flagged)}
        for expected in ({}, {flagged: SHARED}, {**flags, plain: SHARED}):
            with pytest.raises(FlaggedError):
                await FoldStore(tx).fold(both, expected)
    assert [(await read(database, key)).counts for key in both] == [{}, {}]
    async with database.transaction() as tx:
        await FoldStore(tx).fold(both, flags)
    assert [(await read(database, key)).counts for key in both] == [{"a": 1}, {"a": 1}]


async def test_who_makes_a_fragment_and_comes_back_for_it_is_not_waited_for_in_a_circle(database: Database) -> None:
    """Of three replicas, one does not see what the second makes while it waits for the third, and then wants it too."""
    new, shared, held = sorted(uuid4().bytes for _ in range(3))
    await fold(database, fragment(shared), fragment(held))
    async with database.transaction() as tx:
        await FoldStore(tx).fold({held: fragment(held)})
        slow = asyncio.create_task(fold(database, *(fragment(key, counts={"a": 1}) for key in (new, shared, held))))
        await somebody_waits(database)
        await fold(database, fragment(new, counts={"a": 1}))
        back = asyncio.create_task(fold(database, fragment(new, counts={"a": 1}), fragment(shared)))
        await somebody_waits(database, 2)
    await asyncio.gather(slow, back)
    assert [(await read(database, key)).counts for key in (new, shared, held)] == [{"a": 3}, {"a": 1}, {"a": 1}]


async def test_a_fold_that_is_put_back_out_of_a_circle_goes_on(database: Database) -> None:
    one, other = sorted(uuid4().bytes for _ in range(2))
    await fold(database, fragment(one), fragment(other))
    async with database.transaction() as tx:
        # Whoever looks for a circle and finds one is put back: here that is never this one.
        await tx.execute("SET LOCAL deadlock_timeout = '1min'")
        await FragmentStore(tx).lock([other])
        folding = asyncio.create_task(fold(database, *(fragment(key, counts={"a": 1}) for key in (one, other))))
        await somebody_waits(database)
        await FragmentStore(tx).lock([one])
    await folding
    assert [(await read(database, key)).counts for key in (one, other)] == [{"a": 1}, {"a": 1}]


async def test_nobody_has_no_profile(database: Database) -> None:
    async with database.snapshot() as tx:
        assert await FragmentStore(tx).profile(uuid4().bytes) is None


@pytest.mark.parametrize("perhaps_known", [True, False])
async def test_an_event_is_remembered_with_the_message_that_brought_it(database: Database, perhaps_known: bool) -> None:
    owner, batch, later = (uuid4().bytes for _ in range(3))
    one, other, nobodys = stored_event(owner), stored_event(owner), stored_event(None)
    async with database.transaction() as tx:
        assert await EventStore(tx).remember({one.key: (batch, one), nobodys.key: (batch, nobodys)}) == {}
    async with database.transaction() as tx:
        events = {event.key: (later, event) for event in (one, other, nobodys)}
        assert await EventStore(tx).remember(events, perhaps_known=perhaps_known) == {
            one.key: Bringing(batch, owner),
            nobodys.key: Bringing(batch, None),
        }
    async with database.snapshot() as tx:
        assert {each.event_key for each in await EventStore(tx).find(events)} == events.keys()


async def test_replicas_that_bring_the_same_event_agree_on_who_was_first(database: Database) -> None:
    """The slower one keeps what it alone brings, and goes on in the same transaction."""
    first, second = uuid4().bytes, uuid4().bytes
    shared, own = stored_event(uuid4().bytes), stored_event(uuid4().bytes)

    async def slower() -> dict[bytes, Bringing]:
        async with database.transaction() as tx:
            return await EventStore(tx).remember({shared.key: (second, shared), own.key: (second, own)})

    async with database.transaction() as tx:
        assert await EventStore(tx).remember({shared.key: (first, shared)}) == {}
        remembering = asyncio.create_task(slower())
        await somebody_waits(database)
    assert await remembering == {shared.key: Bringing(first, shared.owner.fragment)}
    async with database.snapshot() as tx:
        kept = await EventStore(tx).find([shared.key, own.key])
    assert sorted(each.event_key for each in kept) == sorted([shared.key, own.key])


async def test_events_are_found_by_fragment_newest_first_and_in_pages(database: Database) -> None:
    """Several fragments are one list; what was withheld is not in it, and its key stays known."""
    owners = [uuid4().bytes, uuid4().bytes]
    events = [stored_event(owners[n % 2], time_us=n // 2, name=f"n{n % 3}") for n in range(8)]
    async with database.transaction() as tx:
        store = EventStore(tx)
        await store.remember({event.key: (event.key, event) for event in events})
        expected = sorted(events, key=lambda event: (event.time_us, event.key), reverse=True)
        first = await store.of_fragments(owners, most=5)
        rest = await store.of_fragments(owners, before=(first[-1].time_us, first[-1].event_key), most=5)
        assert [each.event_key for each in first + rest] == [event.key for event in expected]
        assert {each.message.message_id for each in first + rest if each.message} == {e.message_id for e in events}
        named = await store.of_fragments(owners[:1], names=["n0"], most=5)
        assert [each.event_key for each in named] == [
            e.key for e in expected if e in events[0::2] and e in events[0::3]
        ]
        await store.withhold([events[0].key])
        assert await store.of_fragments(owners, names=["n0"], before=(1, bytes(16)), most=5) == []
        assert [each.message for each in await store.find([events[0].key])] == [None]


def stored_event(owner: FragmentKey | None, *, time_us: int = 1, name: str = "page") -> Event:
    message = events_pb2.Event(message_id=uuid4().hex, source="web")
    seen = () if owner is None else (Name(owner, "user_id", "u"),)
    key = uuid4().bytes
    return Event(key, time_us, name, Names(seen), "web", message.message_id, payload=message.SerializeToString())


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
    old, young, owned = stored_event(None), stored_event(None), stored_event(uuid4().bytes)
    given = {event.key: (event.key, event) for event in (old, young, owned)}
    long_ago = clock.to_us(clock.now() - timedelta(days=settings.rejected_days + 1))
    async with database.transaction() as tx:
        await EventStore(tx).remember(given)
        aged = [old.key.hex(), owned.key.hex()]
        await tx.execute("UPDATE events SET seen_day = current_date - 9 WHERE event_key = ANY (:aged)", aged=aged)
        repeated = [Repetition(each.key, uuid4().bytes, 7) for each in (old, owned)]
        await RepetitionStore(tx).put(repeated)
        await tx.execute(
            "UPDATE repetitions SET seen_day = current_date - 9 WHERE event_key = :key", key=UUID(bytes=old.key)
        )
        rejected = [RejectedEvent("m", "retention", "R", "", 0, us, b"") for us in (long_ago, clock.to_us(clock.now()))]
        await RejectedStore(tx).put(rejected)
    forgetting = Forgetting(database, settings)
    await forgetting.forget_keys()
    await forgetting.forget_rejected()
    async with database.transaction() as tx:
        assert (await EventStore(tx).remember(given)).keys() == {young.key, owned.key}
        assert await RepetitionStore(tx).of([old.key, owned.key]) == {owned.key: Repeated(1, 7)}
        left = await RejectedStore(tx).page(Filter(source="retention"), before=None, most=10)
        assert [event for _, event in left] == rejected[1:]
