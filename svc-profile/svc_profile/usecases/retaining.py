# SPDX-License-Identifier: Apache-2.0
"""Let go of events whose time is over.

What svc-profile has counted and summed up of a customer stays: it is what is known of the customer, not the events.
"""

from collections.abc import Collection, Sequence

from chassis.database import Transaction
from chassis.events import ORDER_COMPLETED
from chassis.retention import Due

from svc_profile.domain.legal_hold import Holds
from svc_profile.domain.retention import DueEvent
from svc_profile.store.retention import DueEventStore
from svc_profile.usecases.holding import hold_due
from svc_profile.usecases.indexing import reindex
from svc_profile.wire.anonymous import without_person


class RetainedEvents:
    """The store of events, as retention sees it."""

    table = "events"

    def __init__(self, properties: Collection[str], holds: Holds) -> None:
        """`properties` is what an anonymised event keeps."""
        self._properties = properties
        self._holds = holds

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many events a rule would touch."""
        return await DueEventStore(tx).count(due)

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Destroy or anonymise some events."""
        store = DueEventStore(tx)
        events = await store.take(due, most)
        if not events:
            return 0
        await hold_due(tx, self._holds, events)
        await store.expire([event.event_key for event in events])
        if due.rule.anonymise:
            await store.keep_anonymous(self._anonymous(events))
        await _unindex(tx, events)
        return len(events)

    def _anonymous(self, events: Sequence[DueEvent]) -> list[DueEvent]:
        return [
            event._replace(payload=without_person(event.payload, self._properties)) for event in events if event.payload
        ]


async def _unindex(tx: Transaction, events: Sequence[DueEvent]) -> None:
    """Nobody is found by an order that is not kept any more."""
    fragments = {event.fragment for event in events if event.name == ORDER_COMPLETED}
    if fragments:
        await reindex(tx, fragments)
