# SPDX-License-Identifier: Apache-2.0
"""Say who is in which segment."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from chassis.database import Transaction

from chassis import consent, mapping
from svc_segmentation.domain.segments import Membership, PastChange
from svc_segmentation.store.memberships import MembershipStore
from svc_segmentation.store.segments import SegmentStore

SOON = timedelta(minutes=1)
"""How long after an event a change of segments may be its doing."""


async def members(tx: Transaction, segment_id: str, *, after: UUID, most: int) -> Sequence[Membership]:
    """Return the members of a segment, named by id or name, by profile id."""
    segment = await SegmentStore(tx).get(segment_id)
    return await MembershipStore(tx).of_segment(segment.segment_id, after=after, most=most)


async def with_consent(tx: Transaction, found: Sequence[Membership]) -> Sequence[Membership]:
    """Leave out customers who have not granted personalisation."""
    silent = await consent.refused(tx, {member.profile_id for member in found}, consent.PERSONALIZATION)
    return [member for member in found if member.profile_id not in silent]


async def of_profile(
    tx: Transaction, fragment_id: UUID, *, is_impersonal: bool = False
) -> tuple[UUID, Sequence[Membership]]:
    """Return a customer's id now, and the segments that the customer is in; somebody unknown is in none."""
    if is_impersonal:
        return fragment_id, []
    profile_id = await mapping.profile_of(tx, fragment_id) or fragment_id
    return profile_id, await MembershipStore(tx).of_profile(profile_id)


async def changes_after(tx: Transaction, after: Sequence[tuple[UUID, datetime]]) -> Sequence[tuple[int, PastChange]]:
    """Return which segments the customers of fragments entered and left within a minute after a moment.

    Each change comes with the position of what it was asked for.
    """
    return await MembershipStore(tx).changes(after, within=SOON)
