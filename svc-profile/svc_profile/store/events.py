# SPDX-License-Identifier: Apache-2.0
"""Every event that was learnt from: the one judge of duplicates on the platform, and the source of what is derived."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asyncpg import UniqueViolationError
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row, opened
from dangol.events.v1 import events_pb2

from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.fates import Fate
from svc_profile.store.copied import Copied
from svc_profile.store.sealed import EVENTS

_KEPT = Copied(
    "events",
    event_key="uuid",
    batch_id="uuid",
    time_us="bigint",
    received_time_us="bigint",
    fragment_id="uuid?",
    name="text",
    payload="bytea?",
)

_FOUND = "SELECT event_key, batch_id, fragment_id FROM events WHERE event_key = ANY (CAST(:keys AS uuid[]))"

_COLUMNS = "event_key, fragment_id, time_us, received_time_us, name, payload, fate"

_FIND = f"SELECT {_COLUMNS} FROM events WHERE event_key = ANY (CAST(:keys AS uuid[]))"  # noqa: S608  no data in it

# LATERAL asks the index about each fragment for no more than a page, however many events one of them has.
_OF_FRAGMENTS = f"""
SELECT e.* FROM unnest(CAST(:fragments AS uuid[])) AS g (f) CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM events
    WHERE fragment_id = f AND payload IS NOT NULL
        AND (CAST(:names AS text[]) IS NULL OR name = ANY (CAST(:names AS text[])))
        AND (CAST(:before_us AS bigint) IS NULL
            OR (time_us, event_key) < (CAST(:before_us AS bigint), CAST(:before_key AS uuid)))
    ORDER BY time_us DESC, event_key DESC LIMIT :most
) AS e
ORDER BY e.time_us DESC, e.event_key DESC LIMIT :most
"""  # noqa: S608  no data in it

_MOVE = """
UPDATE events AS e SET fragment_id = g.fragment_id
FROM unnest(CAST(:keys AS uuid[]), CAST(:fragments AS uuid[])) AS g (event_key, fragment_id)
WHERE e.event_key = g.event_key
"""

_WITHHOLD = """
UPDATE events SET payload = NULL, fragment_id = NULL, fate = :fate WHERE event_key = ANY (CAST(:keys AS uuid[]))
"""

_FORGET = """
DELETE FROM events WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM events
    WHERE payload IS NULL AND seen_day < current_date - CAST(:days AS integer) LIMIT :most
))
"""


class Bringing(NamedTuple):
    """How an event came the first time."""

    batch_id: bytes
    fragment: FragmentKey | None
    """The fragment that owns it; None when nobody learnt from it."""


@dataclass(frozen=True)
class StoredEvent:
    """An event as it was collected."""

    event_key: bytes
    fragment: FragmentKey | None
    """The fragment that owns it; None when it was dropped."""
    time_us: int
    received_time_us: int
    name: str
    """The name it is counted under."""
    message: events_pb2.Event | None
    """None when only the key is kept."""
    fate: Fate | None = None
    """Why only the key is kept, where that was decided."""


class EventStore:
    """Remembers events by key, and keeps them by fragment."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def remember(
        self, events: Mapping[bytes, tuple[bytes, Event]], *, perhaps_known: bool = True
    ) -> dict[bytes, Bringing]:
        """Keep events by key, each with the batch that brought it; return the keys that were known already.

        Where hardly any are known, it costs less to try without having asked.
        """
        known: dict[bytes, Bringing] = {}
        # Keys go in in their order, so that two replicas with the same duplicates never wait in a circle.
        keys = sorted(events)
        while keys:
            if perhaps_known:
                known |= await self._bringings(keys)
                keys = [key for key in keys if key not in known] if known else keys
            try:
                await self._keep({key: events[key] for key in keys})
                break
            except UniqueViolationError:
                # Whoever has brought some of them has committed, so now they are found.
                perhaps_known = True
        return known

    async def _bringings(self, keys: Sequence[bytes]) -> dict[bytes, Bringing]:
        rows: Sequence[Any] = await self._tx.rows(_FOUND, keys=[UUID(key) for key in keys])
        return {row[0].bytes: Bringing(row[1].bytes, row[2].bytes if row[2] else None) for row in rows}

    async def _keep(self, events: Mapping[bytes, tuple[bytes, Event]]) -> None:
        if not events:
            return
        batches, given = zip(*events.values(), strict=True)
        payloads = [event.payload if event.names.seen else None for event in given]
        await _KEPT.bring(
            self._tx,
            event_key=list(events),
            batch_id=batches,
            fragment_id=[event.owner.fragment if event.names.seen else None for event in given],
            time_us=[event.time_us for event in given],
            received_time_us=[event.received_time_us for event in given],
            name=[event.counted_name.encode() for event in given],
            payload=self._tx.sealer.seal_each(EVENTS, events, payloads),
        )

    async def find(self, event_keys: Collection[bytes]) -> list[StoredEvent]:
        """Return events by key; those that nobody brought are left out."""
        return await self._read(await self._tx.rows(_FIND, keys=[UUID(key) for key in event_keys]))

    async def of_fragments(
        self,
        fragments: Collection[FragmentKey],
        *,
        names: Collection[str] | None = None,
        before: tuple[int, bytes] | None = None,
        most: int,
    ) -> list[StoredEvent]:
        """Return the newest events that some fragments own, of some names, before a position (time, event key)."""
        rows = await self._tx.rows(
            _OF_FRAGMENTS,
            fragments=[UUID(fragment) for fragment in fragments],
            names=None if names is None else list(names),
            before_us=before[0] if before else None,
            before_key=UUID(before[1]) if before else None,
            most=most,
        )
        return await self._read(rows)

    async def move(self, fragment_of: Mapping[bytes, FragmentKey]) -> None:
        """Give events to other fragments."""
        if fragment_of:
            await self._tx.execute(
                _MOVE,
                keys=[UUID(key) for key in fragment_of],
                fragments=[UUID(fragment) for fragment in fragment_of.values()],
            )

    async def withhold(self, event_keys: Collection[bytes], fate: Fate = Fate.WITHHELD) -> None:
        """Keep no more of events than their keys, which tell repetitions, and why."""
        if event_keys:
            await self._tx.execute(_WITHHOLD, keys=[UUID(key) for key in event_keys], fate=int(fate))

    async def forget(self, *, days: int, most: int) -> int:
        """Forget keys without an event that were seen more than some days ago; returns how many, at most `most`."""
        return await self._tx.execute(_FORGET, days=days, most=most)

    async def _read(self, rows: Sequence[Any]) -> list[StoredEvent]:
        payloads = await opened(self._tx, [Row(EVENTS, row.event_key.bytes, row.payload) for row in rows])
        return [_read(row, payload) for row, payload in zip(rows, payloads, strict=True)]


def _read(row: Any, payload: bytes | None) -> StoredEvent:
    return StoredEvent(
        event_key=row.event_key.bytes,
        fragment=row.fragment_id.bytes if row.fragment_id else None,
        time_us=row.time_us,
        received_time_us=row.received_time_us,
        name=row.name,
        message=events_pb2.Event.FromString(payload) if payload is not None else None,
        fate=Fate(row.fate) if row.fate is not None else None,
    )
