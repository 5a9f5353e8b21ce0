# SPDX-License-Identifier: Apache-2.0
"""What svc-profile hears."""

from collections.abc import Collection, Sequence
from functools import partial

from chassis.clock import now, to_us
from chassis.database import Transaction
from chassis.streams import COLLECTED, REJECTED, RESOLVED, Delivery, DomainSubscription, Subscription
from dangol.events.v1.events_pb2 import EventBatch, RejectedEventBatch
from dangol.feedback.v1.feedback_pb2 import FeedbackRecorded
from dangol.profile.v1 import privacy_pb2
from dangol.segmentation.v1.segmentation_pb2 import MembershipsChanged, SegmentDeleted, SegmentSaved, StageChanged
from google.protobuf import any_pb2

from chassis import clock
from svc_profile.domain.events import Batch, Namer
from svc_profile.store.data_requests import DataRequestStore
from svc_profile.usecases import hearing, webhooks
from svc_profile.usecases.collecting import Collected, collect
from svc_profile.usecases.data_exports import keep_parts
from svc_profile.usecases.rejected import keep_rejected
from svc_profile.usecases.schemas import SchemaBook
from svc_profile.usecases.tracking import track
from svc_profile.wire.collecting import RESOLVED_PREFIX, read_batch, resolved_batch
from svc_profile.wire.heard import (
    read_deleted_segments,
    read_feedback,
    read_memberships,
    read_segment_names,
    read_stages,
)
from svc_profile.wire.privacy import read_erased, read_part, read_probed
from svc_profile.wire.rejected import read_rejected
from svc_profile.wire.tracking import tally_of
from svc_profile.wire.traits import without_refused_traits

_WATCHFUL_BATCHES = 100
"""Repetitions come in waves, such as a file that is sent twice. One that comes unlooked for costs a failed COPY."""


class Collecting:
    """The consumer of collected events. It judges repetition itself, event by event."""

    def __init__(
        self, namer: Namer, book: SchemaBook | None = None, anonymous_properties: Collection[str] | None = None
    ) -> None:
        """Without a book, no event has a schema; without properties, nobody who refuses is counted."""
        self._namer = namer
        self._book = book
        self._anonymous_properties = anonymous_properties
        self._watchful = 0
        """For how many batches more repetitions are looked for beforehand."""

    async def on_collected(self, tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
        """Learn from a micro-batch; each message leads to one of resolved events under an id of its own."""
        await self.learn(tx, deliveries)

    async def learn(self, tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> int:
        """Do the same for whoever else brings collected messages, and say how many events were kept."""
        judges = self._book.judges if self._book else {}
        batches = [read_batch(each.message_id, each.message, self._namer, judges) for each in deliveries]
        perhaps_known = self._watchful > 0 or any(each.redelivered for each in deliveries)
        collected = await collect(tx, batches, self._namer, self._anonymous_properties, perhaps_known=perhaps_known)
        self._watchful = _WATCHFUL_BATCHES if collected.repeats else max(self._watchful - 1, 0)
        for delivery, batch, kept in zip(deliveries, batches, collected.kept, strict=True):
            if kept:
                tx.publish_after_commit(
                    delivery.subject.replace("collected", "resolved"),
                    partial(_resolved, delivery.message, batch, kept, collected),
                    f"{RESOLVED_PREFIX}{delivery.message_id}",
                )
        return sum(map(len, collected.kept))


def _resolved(message: EventBatch, batch: Batch, kept: Sequence[int], collected: Collected) -> bytes:
    resolved = resolved_batch(message, batch.events, kept, collected.owners, collected.placements)
    return without_refused_traits(resolved, collected.schema).SerializeToString()


async def on_rejected(tx: Transaction, batches: Sequence[RejectedEventBatch]) -> None:
    """Keep what the gateway did not take."""
    await keep_rejected(tx, read_rejected(batches))


async def on_resolved(tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
    """Keep what events look like, away from the path on which they are learnt from."""
    await track(tx, tally_of(deliveries))


async def on_memberships_changed(tx: Transaction, messages: Sequence[MembershipsChanged]) -> None:
    """Know who entered and left segments."""
    await hearing.change_memberships(tx, read_memberships(messages))


async def on_segment_saved(tx: Transaction, messages: Sequence[SegmentSaved]) -> None:
    """Know what segments are called."""
    await hearing.name_segments(tx, read_segment_names(messages))


async def on_segment_deleted(tx: Transaction, messages: Sequence[SegmentDeleted]) -> None:
    """Let segments be gone."""
    await hearing.forget_segments(tx, read_deleted_segments(messages))


async def on_stage_changed(tx: Transaction, messages: Sequence[StageChanged]) -> None:
    """Know where customers stand."""
    await hearing.change_stages(tx, read_stages(messages))


async def on_feedback_recorded(tx: Transaction, messages: Sequence[FeedbackRecorded]) -> None:
    """Know that customers said something."""
    await hearing.hear_feedback(tx, read_feedback(messages))


async def on_domain_event(tx: Transaction, deliveries: Sequence[Delivery[any_pb2.Any]]) -> None:
    """Let what happens anywhere on the platform wait for the webhooks that want it."""
    await webhooks.enqueue(tx, deliveries, now_us=to_us(now()))


async def on_erasure_reported(tx: Transaction, reports: Sequence[privacy_pb2.ErasureReported]) -> None:
    """Note what services removed and kept."""
    for report in reports:
        await DataRequestStore(tx).answer(report.data_request_id, read_erased(report, clock.now()))


async def on_probe_reported(tx: Transaction, reports: Sequence[privacy_pb2.ProbeReported]) -> None:
    """Note what services found."""
    for report in reports:
        await DataRequestStore(tx).answer(report.data_request_id, read_probed(report, clock.now()))


async def on_export_part(tx: Transaction, deliveries: Sequence[Delivery[privacy_pb2.ExportPart]]) -> None:
    """Keep what services send of a customer."""
    await keep_parts(tx, [read_part(each.message, each.stream_sequence) for each in deliveries])


def subscriptions(collecting: Collecting, batch_messages: int) -> tuple[Subscription, ...]:
    """Return what the service hears."""
    return (
        Subscription(
            EventBatch,
            collecting.on_collected,
            subject=COLLECTED,
            batch_messages=batch_messages,
            at_once=4,
            inbox=False,
        ),
        Subscription(RejectedEventBatch, on_rejected, subject=REJECTED),
        Subscription(EventBatch, on_resolved, subject=RESOLVED, batch_messages=256, rest_s=0.25, whole=True),
        Subscription(MembershipsChanged, on_memberships_changed, batch_messages=64),
        Subscription(SegmentSaved, on_segment_saved),
        Subscription(SegmentDeleted, on_segment_deleted),
        Subscription(StageChanged, on_stage_changed, batch_messages=256),
        Subscription(FeedbackRecorded, on_feedback_recorded, batch_messages=64),
        DomainSubscription(handler=on_domain_event, batch_messages=100),
        Subscription(privacy_pb2.ErasureReported, on_erasure_reported),
        Subscription(privacy_pb2.ProbeReported, on_probe_reported),
        Subscription(privacy_pb2.ExportPart, on_export_part, inbox=False),
    )
