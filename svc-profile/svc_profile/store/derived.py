# SPDX-License-Identifier: Apache-2.0
"""Where the events of flagged identifiers go: later users of devices, generations of derived fragments."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row, opened

from svc_profile.domain.derived import Home
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.flags import VERSION
from svc_profile.store.sealed import EVENTS

# The last first login at or before the time of each event; none while the first person is there.
_LATER_USERS = """
SELECT g.event_key, l.parent
FROM unnest(CAST(:keys AS uuid[]), CAST(:devices AS uuid[]), CAST(:times AS bigint[])) AS g (event_key, device, time_us)
CROSS JOIN LATERAL (
    SELECT parent FROM links
    WHERE child = g.device AND NOT eligible AND parent_namespace = 'user_id' AND claim_time_us <= g.time_us
    ORDER BY claim_time_us DESC, event_key DESC LIMIT 1
) AS l
"""

_SHARED = """
SELECT d FROM unnest(CAST(:devices AS uuid[])) AS g (d) CROSS JOIN LATERAL (
    SELECT FROM links WHERE child = d AND NOT eligible AND parent_namespace = 'user_id' LIMIT 1
) AS later
"""

_GENERATIONS = """
SELECT base_id, parent_id, generation FROM derived_fragments WHERE base_id = ANY (CAST(:bases AS uuid[]))
"""

_KEEP = """
INSERT INTO derived_fragments (base_id, parent_id, generation)
SELECT * FROM unnest(CAST(:bases AS uuid[]), CAST(:parents AS uuid[]), CAST(:generations AS integer[]))
ON CONFLICT (base_id, parent_id) DO UPDATE SET generation = excluded.generation
"""

_FLAG = f"""
UPDATE fragments SET flags = (flags | :flag) + {VERSION}
WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
RETURNING fragment_id, flags
"""  # noqa: S608  no data in it

_NAMESPACES = "SELECT fragment_id, namespace FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))"

_PLACED = """
SELECT event_key, fragment_id, time_us FROM events
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND payload IS NOT NULL AND time_us >= :since_us
"""

_PAYLOADS = """
SELECT event_key, fragment_id, payload FROM events
WHERE payload IS NOT NULL
    AND (event_key = ANY (CAST(:keys AS uuid[])) OR fragment_id = ANY (CAST(:fragments AS uuid[])))
"""

_REPLAY = """
UPDATE events AS e SET fragment_id = g.fragment_id, batch_id = CAST(:batch AS uuid)
FROM unnest(CAST(:keys AS uuid[]), CAST(:fragments AS uuid[])) AS g (event_key, fragment_id)
WHERE e.event_key = g.event_key
"""

# A derived fragment is gone; that of an identifier stays, and holds nothing any more.
_EMPTY = """
UPDATE fragments SET counts = '{}', traits = '{}', revenue = '{}', groups = '[]',
    first_event_us = NULL, last_event_us = NULL
WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""
_REMOVE = (
    "DELETE FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND namespace = 'derived'",
    "DELETE FROM links WHERE child = ANY (CAST(:derived AS uuid[]))",
    "DELETE FROM fragment_profiles WHERE fragment_id = ANY (CAST(:derived AS uuid[]))",
)


class Placed(NamedTuple):
    """Where an event is kept."""

    event_key: bytes
    fragment: FragmentKey
    time_us: int


class DerivedStore:
    """Keeps what has to be known of flagged identifiers."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def later_users(self, visits: Sequence[tuple[bytes, FragmentKey, int]]) -> dict[bytes, FragmentKey]:
        """Return, for visits (event key, device, time) after the first person's, the user who was there."""
        if not visits:
            return {}
        keys, devices, times = zip(*visits, strict=True)
        rows: Sequence[Any] = await self._tx.rows(
            _LATER_USERS, keys=[UUID(key) for key in keys], devices=[UUID(d) for d in devices], times=list(times)
        )
        return {row[0].bytes: row[1].bytes for row in rows}

    async def shared(self, devices: Collection[FragmentKey]) -> set[FragmentKey]:
        """Return the devices that a second user has logged in on."""
        if not devices:
            return set()
        rows: Sequence[Any] = await self._tx.rows(_SHARED, devices=[UUID(device) for device in devices])
        return {row[0].bytes for row in rows}

    async def generations(self, bases: Collection[FragmentKey]) -> dict[Home, int]:
        """Return the generation of each derived fragment of some identifiers."""
        rows = await self._tx.rows(_GENERATIONS, bases=[UUID(base) for base in bases])
        return {(row.base_id.bytes, row.parent_id.bytes): row.generation for row in rows}

    async def keep(self, generations: Mapping[Home, int]) -> None:
        """Remember the generation of derived fragments."""
        if generations:
            await self._tx.execute(
                _KEEP,
                bases=[UUID(base) for base, _ in generations],
                parents=[UUID(parent) for _, parent in generations],
                generations=list(generations.values()),
            )

    async def flag(self, fragments: Collection[FragmentKey], flag: int) -> dict[FragmentKey, int]:
        """Set a flag on locked fragments, and let every fold that was prepared before start again."""
        rows = await self._tx.rows(_FLAG, fragments=[UUID(fragment) for fragment in fragments], flag=flag)
        return {row.fragment_id.bytes: row.flags for row in rows}

    async def namespaces(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, str]:
        """Return the namespaces of fragments."""
        rows = await self._tx.rows(_NAMESPACES, fragments=[UUID(fragment) for fragment in fragments])
        return {row.fragment_id.bytes: row.namespace for row in rows}

    async def placed(self, fragments: Collection[FragmentKey], since_us: int) -> list[Placed]:
        """Return where the events of some fragments are, from a time on."""
        rows = await self._tx.rows(_PLACED, fragments=[UUID(fragment) for fragment in fragments], since_us=since_us)
        return [Placed(row.event_key.bytes, row.fragment_id.bytes, row.time_us) for row in rows]

    async def payloads(
        self, keys: Collection[bytes], fragments: Collection[FragmentKey]
    ) -> list[tuple[FragmentKey, bytes]]:
        """Return events by key, and all of some fragments, as they were collected."""
        rows = await self._tx.rows(
            _PAYLOADS, keys=[UUID(key) for key in keys], fragments=[UUID(fragment) for fragment in fragments]
        )
        payloads = await opened(self._tx, [Row(EVENTS, row.event_key.bytes, row.payload) for row in rows])
        return [(row.fragment_id.bytes, payload or b"") for row, payload in zip(rows, payloads, strict=True)]

    async def replay(self, owners: Mapping[bytes, FragmentKey], batch: bytes) -> None:
        """Give events to other fragments; what brought them first brings them no more."""
        await self._tx.execute(
            _REPLAY,
            keys=[UUID(key) for key in owners],
            fragments=[UUID(fragment) for fragment in owners.values()],
            batch=UUID(batch),
        )

    async def empty(self, fragments: Collection[FragmentKey], derived: Collection[FragmentKey]) -> None:
        """Take everything out of fragments; those that were derived are gone."""
        await self._tx.execute(_EMPTY, fragments=[UUID(fragment) for fragment in fragments])
        gone = [UUID(fragment) for fragment in derived]
        await self._tx.execute(_REMOVE[0], fragments=gone)
        for statement in _REMOVE[1:]:
            await self._tx.execute(statement, derived=gone)
