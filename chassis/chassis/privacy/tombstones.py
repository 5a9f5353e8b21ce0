# SPDX-License-Identifier: Apache-2.0
"""Tombstones: which fragments were forgotten, so that events of them that are still on their way are dropped.

Every process keeps them in memory and looks once a second whether they changed, so a batch of events costs no query.
"""

import time
from collections.abc import Sequence
from uuid import UUID

from dangol.events.v1.events_pb2 import EventBatch

from chassis.database import Database, Transaction

KEPT_DAYS = 30
"""Longer than any stream keeps an event."""

REFRESH_S = 1.0
"""How old a process's knowledge may be."""


async def put(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Have events of fragments dropped from now on."""
    await tx.execute(
        """
        INSERT INTO forgotten_fragments (fragment_id)
        SELECT DISTINCT f FROM unnest(CAST(:fragments AS uuid[])) AS g (f) ORDER BY f
        ON CONFLICT (fragment_id) DO UPDATE SET forgotten_time = now()
        """,
        fragments=list(fragments),
    )
    await _changed(tx)


async def lift(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Let events of fragments in again."""
    await tx.execute(
        "DELETE FROM forgotten_fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))",
        fragments=list(fragments),
    )
    await _changed(tx)


async def expire(tx: Transaction) -> None:
    """Remove tombstones that no event can come back for."""
    removed = await tx.execute(
        "DELETE FROM forgotten_fragments WHERE forgotten_time < now() - make_interval(days => :days)", days=KEPT_DAYS
    )
    if removed:
        await _changed(tx)


async def _changed(tx: Transaction) -> None:
    await tx.execute("UPDATE forgotten_revision SET revision = revision + 1")


class Tombstones:
    """The forgotten fragments as this process knows them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked = float("-inf")
        self._revision = 0
        self._fragments: frozenset[bytes] = frozenset()

    async def current(self) -> frozenset[bytes]:
        """Return the forgotten fragments, as they were at most a second ago."""
        if time.monotonic() - self._looked >= REFRESH_S:
            await self._look()
        return self._fragments

    async def without_forgotten(self, batch: EventBatch) -> EventBatch:
        """Return a batch without events of forgotten fragments."""
        forgotten = await self.current()
        if not forgotten:
            return batch
        kept = [event for event in batch.events if event.fragment_id not in forgotten]
        return batch if len(kept) == len(batch.events) else EventBatch(events=kept)

    async def _look(self) -> None:
        now = time.monotonic()
        async with self._database.snapshot() as tx:
            # The revision first: what is newer than it is only read once more.
            revision = await tx.value("SELECT revision FROM forgotten_revision")
            if revision != self._revision:
                rows = await tx.rows("SELECT fragment_id FROM forgotten_fragments")
                self._fragments = frozenset(row.fragment_id.bytes for row in rows)
                self._revision = revision
        self._looked = now
