# SPDX-License-Identifier: Apache-2.0
"""Know which traits somebody defined as personal, so that every answer masks them."""

from collections.abc import Collection

from chassis.database import Transaction
from chassis.masking import PERSONAL_NAMES, THINGS_HAVE_NAMES, plain
from chassis.personal_traits import PersonalTraits

from svc_profile.domain.computed import ComputedTrait
from svc_profile.domain.definitions import TraitSchema
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.wire.traits import personal_traits_changed


class DefinedPersonalTraits(PersonalTraits):
    """The names of personal traits, as they are defined here."""

    async def read(self, tx: Transaction) -> Collection[str]:
        """Return the names of the schema."""
        return personal_names(await TraitSchemaStore(tx).current())


async def announce_names(tx: Transaction, schema: TraitSchema) -> None:
    """Let every service know all names; once more does no harm, and reaches services that are new."""
    tx.publish(personal_traits_changed(sorted(personal_names(schema)), schema.revision))


async def announce_names_again(tx: Transaction) -> None:
    """Announce the names as they are."""
    schema = await TraitSchemaStore(tx).current()
    if schema.revision:
        await announce_names(tx, schema)


def personal_names(schema: TraitSchema) -> frozenset[str]:
    """Return names of personal traits: of those that somebody defined so, and of computed ones that tell of such."""
    defined = {name for name, definition in schema.definitions.items() if definition.pii}
    names = PERSONAL_NAMES.union(map(plain, defined))
    return frozenset(defined.union(trait.name for trait in schema.computed if _is_personal(trait, names)))


def _is_personal(trait: ComputedTrait, names: Collection[str]) -> bool:
    of_things = () if "identify" in trait.event_names else THINGS_HAVE_NAMES
    return not {plain(name) for name in trait.tells_of}.difference(of_things).isdisjoint(names)
