# SPDX-License-Identifier: Apache-2.0
"""Define traits and declare computed ones."""

from collections.abc import Callable
from dataclasses import replace

from chassis.database import Transaction
from chassis.errors import Conflict, NotFound, ResourceExhausted

from svc_profile.domain.computed import ComputedTrait
from svc_profile.domain.definitions import TraitDefinition, TraitSchema
from svc_profile.store.trait_schema import DerivationStore, TraitSchemaStore
from svc_profile.usecases.personal_traits import announce_names
from svc_profile.wire import traits as wire

MOST_DEFINITIONS = 1_000
MOST_COMPUTED = 100


async def read_schema(tx: Transaction) -> TraitSchema:
    """Return all that was decided about traits."""
    return await TraitSchemaStore(tx).current()


async def create_definition(tx: Transaction, definition: TraitDefinition, now_us: int) -> TraitDefinition:
    """Define a trait."""
    definition.check()
    schema = await TraitSchemaStore(tx).take()
    if definition.name in schema.definitions:
        raise Conflict(f"the trait {definition.name} is defined already")
    if len(schema.definitions) >= MOST_DEFINITIONS:
        raise ResourceExhausted(f"at most {MOST_DEFINITIONS} traits can be defined")
    return await _save(tx, schema, replace(definition, created_us=now_us, updated_us=now_us))


async def update_definition(
    tx: Transaction, name: str, change: Callable[[TraitDefinition], TraitDefinition], now_us: int
) -> TraitDefinition:
    """Change a definition."""
    schema = await TraitSchemaStore(tx).take()
    before = definition_of(schema, name)
    after = change(before)
    after.check()
    return before if after == before else await _save(tx, schema, replace(after, updated_us=now_us))


async def delete_definition(tx: Transaction, name: str) -> None:
    """Forget a definition."""
    schema = await TraitSchemaStore(tx).take()
    before = definition_of(schema, name)
    left = {known: definition for known, definition in schema.definitions.items() if known != name}
    saved = await _put(tx, replace(schema, definitions=left))
    if before.decides != TraitDefinition(name).decides:
        await DerivationStore(tx).begin()
    tx.publish(wire.definition_deleted(name, saved.revision))


async def _save(tx: Transaction, schema: TraitSchema, definition: TraitDefinition) -> TraitDefinition:
    before = schema.definitions.get(definition.name, TraitDefinition(definition.name))
    saved = await _put(tx, schema.with_definition(definition))
    if definition.decides != before.decides:
        await DerivationStore(tx).begin()
    tx.publish(wire.definition_saved(definition, saved.revision))
    return definition


async def _put(tx: Transaction, schema: TraitSchema) -> TraitSchema:
    """Keep what was decided; whoever masks what is personal hears of it."""
    saved = await TraitSchemaStore(tx).put(schema)
    await announce_names(tx, saved)
    return saved


def definition_of(schema: TraitSchema, name: str) -> TraitDefinition:
    """Return a definition; raises `NotFound`."""
    definition = schema.definitions.get(name)
    if definition is None:
        raise NotFound(f"the trait {name} is not defined")
    return definition


async def create_computed(tx: Transaction, trait: ComputedTrait, now_us: int) -> ComputedTrait:
    """Declare a computed trait."""
    trait.check()
    schema = await TraitSchemaStore(tx).take()
    if any(known.name == trait.name for known in schema.computed):
        raise Conflict(f"there is a computed trait {trait.name} already")
    if len(schema.computed) >= MOST_COMPUTED:
        raise ResourceExhausted(f"at most {MOST_COMPUTED} computed traits can be declared")
    return await _declare(tx, schema, replace(trait, created_us=now_us, updated_us=now_us))


async def update_computed(
    tx: Transaction, name: str, change: Callable[[ComputedTrait], ComputedTrait], now_us: int
) -> ComputedTrait:
    """Change the declaration of a computed trait."""
    schema = await TraitSchemaStore(tx).take()
    before = computed_of(schema, name)
    after = change(before)
    after.check()
    return before if after == before else await _declare(tx, schema, replace(after, updated_us=now_us))


async def delete_computed(tx: Transaction, name: str) -> None:
    """Forget the declaration of a computed trait."""
    schema = await TraitSchemaStore(tx).take()
    computed_of(schema, name)
    left = tuple(trait for trait in schema.computed if trait.name != name)
    await _put(tx, replace(schema, computed=left))
    tx.publish(wire.computed_deleted(name))


async def _declare(tx: Transaction, schema: TraitSchema, trait: ComputedTrait) -> ComputedTrait:
    others = [known for known in schema.computed if known.name != trait.name]
    computed = tuple(sorted([*others, trait], key=lambda each: each.name))
    await _put(tx, replace(schema, computed=computed))
    tx.publish(wire.computed_saved(trait))
    return trait


def computed_of(schema: TraitSchema, name: str) -> ComputedTrait:
    """Return a declaration; raises `NotFound`."""
    for trait in schema.computed:
        if trait.name == name:
            return trait
    raise NotFound(f"there is no computed trait {name}")
