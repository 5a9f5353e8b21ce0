# SPDX-License-Identifier: Apache-2.0
"""Find out who is who, around what is new."""

from collections.abc import Mapping

from chassis.database import Transaction
from chassis.identifiers import IdentifierTypes

from svc_profile.domain import identity
from svc_profile.domain.changes import Change
from svc_profile.domain.claims import Claim, Pair, admit
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import Fragment
from svc_profile.store.consents import ConsentStore
from svc_profile.store.links import LinkStore
from svc_profile.wire.identity import fragments_remapped, profiles_merged, profiles_split


async def relink(
    tx: Transaction,
    types: IdentifierTypes,
    news: Mapping[Pair, Claim],
    older: set[FragmentKey],
    new: Mapping[FragmentKey, Fragment],
) -> None:
    """Find out anew who is who, around new evidence and around fragments that turned out to be older."""
    links = LinkStore(tx)
    await links.lock()
    admission = admit(await links.of_children(news, new), news, types.shared)
    standings = await links.standings((admission.touched | older) - new.keys())
    standings |= {key: identity.newcomer(key, f.first_seen_us, f.name.namespace) for key, f in new.items()}
    around = identity.survey(admission, standings, older, types)
    component = await links.component(around.seeds - new.keys())
    await write_change(tx, identity.reconcile(component, admission, around, new, types))


async def write_change(tx: Transaction, change: Change) -> None:
    """Write down who is who now, and announce it; the caller holds the identity lock."""
    links = LinkStore(tx)
    await links.put(change.links)
    ends = {end for link in change.links for end in link.claim.pair}
    await ConsentStore(tx).note_relinked(ends | change.moved.keys(), set(change.moved.values()))
    for message in fragments_remapped(await links.place(change.moved)):
        tx.publish(message)
    for merge in change.merges:
        tx.publish(profiles_merged(merge))
    for split in change.splits:
        tx.publish(profiles_split(split))
