# SPDX-License-Identifier: Apache-2.0
"""Who is in which segment, and who has to be looked at again."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from chassis.database import Transaction
from sqlalchemy import Row

from svc_segmentation.domain.segments import Membership

_NOBODY = UUID(int=0)

_TAKE_CHANGED = """
DELETE FROM changed_fragments WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM changed_fragments LIMIT :most
)) RETURNING fragment_id
"""

_TAKE_DUE = """
DELETE FROM due_profiles WHERE profile_id = ANY (ARRAY(
    SELECT profile_id FROM due_profiles WHERE due_us <= :now_us ORDER BY due_us LIMIT :most
)) RETURNING profile_id
"""

# Until a merge has been evaluated, the customer still has the memberships of the profiles that are one now.
_OF_PROFILE = """
SELECT s.segment_id, s.name, CAST(:profile_id AS uuid) AS profile_id, min(m.entered_time) AS entered_time
FROM memberships m JOIN segments s USING (segment_id)
WHERE m.profile_id = :profile_id
    OR m.profile_id IN (SELECT fragment_id FROM fragment_profiles WHERE profile_id = :profile_id)
GROUP BY s.segment_id, s.name
ORDER BY s.name COLLATE "C"
"""


class MembershipStore:
    """Memberships, and the work that is waiting to bring them up to date."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def of_segment(self, segment_id: str, *, after: UUID = _NOBODY, most: int) -> Sequence[Membership]:
        """Return the members of a segment by profile id."""
        rows = await self._tx.rows(
            """
            SELECT segment_id, '' AS name, profile_id, entered_time FROM memberships
            WHERE segment_id = :segment_id AND profile_id > :after ORDER BY profile_id LIMIT :most
            """,
            segment_id=segment_id,
            after=after,
            most=most,
        )
        return [_membership(row) for row in rows]

    async def of_profile(self, profile_id: UUID) -> Sequence[Membership]:
        """Return what a profile is in, by name of the segment."""
        return [_membership(row) for row in await self._tx.rows(_OF_PROFILE, profile_id=profile_id)]

    async def something_waits(self, now_us: int) -> bool:
        """Tell whether anybody changed, or is due because time has passed."""
        return bool(
            await self._tx.value(
                """
                SELECT EXISTS (SELECT FROM changed_fragments)
                    OR EXISTS (SELECT FROM due_profiles WHERE due_us <= :now_us)
                """,
                now_us=now_us,
            )
        )

    async def take_changed(self, most: int) -> Sequence[UUID]:
        """Take fragments that something happened to; they are gone if the transaction commits."""
        return [row[0] for row in await self._tx.rows(_TAKE_CHANGED, most=most)]

    async def take_due(self, now_us: int, most: int) -> Sequence[UUID]:
        """Take profiles for which time has made a difference; the evaluation says when they are due again."""
        return [row[0] for row in await self._tx.rows(_TAKE_DUE, now_us=now_us, most=most)]

    async def forget_due(self) -> None:
        """Wait for nobody any more, because there is no rule."""
        await self._tx.execute("DELETE FROM due_profiles")

    async def next_profiles(self, *, after: UUID = _NOBODY, most: int) -> Sequence[UUID]:
        """Return the next profiles of the whole population, by id."""
        rows = await self._tx.rows(
            """
            SELECT DISTINCT profile_id FROM fragment_profiles
            WHERE profile_id > :after ORDER BY profile_id LIMIT :most
            """,
            after=after,
            most=most,
        )
        return [row[0] for row in rows]


def _membership(row: Row[Any]) -> Membership:
    return Membership(row.segment_id, row.name, row.profile_id, row.entered_time)
