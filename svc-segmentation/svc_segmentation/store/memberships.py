# SPDX-License-Identifier: Apache-2.0
"""Who is in which segment, and who has to be looked at again."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chassis.database import Transaction
from sqlalchemy import Row

from svc_segmentation.domain.segments import Membership, PastChange

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

# Of all profiles that are one now, because the change may have come before the merge. The key begins with the segment,
# of which there are few.
_CHANGES = """
WITH asked AS MATERIALIZED (
    SELECT number, fragment_id, start FROM unnest(CAST(:fragments AS uuid[]), CAST(:starts AS timestamptz[]))
        WITH ORDINALITY AS g (fragment_id, start, number)
), people AS MATERIALIZED (
    SELECT number, start, fragment_id AS profile_id FROM asked
    UNION SELECT number, start, profile_id FROM asked JOIN fragment_profiles USING (fragment_id)
    UNION SELECT a.number, a.start, m.fragment_id FROM asked a
        JOIN fragment_profiles k USING (fragment_id) JOIN fragment_profiles m ON m.profile_id = k.profile_id
)
SELECT p.number - 1 AS number, s.segment_id, s.name, h.member, h.change_time
FROM segments s CROSS JOIN people p
CROSS JOIN LATERAL (
    SELECT h.member, h.change_time, h.revision FROM membership_history h
    WHERE h.segment_id = s.segment_id AND h.profile_id = p.profile_id
        AND h.change_time >= p.start AND h.change_time < p.start + CAST(:within AS interval) OFFSET 0
) AS h
ORDER BY h.revision
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

    async def changes(
        self, after: Sequence[tuple[UUID, datetime]], *, within: timedelta
    ) -> list[tuple[int, PastChange]]:
        """Return which segments the customers of fragments entered and left soon after a moment, earliest first.

        Each change comes with the position of what it was asked for.
        """
        rows = await self._tx.rows(
            _CHANGES,
            fragments=[fragment_id for fragment_id, _ in after],
            starts=[moment for _, moment in after],
            within=within,
        )
        return [(row.number, PastChange(row.segment_id, row.name, row.member, row.change_time)) for row in rows]

    async def profiles_of(self, fragments: Collection[UUID]) -> dict[UUID, UUID]:
        """Return the profiles of those fragments that anybody has heard of."""
        rows = await self._tx.rows(
            "SELECT fragment_id, profile_id FROM fragment_profiles WHERE fragment_id = ANY (CAST(:ids AS uuid[]))",
            ids=list(fragments),
        )
        return {row.fragment_id: row.profile_id for row in rows}

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
