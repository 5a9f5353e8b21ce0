# SPDX-License-Identifier: Apache-2.0
"""Which profile a fragment belongs to: the projection that each service keeps of svc-profile's decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from chassis.database import Transaction
from chassis.identity import FragmentId, ProfileId


@dataclass(frozen=True)
class Remapped:
    """A fragment that was new, or moved to another profile."""

    fragment_id: FragmentId
    old_profile_id: ProfileId | None
    new_profile_id: ProfileId


# Locks are taken in key order, so that two replicas never wait for each other in a circle.
_LEARN = """
WITH given AS (
    SELECT DISTINCT ON (fragment_id) fragment_id, profile_id, revision
    FROM unnest(CAST(:fragments AS uuid[]), CAST(:profiles AS uuid[]), CAST(:revisions AS bigint[]))
        AS g (fragment_id, profile_id, revision)
    ORDER BY fragment_id, revision DESC
), written AS (
    INSERT INTO fragment_profiles AS f (fragment_id, profile_id, revision)
    SELECT g.fragment_id, g.profile_id, g.revision FROM given g
    WHERE NOT EXISTS (
        SELECT FROM fragment_profiles k WHERE k.fragment_id = g.fragment_id AND k.revision >= g.revision
    )
    ORDER BY g.fragment_id
    ON CONFLICT (fragment_id) DO UPDATE SET profile_id = excluded.profile_id, revision = excluded.revision
        WHERE f.revision < excluded.revision
    RETURNING new.fragment_id, old.profile_id AS old_profile_id, new.profile_id AS new_profile_id
)
SELECT fragment_id, old_profile_id, new_profile_id FROM written
WHERE old_profile_id IS DISTINCT FROM new_profile_id
ORDER BY fragment_id
"""


async def learn(
    tx: Transaction, fragment_ids: Sequence[UUID], profile_ids: Sequence[UUID], revisions: Sequence[int]
) -> list[Remapped]:
    """Keep the newest known mapping of each fragment; return only the fragments whose profile changed.

    The highest revision of a fragment wins, so any order and any repetition ends in the same table.
    """
    if not fragment_ids:
        return []
    rows = await tx.rows(_LEARN, fragments=list(fragment_ids), profiles=list(profile_ids), revisions=list(revisions))
    return [Remapped(row.fragment_id, row.old_profile_id, row.new_profile_id) for row in rows]


async def profile_of(tx: Transaction, fragment_id: UUID) -> ProfileId | None:
    """Return the profile of a fragment, None when nobody has heard of it."""
    value = await tx.value("SELECT profile_id FROM fragment_profiles WHERE fragment_id = :id", id=fragment_id)
    return None if value is None else ProfileId(value)
