# SPDX-License-Identifier: Apache-2.0
"""The gRPC door of svc-feedback."""

from chassis.database import Database
from chassis.identity import IdentityKey
from chassis.pages import page_size
from dangol.feedback.v1 import feedback_pb2 as pb
from dangol.feedback.v1.feedback_pb2_grpc import FeedbackServiceServicer
from dangol.operations.v1.operations_pb2 import TraceEventRequest, TraceEventResponse
from grpc.aio import ServicerContext

from svc_feedback import usecases, wire


class FeedbackRpc(FeedbackServiceServicer):
    """Takes feedback in and gives it back understood."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def SubmitFeedback(
        self, request: pb.SubmitFeedbackRequest, context: ServicerContext
    ) -> pb.SubmitFeedbackResponse:
        """Keep one piece of feedback."""
        draft = wire.draft_from(request, self._key)
        async with self._database.transaction() as tx:
            feedback, profile_id = await usecases.submit_feedback(tx, draft)
        return pb.SubmitFeedbackResponse(feedback=wire.feedback_to_proto(feedback, profile_id))

    async def GetFeedback(self, request: pb.GetFeedbackRequest, context: ServicerContext) -> pb.GetFeedbackResponse:
        """Give one piece back."""
        async with self._database.snapshot() as tx:
            feedback, profile_id = await usecases.get_feedback(tx, request.feedback_id)
        return pb.GetFeedbackResponse(feedback=wire.feedback_to_proto(feedback, profile_id))

    async def ListFeedback(self, request: pb.ListFeedbackRequest, context: ServicerContext) -> pb.ListFeedbackResponse:
        """Give one page back, newest first."""
        choice = wire.choice_from(request, self._key)
        limit = page_size(request.page_size)
        async with self._database.snapshot() as tx:
            page = await usecases.list_feedback(tx, choice, limit)
        return wire.page_to_proto(page, limit)

    async def GetFeedbackSummary(
        self, request: pb.GetFeedbackSummaryRequest, context: ServicerContext
    ) -> pb.GetFeedbackSummaryResponse:
        """Add up."""
        span = wire.span_from(request)
        async with self._database.snapshot() as tx:
            summary = await usecases.summarise_feedback(tx, request.item_id, span)
        return wire.summary_to_proto(summary)

    async def AnalyzeText(self, request: pb.AnalyzeTextRequest, context: ServicerContext) -> pb.AnalyzeTextResponse:
        """Understand a text without keeping it."""
        language, sentiment = await usecases.analyze_text(request.text)
        return pb.AnalyzeTextResponse(language=language, sentiment=wire.sentiment_to_proto(sentiment))


class FeedbackTrace:
    """Tells what was understood of the feedback that came with an event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, request: TraceEventRequest) -> TraceEventResponse:
        """Answer the truth call."""
        async with self._database.snapshot() as tx:
            found = await usecases.feedback_of_events(tx, wire.traced_events(request))
        return TraceEventResponse(steps=[wire.trace_to_proto(feedback) for feedback, _ in found])
