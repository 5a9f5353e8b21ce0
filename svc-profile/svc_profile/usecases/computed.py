# SPDX-License-Identifier: Apache-2.0
"""Work out computed traits of one customer, from the events that are kept."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from chassis.database import Transaction

from svc_profile.domain.computed import ComputedTrait, Occurrence, evaluate
from svc_profile.domain.events import FragmentKey
from svc_profile.store.events import EventStore, StoredEvent
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.wire.traits import properties_of

MOST_EVENTS = 100_000
"""Events of one customer that are looked at, the newest."""

_EVENTS_IN_PASSING = 500
"""Events that are worked out at once; with more, a thread does it, so that nobody else waits for one customer."""


async def computed_traits(tx: Transaction, fragments: Collection[FragmentKey], now_us: int) -> dict[str, Any]:
    """Return the values of all declared traits, by name; one that has none is left out."""
    schema = await TraitSchemaStore(tx).current()
    return await compute(tx, fragments, schema.computed, now_us)


async def compute(
    tx: Transaction, fragments: Collection[FragmentKey], traits: Sequence[ComputedTrait], now_us: int
) -> dict[str, Any]:
    """Return the values of some traits, read through one statement whatever their number."""
    if not traits:
        return {}
    names = {name for trait in traits for name in trait.event_names}
    opened = {name for trait in traits if trait.reads_properties for name in trait.event_names}
    events = await EventStore(tx).of_fragments(fragments, names=names, most=MOST_EVENTS)
    if len(events) <= _EVENTS_IN_PASSING:
        return _evaluate(traits, events, opened, now_us)
    return await asyncio.to_thread(_evaluate, traits, events, opened, now_us)


def _evaluate(
    traits: Sequence[ComputedTrait], events: Sequence[StoredEvent], opened: Collection[str], now_us: int
) -> dict[str, Any]:
    return evaluate(traits, [occurrence(event, opened) for event in events if event.message is not None], now_us)


def occurrence(event: StoredEvent, opened: Collection[str]) -> Occurrence:
    """Read what counts of an event; its properties only when a trait reads them."""
    properties = properties_of(event.message) if event.message is not None and event.name in opened else {}
    return Occurrence(event.time_us, event.event_key, event.name, properties)
