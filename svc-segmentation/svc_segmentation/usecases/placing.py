# SPDX-License-Identifier: Apache-2.0
"""Say which segments customers would be in if they were made of other fragments."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from chassis.clock import to_us
from chassis.database import Transaction
from chassis.errors import NotFound

from chassis import mapping
from svc_segmentation.domain.segments import Previewed
from svc_segmentation.store.judging import foretell
from svc_segmentation.store.locks import share_rules
from svc_segmentation.store.memberships import MembershipStore
from svc_segmentation.usecases.rulebook import Rulebook

_ABOVE_ALL = 2**63 - 1
"""A revision that wins over whatever was heard."""


async def preview_memberships(
    tx: Transaction, rulebook: Rulebook, placements: Mapping[UUID, Sequence[UUID]], *, now: datetime
) -> dict[UUID, list[Previewed]]:
    """Move fragments to the profiles given, and return the segments of those, by name.

    For a transaction that is rolled back: one that commits would keep svc-profile from ever moving the fragments again.
    Raises `NotFound` when nobody has heard of any fragment.
    """
    homes = {fragment: profile for profile, fragments in placements.items() for fragment in fragments}
    await share_rules(tx)
    known = await MembershipStore(tx).profiles_of(homes)
    if not known:
        raise NotFound("svc-segmentation has not heard of any of these fragments")
    moved = {fragment: profile for fragment, profile in homes.items() if known.get(fragment) != profile}
    await mapping.learn(tx, list(moved), list(moved.values()), [_ABOVE_ALL] * len(moved))
    found: dict[UUID, list[Previewed]] = {profile: [] for profile in placements}
    for statement in (await rulebook.current(tx)).foretelling:
        for profile, segment in await foretell(tx, statement, placements, now_us=to_us(now)):
            found[profile].append(segment)
    return {profile: sorted(segments, key=lambda each: each.name) for profile, segments in found.items()}
