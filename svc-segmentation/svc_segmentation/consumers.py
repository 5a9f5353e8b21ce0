# SPDX-License-Identifier: Apache-2.0
"""What svc-segmentation hears."""

import asyncio
from collections.abc import Sequence

from chassis.database import Transaction
from chassis.streams import RESOLVED, Subscription
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1.identity_pb2 import FragmentsRemapped
from dangol.profile.v1.traits_pb2 import TraitsFolded

from svc_segmentation import wire
from svc_segmentation.usecases import behaviour
from svc_segmentation.usecases.behaviour import Memory


class Hearing:
    """The consumers; each wakes the evaluation in this process."""

    def __init__(self, memory: Memory, reader: wire.EventReader, wake: asyncio.Event) -> None:
        self._memory = memory
        self._reader = reader
        self._wake = wake

    async def on_resolved(self, tx: Transaction, batches: Sequence[EventBatch]) -> None:
        """Remember what customers did."""
        await self._memory.remember(tx, self._reader.read(batches))
        self._wake.set()

    async def on_remapped(self, tx: Transaction, messages: Sequence[FragmentsRemapped]) -> None:
        """Learn who is one person now, or no longer."""
        await behaviour.remap(tx, *wire.read_mappings(messages))
        self._wake.set()

    async def on_traits_folded(self, tx: Transaction, messages: Sequence[TraitsFolded]) -> None:
        """Say of traits with a policy what svc-profile says."""
        await self._memory.decide(tx, wire.read_decided(messages))
        self._wake.set()


def subscriptions(hearing: Hearing, batch_messages: int) -> tuple[Subscription, ...]:
    """Return what the service hears."""
    return (
        Subscription(EventBatch, hearing.on_resolved, subject=RESOLVED, batch_messages=batch_messages),
        Subscription(FragmentsRemapped, hearing.on_remapped),
        Subscription(TraitsFolded, hearing.on_traits_folded),
    )
