# SPDX-License-Identifier: Apache-2.0
"""Derive traits again after a change of their definitions: some fragments at a time, from where the last one stopped.

Each step holds the definitions shared and the fragments locked, so that no event is folded twice or missed: what was
committed before the step is read from the event store, what comes after it is folded on top. Whoever defines waits for
the batches in hand, so every fold after that follows the new definitions.
"""

from chassis.database import Transaction

from svc_profile.domain.derivation import Derivation
from svc_profile.domain.search import NAME_TRAITS
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.search import SearchStore
from svc_profile.store.trait_schema import DerivationStore, Progress, TraitSchemaStore
from svc_profile.usecases.announcing import announce_traits
from svc_profile.usecases.trait_statements import statements

FRAGMENTS_AT_ONCE = 500


async def derive_some(tx: Transaction, most: int = FRAGMENTS_AT_ONCE) -> bool:
    """Derive the traits of some more fragments; tells whether there may be more."""
    schema = await TraitSchemaStore(tx).hold()
    store = DerivationStore(tx)
    progress = await store.progress(lock=True)
    if not progress.running:
        return False
    if progress.cursor is None:
        await store.count()
    known = await FragmentStore(tx).lock_after(progress.cursor, most=most)
    if not known:
        await store.finish()
        return False
    derivation = Derivation(schema)
    async for page in statements(tx, known):
        derivation.add(page)
    derived = {key: derivation.traits(key, traits) for key, traits in known.items()}
    changed = {key: traits for key, traits in derived.items() if traits != known[key]}
    await FragmentStore(tx).put_traits(changed)
    await SearchStore(tx).queue(
        [(key, None) for key in changed if not NAME_TRAITS.isdisjoint({*known[key], *derived[key]})]
    )
    await announce_traits(tx, {key: traits for key, traits in derived.items() if traits or known[key]}, schema)
    await store.advance(max(known), len(known))
    return True


async def derivation_progress(tx: Transaction) -> Progress:
    """Tell how far it is."""
    return await DerivationStore(tx).progress()
