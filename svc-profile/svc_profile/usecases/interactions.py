# SPDX-License-Identifier: Apache-2.0
"""Keep what staff and customers had to do with each other."""

from collections.abc import Sequence
from dataclasses import replace

from chassis.database import Transaction
from chassis.errors import Invalid, NotFound
from chassis.ids import new_id

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.interactions import Change, Choice, Draft, Kept, amend, begin
from svc_profile.store.interactions import InteractionStore
from svc_profile.store.members import Members
from svc_profile.usecases.profiles import get_members
from svc_profile.wire.interactions import interaction_recorded


async def create_interaction(
    tx: Transaction, fragment: FragmentKey, draft: Draft, *, request_id: str, actor: str, now_us: int
) -> Kept:
    """Keep a new interaction and announce it; a request id that came before is answered as the first time."""
    store = InteractionStore(tx)
    members = await get_members(tx, fragment)
    if request_id and (known := await store.find_by_request(request_id)):
        return _repeated(known, members)
    interaction = begin(draft, interaction_id=new_id("int"), fragment=fragment, actor=actor, now_us=now_us)
    if not await store.put_new(interaction, request_id):
        return _repeated(await _of_request(store, request_id), members)
    tx.publish(interaction_recorded(interaction))
    return Kept(interaction, members.profile)


def _repeated(known: Kept, members: Members) -> Kept:
    """Return what was created before; raises `Invalid` when that is another customer's."""
    if known.interaction.fragment not in members.fragments:
        raise Invalid.field("request_id", "was used for another customer")
    return known


async def _of_request(store: InteractionStore, request_id: str) -> Kept:
    known = await store.find_by_request(request_id)
    if known is None:
        raise NotFound("no interaction of this request id")
    return known


async def get_interaction(tx: Transaction, interaction_id: str) -> Kept:
    """Return one interaction."""
    return await _get(tx, interaction_id, lock=False)


async def _get(tx: Transaction, interaction_id: str, *, lock: bool) -> Kept:
    kept = await InteractionStore(tx).find(interaction_id, lock=lock)
    if kept is None:
        raise NotFound(f"no interaction {interaction_id}")
    return kept


async def update_interaction(tx: Transaction, interaction_id: str, change: Change, *, actor: str, now_us: int) -> Kept:
    """Change an interaction and announce it."""
    kept = await _get(tx, interaction_id, lock=True)
    amended = amend(kept.interaction, change, actor=actor, now_us=now_us)
    await InteractionStore(tx).put(amended)
    tx.publish(interaction_recorded(amended))
    return Kept(amended, kept.profile)


async def list_interactions(tx: Transaction, choice: Choice, *, of: FragmentKey | None, most: int) -> Sequence[Kept]:
    """Return interactions of one customer or of all, newest first."""
    if of is not None:
        choice = replace(choice, fragments=(await get_members(tx, of)).fragments)
    return await InteractionStore(tx).page(choice, most)
