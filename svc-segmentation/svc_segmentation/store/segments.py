# SPDX-License-Identifier: Apache-2.0
"""Segments as they are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chassis.database import Transaction
from chassis.errors import Conflict, NotFound
from sqlalchemy import Row

from svc_segmentation.domain.segments import Segment

_COLUMNS = """
SELECT segment_id, name, description, rule, rule_version, created_time, updated_time,
    (SELECT count(*) FROM memberships m WHERE m.segment_id = s.segment_id) AS member_count
FROM segments s
"""


@dataclass(frozen=True)
class Written:
    """A rule as text, with the version it is."""

    segment_id: str
    name: str
    rule: str
    rule_version: int


class SegmentStore:
    """The segments of one installation."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def get(self, segment_id: str) -> Segment:
        """Return a segment by id or name; raises `NotFound`."""
        row = await self._tx.row(f"{_COLUMNS} WHERE segment_id = :id OR name = :id", id=segment_id)
        if row is None:
            raise NotFound(f"no segment {segment_id}")
        return _segment(row)

    async def find_request(self, request_id: str) -> Segment | None:
        """Return the segment that a request created, if any."""
        row = await self._tx.row(f"{_COLUMNS} WHERE request_id = :id", id=request_id)
        return _segment(row) if row else None

    async def page(self, *, after: str, most: int) -> Sequence[Segment]:
        """Return segments by name."""
        rows = await self._tx.rows(
            f'{_COLUMNS} WHERE name COLLATE "C" > :after ORDER BY name COLLATE "C" LIMIT :most', after=after, most=most
        )
        return [_segment(row) for row in rows]

    async def add(self, segment: Segment, *, request_id: str) -> None:
        """Keep a new segment; raises `Conflict` when its name is taken."""
        added = await self._tx.execute(
            """
            INSERT INTO segments (
                segment_id, name, description, rule, rule_version, evaluated_version, request_id,
                created_time, updated_time
            ) VALUES (
                :segment_id, :name, :description, :rule, :rule_version, 0, :request_id, :created_time, :updated_time
            ) ON CONFLICT (name) DO NOTHING
            """,
            segment_id=segment.segment_id,
            name=segment.name,
            description=segment.description,
            rule=segment.rule,
            rule_version=segment.rule_version,
            request_id=request_id or None,
            created_time=segment.created_time,
            updated_time=segment.updated_time,
        )
        if not added:
            raise _taken(segment.name)
        await self._count_revision()

    async def change(self, segment: Segment) -> None:
        """Keep the new name, description and rule of a segment; raises `Conflict` when the name is taken."""
        taken = await self._tx.value(
            "SELECT 1 FROM segments WHERE name = :name AND segment_id <> :segment_id",
            name=segment.name,
            segment_id=segment.segment_id,
        )
        if taken:
            raise _taken(segment.name)
        await self._tx.execute(
            """
            UPDATE segments SET name = :name, description = :description, rule = :rule,
                rule_version = :rule_version, updated_time = :updated_time
            WHERE segment_id = :segment_id
            """,
            segment_id=segment.segment_id,
            name=segment.name,
            description=segment.description,
            rule=segment.rule,
            rule_version=segment.rule_version,
            updated_time=segment.updated_time,
        )
        await self._count_revision()

    async def remove(self, segment_id: str) -> None:
        """Forget a segment, its memberships and their history."""
        for table in ("memberships", "membership_history", "segments"):
            await self._tx.execute(f"DELETE FROM {table} WHERE segment_id = :id", id=segment_id)  # noqa: S608
        await self._count_revision()

    async def note_evaluated(self, segment_id: str, rule_version: int) -> None:
        """Note that the whole population was asked a rule, unless there is a newer one."""
        await self._tx.execute(
            "UPDATE segments SET evaluated_version = :version WHERE segment_id = :id AND rule_version = :version",
            id=segment_id,
            version=rule_version,
        )

    async def is_evaluated(self, segment_id: str) -> bool:
        """Tell whether the whole population was asked the newest rule of a segment."""
        return bool(
            await self._tx.value(
                "SELECT evaluated_version = rule_version FROM segments WHERE segment_id = :id", id=segment_id
            )
        )

    async def unevaluated(self, *, changed_before: datetime) -> Sequence[Written]:
        """Return the rules that the whole population has not been asked, because whoever did so was stopped."""
        rows = await self._tx.rows(
            """
            SELECT segment_id, name, rule, rule_version FROM segments
            WHERE evaluated_version < rule_version AND updated_time < :before ORDER BY segment_id
            """,
            before=changed_before,
        )
        return [_written(row) for row in rows]

    async def revision(self) -> int:
        """Return a number that grows whenever any segment changes."""
        return int(await self._tx.value("SELECT revision FROM rule_set"))

    async def rules(self) -> Sequence[Written]:
        """Return all rules."""
        rows = await self._tx.rows("SELECT segment_id, name, rule, rule_version FROM segments")
        return [_written(row) for row in rows]

    async def _count_revision(self) -> None:
        await self._tx.execute("UPDATE rule_set SET revision = revision + 1")


def _segment(row: Row[Any]) -> Segment:
    return Segment(
        segment_id=row.segment_id,
        name=row.name,
        description=row.description,
        rule=row.rule,
        rule_version=row.rule_version,
        created_time=row.created_time,
        updated_time=row.updated_time,
        member_count=row.member_count,
    )


def _written(row: Row[Any]) -> Written:
    return Written(row.segment_id, row.name, row.rule, row.rule_version)


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a segment {name} already")
