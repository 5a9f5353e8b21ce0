# SPDX-License-Identifier: Apache-2.0
"""Learn from events what customers do with items, and from svc-profile who is who."""

from collections.abc import Mapping

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from chassis import mapping
from svc_recommend.domain.customers import Placement
from svc_recommend.domain.interactions import Interactions
from svc_recommend.domain.items import ItemId
from svc_recommend.store.interactions import InteractionStore


async def learn(
    tx: Transaction,
    learnt: Mapping[tuple[bytes, ItemId], Interactions],
    placements: Mapping[bytes, Placement],
) -> None:
    """Add what a batch of events taught."""
    await place(tx, placements)
    await InteractionStore(tx).add(learnt)


async def place(tx: Transaction, placements: Mapping[bytes, Placement]) -> None:
    """Keep who is who; whoever moved from one customer to another changes the histories of both."""
    remapped = await mapping.learn(
        tx,
        [UUID(fragment_id) for fragment_id in placements],
        [UUID(placement.profile_id) for placement in placements.values()],
        [placement.revision for placement in placements.values()],
    )
    # Without a row a fragment was a customer of its own, so that a first row may be a move too.
    moved = [each.fragment_id for each in remapped if (each.old_profile_id or each.fragment_id) != each.new_profile_id]
    await InteractionStore(tx).note_moved(moved)
