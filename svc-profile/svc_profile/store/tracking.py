# SPDX-License-Identifier: Apache-2.0
"""What events really look like, by name and source."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from chassis.database import Transaction
from sqlalchemy import Row

from svc_profile.domain.planning import Only, Wanted
from svc_profile.domain.tracking import MAX_NAMES, MAX_PROPERTIES, OTHERS, EventSeen, Key, PropertySeen

# One transaction at a time adds to the plan, so that its limits hold and no two wait for each other in a circle. Two
# halves of one 64-bit key; others have first halves of their own.
_LOCK = "SELECT pg_advisory_xact_lock(11, 1)"

_KNOWN = """
SELECT name, source, (
    SELECT count(*) FROM tracked_properties p WHERE p.name = e.name AND p.source = e.source
) AS property_count
FROM tracked_events e
JOIN unnest(CAST(:names AS text[]), CAST(:sources AS text[])) AS g (name, source) USING (name, source)
"""

_PATHS = """
SELECT name, source, path FROM tracked_properties
JOIN unnest(CAST(:names AS text[]), CAST(:sources AS text[])) AS g (name, source) USING (name, source)
"""

_ADD_EVENTS = """
INSERT INTO tracked_events AS t (name, source, event_count, inspected_count, first_seen_us, last_seen_us)
SELECT * FROM unnest(
    CAST(:names AS text[]), CAST(:sources AS text[]), CAST(:counts AS bigint[]), CAST(:inspected AS bigint[]),
    CAST(:first AS bigint[]), CAST(:last AS bigint[])
)
ON CONFLICT (name, source) DO UPDATE SET
    event_count = t.event_count + excluded.event_count,
    inspected_count = t.inspected_count + excluded.inspected_count,
    first_seen_us = least(t.first_seen_us, excluded.first_seen_us),
    last_seen_us = greatest(t.last_seen_us, excluded.last_seen_us)
"""

# An array of arrays cannot be unnested one level deep, so each comes as text.
_ADD_PROPERTIES = """
INSERT INTO tracked_properties AS t (name, source, path, event_count, type_counts, first_seen_us, last_seen_us)
SELECT name, source, path, event_count, CAST(type_counts AS bigint[]), first_us, last_us FROM unnest(
    CAST(:names AS text[]), CAST(:sources AS text[]), CAST(:paths AS text[]), CAST(:counts AS bigint[]),
    CAST(:types AS text[]), CAST(:first AS bigint[]), CAST(:last AS bigint[])
) AS g (name, source, path, event_count, type_counts, first_us, last_us)
ON CONFLICT (name, source, path) DO UPDATE SET
    event_count = t.event_count + excluded.event_count,
    type_counts = ARRAY(
        SELECT a + b FROM unnest(t.type_counts, excluded.type_counts) WITH ORDINALITY AS u (a, b, n) ORDER BY n
    ),
    first_seen_us = least(t.first_seen_us, excluded.first_seen_us),
    last_seen_us = greatest(t.last_seen_us, excluded.last_seen_us)
