# SPDX-License-Identifier: Apache-2.0
"""Tell other services the traits about which definitions decide, so that they say the same of a customer."""

from collections.abc import Collection, Iterable, Mapping, Set

from chassis.database import Transaction

from svc_profile.domain.announced import announced
from svc_profile.domain.definitions import TraitSchema
from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.traits import Trait
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.wire.traits import traits_folded


def stating(events: Iterable[Event], schema: TraitSchema) -> Set[FragmentKey]:
    """Return the fragments whose events state a trait about which a definition decides."""
    deciding = schema.deciding.keys()
    return {event.owner.fragment for event in events if event.traits and not deciding.isdisjoint(event.traits)}


async def announce_stated(tx: Transaction, events: Collection[Event], schema: TraitSchema) -> None:
    """Tell what became of traits that a batch of events stated; the fragments are locked by the fold."""
    if not schema.deciding:
        return
    fragments = stating(events, schema)
    if fragments:
        await announce_traits(tx, await FragmentStore(tx).traits(fragments), schema)


async def announce_traits(
    tx: Transaction, traits: Mapping[FragmentKey, Mapping[str, Trait]], schema: TraitSchema
) -> None:
    """Tell the traits of fragments that are locked, so that the revision grows with every change of a fragment."""
    if not traits:
        return
    revision = await TraitSchemaStore(tx).next_announcement()
    told = {fragment: announced(of, schema) for fragment, of in traits.items()}
    for message in traits_folded(told, revision):
        tx.publish(message)
