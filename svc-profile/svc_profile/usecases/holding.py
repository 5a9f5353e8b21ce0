# SPDX-License-Identifier: Apache-2.0
"""Set apart what a law demands before the rest is erased, and destroy it when the law no longer does."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.clock import now, to_us
from chassis.database import Transaction
from chassis.privacy import Erased, Traces
from chassis.privacy.personal import Kept

from svc_profile.domain.legal_hold import HeldRecord, Holds
from svc_profile.domain.retention import DueEvent
from svc_profile.store.legal_hold import LegalHoldStore
from svc_profile.store.subjects import hold_fragments

_AT_ONCE = 1_000


class HeldEvents:
    """Sees to it that an erasure leaves on hold what it must; comes before the store that erases the events.

    What is on hold is neither exported nor searched: it is apart, and nothing but the events themselves is in it.
    """

    def __init__(self, holds: Holds) -> None:
        self._holds = holds

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Set a customer's events apart, and say so; what was set apart before is said again."""
        if not self._holds.names:
            return Erased()
        keys, store, now_us = [each.bytes for each in fragments], LegalHoldStore(tx), to_us(now())
        await hold_fragments(tx, keys)
        request_id = await store.running_erasure(keys)
        found = [
            self._holds.record(request_id, name, time_us, payload, now_us)
            for name, time_us, payload in await store.events_of(keys, self._holds.names)
        ]
        records = [record for record in found if record is not None]
        await store.put(records, now_us)
        counts = await store.counts(request_id) if request_id else _counts(records)
        return Erased(kept=[Kept("legal_hold", count, law) for law, count in counts.items()])

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Events that are derived again stay events."""

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Nothing on hold is known to be anybody's."""
        nothing: Sequence[tuple[str, Mapping[str, Any]]] = ()
        for each in nothing:
            yield each

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Nothing on hold is searched: that it is kept is on the certificate."""
        return {}


def _counts(records: Sequence[HeldRecord]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.law] = counts.get(record.law, 0) + 1
    return counts


async def hold_due(tx: Transaction, holds: Holds, events: Sequence[DueEvent]) -> None:
    """Set apart what a law demands longer than a rule of retention lets it stay."""
    now_us = to_us(now())
    found = [holds.record("", event.name, event.time_us, event.payload, now_us) for event in events]
    await LegalHoldStore(tx).put([record for record in found if record is not None], now_us)


async def destroy_some(tx: Transaction) -> bool:
    """Destroy some of what no law demands any more; tells whether there may be more."""
    return await LegalHoldStore(tx).destroy(to_us(now()), _AT_ONCE) == _AT_ONCE


async def list_held(tx: Transaction, request_id: str, *, before: int | None, most: int) -> list[HeldRecord]:
    """Return records on hold."""
    return await LegalHoldStore(tx).page(request_id, before=before, most=most)
