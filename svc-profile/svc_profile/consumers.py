# SPDX-License-Identifier: Apache-2.0
"""What svc-profile hears."""

from collections.abc import Sequence

from chassis.database import Transaction
from chassis.streams import COLLECTED, REJECTED, Delivery, Subscription
from dangol.events.v1.events_pb2 import EventBatch, RejectedEventBatch

from svc_profile.domain.events import Namer
from svc_profile.usecases.collecting import collect
from svc_profile.usecases.rejected import keep_rejected
from svc_profile.wire.collecting import read_batch, resolved_batch
from svc_profile.wire.rejected import read_rejected


class Collecting:
    """The consumer of collected events. It judges repetition itself, event by event."""

    def __init__(self, namer: Namer) -> None:
        self._namer = namer

    async def on_collected(self, tx: Transaction, deliveries: Sequence[Delivery[EventBatch]]) -> None:
        """Learn from a micro-batch; each message leads to one of resolved events under an id of its own."""
        batches = [read_batch(each.message_id, each.message, self._namer) for each in deliveries]
        collected = await collect(tx, batches)
        for delivery, batch, kept in zip(deliveries, batches, collected.kept, strict=True):
            if kept:
                resolved = resolved_batch(delivery.message, batch.events, kept, collected.owners, collected.placements)
                tx.publish_after_commit(
                    delivery.subject.replace("collected", "resolved"),
                    resolved.SerializeToString(),
                    f"resolved:{delivery.message_id}",
                )


async def on_rejected(tx: Transaction, batches: Sequence[RejectedEventBatch]) -> None:
    """Keep what the gateway did not take."""
    await keep_rejected(tx, read_rejected(batches))


def subscriptions(namer: Namer, batch_messages: int) -> tuple[Subscription, ...]:
    """Return what the service hears."""
    return (
        Subscription(
            EventBatch,
            Collecting(namer).on_collected,
            subject=COLLECTED,
            batch_messages=batch_messages,
            inbox=False,
        ),
        Subscription(RejectedEventBatch, on_rejected, subject=REJECTED),
    )
