# SPDX-License-Identifier: Apache-2.0
"""Say who is in which segment."""

from collections.abc import Sequence
from uuid import UUID

from chassis.database import Transaction

from chassis import mapping
from svc_segmentation.domain.segments import Membership
from svc_segmentation.store.memberships import MembershipStore
from svc_segmentation.store.segments import SegmentStore


async def members(tx: Transaction, segment_id: str, *, after: UUID, most: int) -> Sequence[Membership]:
    """Return the members of a segment, named by id or name, by profile id."""
    segment = await SegmentStore(tx).get(segment_id)
    return await MembershipStore(tx).of_segment(segment.segment_id, after=after, most=most)


async def of_profile(tx: Transaction, fragment_id: UUID) -> tuple[UUID, Sequence[Membership]]:
    """Return a customer's id now, and the segments that the customer is in; somebody unknown is in none."""
    profile_id = await mapping.profile_of(tx, fragment_id) or fragment_id
    return profile_id, await MembershipStore(tx).of_profile(profile_id)
