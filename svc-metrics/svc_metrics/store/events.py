# SPDX-License-Identifier: Apache-2.0
"""The events themselves: append, and read back as a timeline or as names.

`FINAL` is what makes an event that came twice, in whatever batches, count once.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from chassis.identity import FragmentId

from svc_metrics.domain import BrokenPart, EventName, EventRow, Position, TimelineEvent
from svc_metrics.store.clickhouse import ClickHouse

_TIMELINE = """
SELECT toUnixTimestamp64Micro(event_time) AS event_time_us, event_id, message_id, CAST(type, 'Int8') AS type_number,
    name, toUnixTimestamp64Micro(received_time) AS received_time_us, properties
FROM events FINAL
WHERE fragment_id IN {fragment_ids:Array(UUID)} {before}
ORDER BY event_time DESC, event_id DESC
LIMIT {limit:UInt32}
"""

_BEFORE = """
AND (event_time < fromUnixTimestamp64Micro({event_time_us:Int64}, 'UTC')
    OR (event_time = fromUnixTimestamp64Micro({event_time_us:Int64}, 'UTC') AND event_id < {event_id:UUID}))
"""

_ROWS = """
SELECT source, toUnixTimestamp64Micro(received_time), counted_name, toFloat64(revenue), currency
FROM events FINAL
WHERE message_id = {message_id:String} {among}
ORDER BY source
"""

_AMONG = """
AND fragment_id IN {fragment_ids:Array(UUID)} AND event_time >= fromUnixTimestamp64Micro({first_us:Int64}, 'UTC')
    AND event_time <= fromUnixTimestamp64Micro({last_us:Int64}, 'UTC')
"""

_NAMES = """
SELECT counted_name, count() AS event_count, toUnixTimestamp64Micro(min(event_time)),
    toUnixTimestamp64Micro(max(event_time))
FROM events FINAL
GROUP BY counted_name
ORDER BY event_count DESC, counted_name
LIMIT {limit:UInt32}
"""

_BROKEN = """
SELECT table, partition_id, name, reason FROM system.detached_parts
WHERE database = currentDatabase() AND reason LIKE 'broken%'
ORDER BY table, partition_id, name
"""


class EventStore:
    """The table of events."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def append(self, events: pa.Table, *, token: str) -> None:
        """Keep events; a batch with a known token changes nothing, nor does an event that is there already."""
        await self._clickhouse.insert("events", events, token=token)

    async def timeline(
        self, fragment_ids: Sequence[FragmentId], *, before: Position | None, limit: int
    ) -> list[TimelineEvent]:
        """Return events of some fragments, newest first, from a position on."""
        parameters: dict[str, Any] = {"fragment_ids": list(fragment_ids), "limit": limit}
        if before:
            parameters |= {"event_time_us": before.event_time_us, "event_id": before.event_id}
        sql = _TIMELINE.replace("{before}", _BEFORE if before else "")
        rows = await self._clickhouse.rows(sql, **parameters)
        return [
            TimelineEvent(Position(time_us, event_id), message_id, kind, name, received_us, properties.encode())
            for time_us, event_id, message_id, kind, name, received_us, properties in rows
        ]

    async def rows_of(self, message_id: str, places: Sequence[tuple[FragmentId, int]]) -> list[EventRow]:
        """Return the rows of a message id: at some places (fragment, time of the event), or anywhere without any.

        Places are looked up by key; without them every row is read, within the limits of a query.
        """
        parameters: dict[str, Any] = {"message_id": message_id}
        if places:
            times = [time_us for _, time_us in places]
            parameters |= {
                "fragment_ids": [fragment_id for fragment_id, _ in places],
                "first_us": min(times),
                "last_us": max(times),
            }
        sql = _ROWS.replace("{among}", _AMONG if places else "")
        return [EventRow(*row) for row in await self._clickhouse.rows(sql, **parameters)]

    async def names(self, limit: int) -> list[EventName]:
        """Return the names events are counted under, most frequent first."""
        return [EventName(*row) for row in await self._clickhouse.rows(_NAMES, limit=limit)]

    async def broken_parts(self) -> list[BrokenPart]:
        """Return the parts that the engine left out because they are damaged; it says so nowhere else."""
        return [BrokenPart(*row) for row in await self._clickhouse.rows(_BROKEN)]
