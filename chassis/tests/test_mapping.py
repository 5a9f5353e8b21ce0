# SPDX-License-Identifier: Apache-2.0
"""The projection of fragments to profiles ends the same in every order, batching and repetition."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest
from chassis.database import Database
from chassis.identity import FragmentId, ProfileId
from chassis.migrations import migrate
from chassis.settings import ServiceSettings
from chassis.testing import Engines, settings_for

from chassis import mapping

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


class Settings(ServiceSettings):
    service: ClassVar[str] = "mapping"


@pytest.fixture
async def database(engines: Engines) -> AsyncIterator[Database]:
    database = Database(settings_for(Settings, engines))
    await migrate(database, Path("none"))
    yield database
    await database.close()


async def learn(database: Database, *rows: tuple[UUID, UUID, int]) -> list[mapping.Remapped]:
    async with database.transaction() as tx:
        return await mapping.learn(tx, *(list(column) for column in zip(*rows, strict=True)))


async def test_says_what_changed_and_only_that(database: Database) -> None:
    assert await learn(database, (A, A, 1), (B, B, 1)) == [
        mapping.Remapped(FragmentId(A), None, ProfileId(A)),
        mapping.Remapped(FragmentId(B), None, ProfileId(B)),
    ]
    assert await learn(database, (A, A, 2), (B, A, 2)) == [mapping.Remapped(FragmentId(B), ProfileId(B), ProfileId(A))]
    assert await learn(database, (B, B, 1), (A, C, 2)) == []
    async with database.snapshot() as tx:
        assert await mapping.profile_of(tx, C) is None


async def test_learns_nothing_from_nothing(database: Database) -> None:
    async with database.transaction() as tx:
        assert await mapping.learn(tx, [], [], []) == []


async def test_ends_the_same_in_every_order(database: Database) -> None:
    """The highest revision wins, whatever came when and how often."""
    chance = random.Random(7)
    rows = [(UUID(int=f), UUID(int=100 + revision), revision) for f in range(5) for revision in range(1, 9)]
    for attempt in range(5):
        shuffled = chance.sample(rows * 2, len(rows) * 2)
        moved = [(UUID(int=f.int + 1000 * attempt), p, r) for f, p, r in shuffled]
        while moved:
            size = chance.randint(1, 7)
            await learn(database, *moved[:size])
            moved = moved[size:]
        async with database.snapshot() as tx:
            for fragment in range(5):
                found = await mapping.profile_of(tx, UUID(int=fragment + 1000 * attempt))
                assert found == UUID(int=108)
