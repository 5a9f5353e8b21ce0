# SPDX-License-Identifier: Apache-2.0
"""Keep and tell what events really look like."""

from chassis.database import Transaction
from chassis.errors import NotFound

from svc_profile.domain.planning import TrackedEvent, Wanted
from svc_profile.domain.tracking import Tally
from svc_profile.store.schemas import SchemaStore
from svc_profile.store.tracking import TrackingStore


async def track(tx: Transaction, tally: Tally) -> None:
    """Add what a batch of events showed."""
    if tally.seen:
        await TrackingStore(tx).add(tally.seen)


async def list_tracked(tx: Transaction, wanted: Wanted, *, after: str | None, most: int) -> list[TrackedEvent]:
    """Return events by name: those that were seen, and those that have a schema."""
    found = await TrackingStore(tx).page(wanted, after=after, most=most)
    schemas = await SchemaStore(tx).of_names(list(found))
    return [TrackedEvent(name, by_source, schemas.get(name)) for name, by_source in found.items()]


async def get_tracked(tx: Transaction, name: str, *, source: str) -> TrackedEvent:
    """Return the events of a name with their properties; raises `NotFound` when nobody sent or planned any."""
    by_source = await TrackingStore(tx).of_name(name, source=source)
    schema = await SchemaStore(tx).find(name)
    if not by_source and schema is None:
        raise NotFound("no event of this name was ever seen, and none has a schema")
    return TrackedEvent(name, by_source, schema)
