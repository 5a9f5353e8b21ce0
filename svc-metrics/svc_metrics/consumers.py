# SPDX-License-Identifier: Apache-2.0
"""What svc-metrics hears. ClickHouse is its own judge of repetition, so no transaction and no inbox are needed."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa
from chassis.database import Transaction
from chassis.streams import RESOLVED, Delivery, StreamSubscription, Subscription
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1.identity_pb2 import FragmentsRemapped
from dangol.segmentation.v1.segmentation_pb2 import MembershipsChanged, SegmentDeleted, SegmentSaved

from chassis import mapping
from svc_metrics import domain, usecases, wire
from svc_metrics.usecases import Stores

BATCH_MESSAGES = 512
"""Most messages in one insert of events. One holds a shard of one batch of a client, typically a dozen events."""


class Pace:
    """Keeps inserts apart while little flows: each one is a part on the disk that has to be merged later.

    After a quiet moment an event is inserted at once; a full batch never waits.
    """

    def __init__(self, interval: timedelta) -> None:
        self._interval_s = interval.total_seconds()
        self._last = float("-inf")

    async def wait(self, *, full: bool) -> None:
        """Return when the next insert is due."""
        left = self._last + self._interval_s - time.monotonic()
        if left > 0 and not full:
            await asyncio.sleep(left)
        self._last = time.monotonic()


class Hearing:
    """The handlers of what the other services say."""

    def __init__(self, stores: Stores, insert_interval: timedelta) -> None:
        self._stores = stores
        self._pace = Pace(insert_interval)

    async def on_events_resolved(self, deliveries: Sequence[Delivery[EventBatch]]) -> None:
        """Append events; what is not acknowledged comes again and then counts once all the same."""
        await self._pace.wait(full=len(deliveries) >= BATCH_MESSAGES)
        events, mappings = await asyncio.to_thread(_unpack, deliveries)
        if len(events):
            await usecases.record_events(self._stores, events, mappings, token=wire.insert_token(deliveries))

    async def on_fragments_remapped(self, deliveries: Sequence[Delivery[FragmentsRemapped]]) -> None:
        """Count fragments under other profiles."""
        await usecases.remap_fragments(self._stores, wire.mappings_of(d.message for d in deliveries))

    async def on_memberships_changed(self, deliveries: Sequence[Delivery[MembershipsChanged]]) -> None:
        """Keep who is in which segment."""
        await usecases.change_memberships(self._stores, wire.memberships_of(d.message for d in deliveries))

    async def on_segment_saved(self, deliveries: Sequence[Delivery[SegmentSaved]]) -> None:
        """Know segments by name, also those that nobody is in."""
        await usecases.name_segments(self._stores, wire.segment_names_of(d.message for d in deliveries))

    async def on_segment_deleted(self, deliveries: Sequence[Delivery[SegmentDeleted]]) -> None:
        """Let segments be unknown."""
        await usecases.forget_segments(self._stores, [(d.message.segment_id, d.message.name) for d in deliveries])

    @staticmethod
    async def on_customers_remapped(tx: Transaction, messages: Sequence[FragmentsRemapped]) -> None:
        """Know in PostgreSQL too who is who: there is the access log, which is asked for customers under all names."""
        mappings = wire.mappings_of(messages)
        await mapping.learn(
            tx,
            [each.fragment_id for each in mappings],
            [each.profile_id for each in mappings],
            [each.revision for each in mappings],
        )

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Everything that is heard."""
        return (
            Subscription(FragmentsRemapped, self.on_customers_remapped, name="customers"),
            StreamSubscription(EventBatch, self.on_events_resolved, RESOLVED, batch_messages=BATCH_MESSAGES),
            StreamSubscription(FragmentsRemapped, self.on_fragments_remapped, batch_messages=64),
            StreamSubscription(MembershipsChanged, self.on_memberships_changed, batch_messages=64),
            StreamSubscription(SegmentSaved, self.on_segment_saved),
            StreamSubscription(SegmentDeleted, self.on_segment_deleted),
        )


def _unpack(deliveries: Sequence[Delivery[EventBatch]]) -> tuple[pa.Table, list[domain.Mapping]]:
    events = wire.events_of(deliveries)
    return wire.event_columns(events), wire.mappings_of_events(events)
