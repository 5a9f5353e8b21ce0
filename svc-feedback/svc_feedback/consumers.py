# SPDX-License-Identifier: Apache-2.0
"""What svc-feedback hears."""

from collections.abc import Sequence

from chassis.database import Transaction
from chassis.streams import RESOLVED, Subscription
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1.identity_pb2 import FragmentsRemapped

from svc_feedback import usecases, wire


async def on_resolved(tx: Transaction, batches: Sequence[EventBatch]) -> None:
    """Keep the feedback that came as events."""
    drafts = [draft for batch in batches for draft in wire.drafts_in(batch)]
    await usecases.record_feedback(tx, drafts)


async def on_fragments_remapped(tx: Transaction, messages: Sequence[FragmentsRemapped]) -> None:
    """Follow customers into the profile that they belong to now."""
    await usecases.remap_fragments(tx, [wire.mapping_from(m) for message in messages for m in message.mappings])


def subscriptions() -> Sequence[Subscription]:
    """List them."""
    return (
        Subscription(EventBatch, on_resolved, subject=RESOLVED, batch_messages=64),
        Subscription(FragmentsRemapped, on_fragments_remapped),
    )
