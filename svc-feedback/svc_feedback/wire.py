# SPDX-License-Identifier: Apache-2.0
"""Translate between the contract and the domain."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from chassis.clock import from_timestamp, from_us, now, to_timestamp
from chassis.errors import Invalid
from chassis.events import json_object
from chassis.identity import IdentityKey, ProfileId, format_profile_id
from chassis.pages import decode_token, encode_token
from dangol.events.v1.events_pb2 import EventBatch, EventType
from dangol.feedback.v1 import feedback_pb2 as pb
from dangol.operations.v1.operations_pb2 import TRACE_PHASE_FEEDBACK, TracedFeedback, TraceEventRequest, TraceStep
from dangol.profile.v1.identity_pb2 import FragmentMapping

from svc_feedback.domain.feedback import EVENT_NAMES, Choice, Draft, Feedback, Kept, Kind, Summary, read_event
from svc_feedback.domain.sentiment import Sentiment

_TRACK = EventType.EVENT_TYPE_TRACK
_SOURCE_API = "api"


def draft_from(request: pb.SubmitFeedbackRequest, key: IdentityKey) -> Draft:
    """Read what a caller gives; raises `Invalid` when the profile is no reference."""
    given = request.feedback
    return Draft(
        kind=Kind(given.kind),
        fragment_id=key.resolve(given.profile) if given.profile else None,
        rating=given.rating if given.HasField("rating") else None,
        text=given.text.replace("\x00", ""),
        item_id=given.item_id,
        feedback_time=from_timestamp(given.feedback_time) if given.HasField("feedback_time") else now(),
        source=_SOURCE_API,
        request_id=f"request:{request.request_id}" if request.request_id else "",
    )


def drafts_in(batch: EventBatch) -> Iterator[Draft]:
    """Find the feedback among events."""
    for event in batch.events:
        if event.type == _TRACK and event.name in EVENT_NAMES:
            draft = read_event(
                event.name,
                json_object(event.properties),
                fragment_id=UUID(bytes=event.fragment_id),
                feedback_time=from_us(event.time_us),
                source=event.source,
                message_id=event.message_id,
            )
            if draft is not None:
                yield draft


def mapping_from(mapping: FragmentMapping) -> tuple[UUID, UUID, int]:
    """Read where a fragment belongs: fragment, profile, revision."""
    return UUID(bytes=mapping.fragment_id), UUID(bytes=mapping.profile_id), mapping.revision


def choice_from(request: pb.ListFeedbackRequest, key: IdentityKey) -> Choice:
    """Read which feedback a caller wants."""
    position = decode_token(request.page_token)
    try:
        before = datetime.fromisoformat(position["time"]) if position else None
        before_id = str(position["id"]) if position else ""
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid.field("page_token", "must be the next_page_token of an earlier answer") from error
    return Choice(
        fragment_id=key.resolve(request.profile) if request.profile else None,
        item_id=request.item_id,
        kind=request.kind,
        sentiment=request.sentiment,
        before_time=before,
        before_id=before_id,
    )


def span_from(request: pb.GetFeedbackSummaryRequest) -> tuple[datetime | None, datetime | None]:
    """Read a span of time; raises `Invalid` when it ends before it starts."""
    start = from_timestamp(request.start_time) if request.HasField("start_time") else None
    end = from_timestamp(request.end_time) if request.HasField("end_time") else None
    if start and end and end <= start:
        raise Invalid.field("end_time", "must be after start_time")
    return start, end


def traced_events(request: TraceEventRequest) -> list[tuple[str, str]]:
    """Read which events are asked about: source and message id of each."""
    sources = {event.source for event in request.events} | ({request.source} if request.source else set())
    return [(source, request.message_id) for source in sorted(sources)]


def trace_to_proto(feedback: Feedback) -> TraceStep:
    """Write what was understood of the feedback that came with an event."""
    sentiment = feedback.sentiment
    return TraceStep(
        source=feedback.draft.source,
        phase=TRACE_PHASE_FEEDBACK,
        outcome="ANALYSED",
        time=to_timestamp(feedback.received_time),
        detail=f"{feedback.draft.kind.name.lower()} {'with' if feedback.draft.text else 'without'} a text",
        feedback=TracedFeedback(
            feedback_id=feedback.feedback_id,
            language=feedback.language,
            sentiment=sentiment.label.name if sentiment else "",
        ),
    )


def feedback_to_proto(feedback: Feedback, profile_id: ProfileId | None) -> pb.Feedback:
    """Write feedback."""
    draft = feedback.draft
    return pb.Feedback(
        feedback_id=feedback.feedback_id,
        profile=format_profile_id(profile_id) if profile_id else "",
        kind=pb.FeedbackKind.ValueType(draft.kind),
        rating=draft.rating,
        text=draft.text,
        item_id=draft.item_id,
        language=feedback.language,
        sentiment=sentiment_to_proto(feedback.sentiment),
        feedback_time=to_timestamp(draft.feedback_time),
        received_time=to_timestamp(feedback.received_time),
        source=draft.source,
    )


def page_to_proto(page: Sequence[Kept], limit: int) -> pb.ListFeedbackResponse:
    """Write a page; a full one says where the next starts."""
    token = ""
    if len(page) == limit:
        last = page[-1][0]
        token = encode_token({"time": last.draft.feedback_time.isoformat(), "id": last.feedback_id})
    return pb.ListFeedbackResponse(feedback=[feedback_to_proto(*kept) for kept in page], next_page_token=token)


def sentiment_to_proto(sentiment: Sentiment | None) -> pb.Sentiment | None:
    """Write a sentiment."""
    if sentiment is None:
        return None
    return pb.Sentiment(
        label=pb.SentimentLabel.ValueType(sentiment.label),
        probability=sentiment.probability,
        negative_probability=sentiment.negative,
        neutral_probability=sentiment.neutral,
        positive_probability=sentiment.positive,
        terms=[pb.SentimentTerm(text=term.text, weight=term.weight) for term in sentiment.terms],
        model=sentiment.model,
    )


def summary_to_proto(summary: Summary) -> pb.GetFeedbackSummaryResponse:
    """Write a summary."""
    nps = summary.nps
    return pb.GetFeedbackSummaryResponse(
        count=summary.count,
        negative_count=summary.negative_count,
        neutral_count=summary.neutral_count,
        positive_count=summary.positive_count,
        rating_count=summary.rating_count,
        rating_mean=summary.rating_mean,
        nps_count=summary.promoter_count + summary.passive_count + summary.detractor_count,
        nps=nps.score if nps else None,
        nps_low=nps.low if nps else None,
        nps_high=nps.high if nps else None,
    )


def feedback_recorded(feedback: Feedback) -> pb.FeedbackRecorded:
    """Write the announcement of feedback."""
    draft, sentiment = feedback.draft, feedback.sentiment
    return pb.FeedbackRecorded(
        feedback_id=feedback.feedback_id,
        fragment_id=draft.fragment_id.bytes if draft.fragment_id else b"",
        kind=pb.FeedbackKind.ValueType(draft.kind),
        rating=draft.rating,
        item_id=draft.item_id,
        language=feedback.language,
        sentiment=pb.SentimentLabel.ValueType(sentiment.label if sentiment else 0),
        sentiment_probability=sentiment.probability if sentiment else 0,
        feedback_time=to_timestamp(draft.feedback_time),
    )
