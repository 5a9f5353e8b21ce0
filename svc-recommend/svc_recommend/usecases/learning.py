# SPDX-License-Identifier: Apache-2.0
"""Learn from events what customers do with items, and from svc-profile who is who."""

from collections.abc import Mapping, Sequence

from asyncpg.pgproto.pgproto import UUID
from chassis.consent import PERSONALIZATION, learn_consents, refused
from chassis.database import Transaction
from dangol.profile.v1.consent_pb2 import ConsentsChanged

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
    """Add what a batch of events taught; nothing is learnt from who has not granted personalisation."""
    await place(tx, placements)
    silent = await refused(tx, {UUID(fragment) for fragment, _ in learnt}, PERSONALIZATION)
    if silent:
        unheard = {each.bytes for each in silent}
        learnt = {key: interactions for key, interactions in learnt.items() if key[0] not in unheard}
    await InteractionStore(tx).add(learnt)


async def fed(tx: Transaction, pairs: Sequence[tuple[bytes, ItemId]]) -> set[tuple[bytes, ItemId]]:
    """Return under which of some pairs of fragment and item something is kept."""
    return await InteractionStore(tx).known(pairs)


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


async def heed_consents(tx: Transaction, messages: Sequence[ConsentsChanged]) -> None:
    """Let nobody's recommendations rest on the history of who has refused personalisation."""
    await learn_consents(tx, messages)
    fragments = {UUID(fragment) for message in messages for fragment in message.fragment_ids}
    await InteractionStore(tx).note_consents(fragments, await refused(tx, fragments, PERSONALIZATION))
