# SPDX-License-Identifier: Apache-2.0
"""What svc-feedback does."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from chassis.clock import now
from chassis.database import Transaction
from chassis.errors import NotFound
from chassis.identity import ProfileId
from chassis.ids import new_id

from chassis import mapping
from svc_feedback import wire
from svc_feedback.domain import analysis
from svc_feedback.domain.feedback import Choice, Draft, Feedback, Kept, Summary, check, request_id_of
from svc_feedback.domain.sentiment import Sentiment
from svc_feedback.store import FeedbackStore

Mapping = tuple[UUID, UUID, int]


async def submit_feedback(tx: Transaction, draft: Draft) -> Kept:
    """Keep one piece of feedback and announce it; a request id that was seen before answers what was kept then."""
    check(draft)
    store = FeedbackStore(tx)
    if draft.request_id:
        earlier = await store.find_by_request(draft.request_id)
        if earlier is not None:
            return earlier
    (feedback,) = await asyncio.to_thread(_understand, [draft], now())
    if not await store.put([feedback]):
        # Somebody else kept the same request between our look and our write.
        return await store.get_by_request(draft.request_id)
    tx.publish(wire.feedback_recorded(feedback))
    return feedback, await _profile_of(tx, draft.fragment_id)


async def record_feedback(tx: Transaction, drafts: Sequence[Draft]) -> None:
    """Keep the feedback of a micro-batch of events and announce what is new."""
    if not drafts:
        return
    feedback = await asyncio.to_thread(_understand, drafts, now())
    new_ids = await FeedbackStore(tx).put(feedback)
    for piece in feedback:
        if piece.feedback_id in new_ids:
            tx.publish(wire.feedback_recorded(piece))


async def get_feedback(tx: Transaction, feedback_id: str) -> Kept:
    """Return one piece; raises `NotFound`."""
    found = await FeedbackStore(tx).find(feedback_id)
    if found is None:
        raise NotFound(f"no feedback {feedback_id}")
    return found


async def list_feedback(tx: Transaction, choice: Choice, limit: int) -> Sequence[Kept]:
    """Return a page, newest first."""
    return await FeedbackStore(tx).page(choice, limit)


async def feedback_of_events(tx: Transaction, events: Sequence[tuple[str, str]]) -> Sequence[Kept]:
    """Return the feedback that came as some events, each named by source and message id."""
    return await FeedbackStore(tx).of_requests([request_id_of(*event) for event in events])


async def summarise_feedback(tx: Transaction, item_id: str, span: tuple[datetime | None, datetime | None]) -> Summary:
    """Add up all feedback, or that about one item, inside a span of time."""
    return await FeedbackStore(tx).summary(item_id, *span)


async def analyze_text(text: str) -> tuple[str, Sentiment | None]:
    """Tell language and sentiment of a text."""
    return await asyncio.to_thread(analysis.analyze, text)


async def remap_fragments(tx: Transaction, mappings: Sequence[Mapping]) -> None:
    """Keep which profile each fragment belongs to."""
    await mapping.learn(tx, *(list(column) for column in zip(*mappings, strict=True)))


async def _profile_of(tx: Transaction, fragment_id: UUID | None) -> ProfileId | None:
    """Return whom a fragment belongs to: a fragment nobody moved is a profile of its own."""
    if fragment_id is None:
        return None
    return await mapping.profile_of(tx, fragment_id) or ProfileId(fragment_id)


def _understand(drafts: Sequence[Draft], received_time: datetime) -> list[Feedback]:
    """Judge language and sentiment of each draft."""
    judged = analysis.analyze_all([draft.text for draft in drafts])
    return [
        Feedback(new_id("fbk"), draft, language, sentiment, received_time)
        for draft, (language, sentiment) in zip(drafts, judged, strict=True)
    ]
