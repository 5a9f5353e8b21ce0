# SPDX-License-Identifier: Apache-2.0
"""Which fragments make up a customer."""

from dataclasses import dataclass

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey

# A fragment without a row in fragment_profiles is its own profile. The profile's id is one of its fragments.
_MEMBERS = """
WITH profile AS (
    SELECT coalesce(
        (SELECT profile_id FROM fragment_profiles WHERE fragment_id = :fragment), CAST(:fragment AS uuid)
    ) AS profile_id
)
SELECT profile_id, ARRAY(
    SELECT profile_id UNION SELECT m.fragment_id FROM fragment_profiles m WHERE m.profile_id = profile.profile_id
) AS fragments
FROM profile WHERE EXISTS (SELECT FROM fragments f WHERE f.fragment_id = :fragment)
"""


@dataclass(frozen=True)
class Members:
    """A customer, by fragments."""

    profile: FragmentKey
    fragments: list[FragmentKey]


async def find_members(tx: Transaction, fragment: FragmentKey) -> Members | None:
    """Return the customer whom a fragment belongs to, None when nobody was ever known by it."""
    row = await tx.row(_MEMBERS, fragment=UUID(fragment))
    return None if row is None else Members(row.profile_id.bytes, [each.bytes for each in row.fragments])