"""

# An event that has a schema belongs to the plan though nobody has sent one.
_PAGE = """
SELECT name, source, event_count, inspected_count, first_seen_us, last_seen_us FROM (
    SELECT name FROM (
        SELECT name FROM tracked_events WHERE (:source = '' OR source = :source) AND NOT :unseen
        UNION SELECT name FROM event_schemas WHERE :source = '' AND NOT :unplanned
    ) AS every
    WHERE (name > :after OR :from_start)
        AND NOT (:unplanned AND EXISTS (SELECT FROM event_schemas s WHERE s.name = every.name))
        AND NOT (:unseen AND EXISTS (SELECT FROM tracked_events e WHERE e.name = every.name))
    ORDER BY name LIMIT :most
) AS page LEFT JOIN tracked_events t USING (name)
WHERE :source = '' OR source = :source
ORDER BY name, source
"""

_OF_NAME = """
SELECT source, event_count, inspected_count, first_seen_us, last_seen_us FROM tracked_events
WHERE name = :name AND (:source = '' OR source = :source) ORDER BY source
"""

_PROPERTIES = """
SELECT source, path, event_count, type_counts, first_seen_us, last_seen_us FROM tracked_properties
WHERE name = :name AND (:source = '' OR source = :source)
"""


class TrackingStore:
    """Adds up what was seen, and gives it back."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, seen: Mapping[Key, EventSeen]) -> None:
        """Add what a batch of events showed, within the limits of the plan."""
        await self._tx.execute(_LOCK)
        known = {(row.name, row.source): row.property_count for row in await self._of(_KNOWN, seen)}
        kept = await self._within_names(seen, known)
        await self._within_properties(kept, known)
        await self._add_events(kept)
        await self._add_properties(kept)

    async def page(self, wanted: Wanted, *, after: str | None, most: int) -> dict[str, dict[str, EventSeen]]:
        """Return events by name and source, of names after a name; those that nobody has sent have no source."""
        rows = await self._tx.rows(
            _PAGE,
            source=wanted.source,
            unplanned=wanted.only is Only.UNPLANNED,
            unseen=wanted.only is Only.UNSEEN,
            after=after or "",
            from_start=after is None,
            most=most,
        )
        found: dict[str, dict[str, EventSeen]] = {}
        for row in rows:
            by_source = found.setdefault(row.name, {})
            if row.source is not None:
                by_source[row.source] = _event(row)
        return found

    async def of_name(self, name: str, *, source: str) -> dict[str, EventSeen]:
        """Return the events of a name by source, with their properties."""
        found = {row.source: _event(row) for row in await self._tx.rows(_OF_NAME, name=name, source=source)}
        for row in await self._tx.rows(_PROPERTIES, name=name, source=source):
            found[row.source].properties[row.path] = PropertySeen(
                row.first_seen_us, row.last_seen_us, row.event_count, list(row.type_counts)
            )
        return found

    async def _within_names(self, seen: Mapping[Key, EventSeen], known: Mapping[Key, int]) -> dict[Key, EventSeen]:
        """Count the events of new names together once there are too many names."""
        new = sorted(seen.keys() - known.keys())
        if not new:
            return dict(seen)
        room = MAX_NAMES - int(await self._tx.value("SELECT count(*) FROM tracked_events"))
        kept = {key: each for key, each in seen.items() if key in known}
        kept |= {key: seen[key] for key in new[: max(room, 0)]}
        for name, source in new[max(room, 0) :]:
            surplus = seen[name, source]
            surplus.properties.clear()
            if (OTHERS, source) in kept:
                kept[OTHERS, source].absorb(surplus)
            else:
                kept[OTHERS, source] = surplus
        return kept

    async def _within_properties(self, kept: Mapping[Key, EventSeen], known: Mapping[Key, int]) -> None:
        """Leave out new paths of events that have too many."""
        full = [key for key, each in kept.items() if known.get(key, 0) + len(each.properties) > MAX_PROPERTIES]
        if not full:
            return
        paths: dict[Key, set[str]] = {}
        for row in await self._of(_PATHS, full):
            paths.setdefault((row.name, row.source), set()).add(row.path)
        for key in full:
            there, properties = paths.get(key, set()), kept[key].properties
            new = sorted(properties.keys() - there)
            for path in new[max(MAX_PROPERTIES - len(there), 0) :]:
                del properties[path]

    async def _add_events(self, kept: Mapping[Key, EventSeen]) -> None:
        keys = sorted(kept)
        rows = [kept[key] for key in keys]
        await self._tx.execute(
            _ADD_EVENTS,
            names=[name for name, _ in keys],
            sources=[source for _, source in keys],
            counts=[row.count for row in rows],
            inspected=[row.inspected for row in rows],
            first=[row.first_us for row in rows],
            last=[row.last_us for row in rows],
        )

    async def _add_properties(self, kept: Mapping[Key, EventSeen]) -> None:
        rows = [(*key, path, each.properties[path]) for key, each in sorted(kept.items()) for path in each.properties]
        if not rows:
            return
        await self._tx.execute(
            _ADD_PROPERTIES,
            names=[name for name, _, _, _ in rows],
            sources=[source for _, source, _, _ in rows],
            paths=[path for _, _, path, _ in rows],
            counts=[seen.count for _, _, _, seen in rows],
            types=["{" + ",".join(map(str, seen.types)) + "}" for _, _, _, seen in rows],
            first=[seen.first_us for _, _, _, seen in rows],
            last=[seen.last_us for _, _, _, seen in rows],
        )

    async def _of(self, sql: str, keys: Iterable[Key]) -> Sequence[Row[Any]]:
        wanted: Collection[Key] = list(keys)
        return await self._tx.rows(sql, names=[name for name, _ in wanted], sources=[source for _, source in wanted])


def _event(row: Row[Any]) -> EventSeen:
    return EventSeen(row.first_seen_us, row.last_seen_us, row.event_count, row.inspected_count)
