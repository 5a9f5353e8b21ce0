# SPDX-License-Identifier: Apache-2.0
"""Retention: what was said is destroyed, how good it was may stay."""

from datetime import datetime
from typing import TypeAlias

import pytest
from chassis.clock import to_timestamp
from chassis.retention.enforcing import Retention
from chassis.testing import Engines, RunningService, running
from dangol.feedback.v1 import feedback_pb2
from dangol.feedback.v1.feedback_pb2_grpc import FeedbackServiceStub
from dangol.operations.v1 import retention_pb2 as report_pb
from dangol.operations.v1.retention_pb2_grpc import RetentionReportServiceStub
from dangol.profile.v1 import retention_pb2 as pb
from svc_feedback.app import build
from svc_feedback.settings import Settings

Action: TypeAlias = pb.RetentionAction.ValueType
OLD = datetime.fromisoformat("2020-01-01T00:00:00+00:00")


async def filled(service: RunningService) -> None:
    """Let a customer say something long ago, and something now."""
    for when in (OLD, None):
        piece = feedback_pb2.Feedback(
            profile="user_id:kim",
            kind=feedback_pb2.FEEDBACK_KIND_REVIEW,
            rating=5,
            item_id="a",
            text="배송이 빨라요 kim@example.com",
        )
        if when:
            piece.feedback_time.CopyFrom(to_timestamp(when))
        await service.stub(FeedbackServiceStub).SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(feedback=piece))


async def enforced(service: RunningService, event: str, action: Action) -> list[feedback_pb2.Feedback]:
    """Let a rule be enforced, and return what is left."""
    rule = pb.RetentionRule(rule_id="r", event=event, days=400, action=action)
    await service.deliver(pb.RetentionRulesChanged(retention_rules=[rule], revision=1))
    await Retention(service.database, service.service.retained).run()
    answer = await service.stub(FeedbackServiceStub).ListFeedback(feedback_pb2.ListFeedbackRequest())
    return list(answer.feedback)


async def test_an_anonymised_review_keeps_its_rating_and_its_sentiment(engines: Engines) -> None:
    """The summary of the item is what it was; nobody knows who said what."""
    async with running(build, Settings, engines) as service:
        await filled(service)
        stub = service.stub(FeedbackServiceStub)
        before = await stub.GetFeedbackSummary(feedback_pb2.GetFeedbackSummaryRequest(item_id="a"))
        new, old = await enforced(service, "Product Reviewed", pb.RETENTION_ACTION_ANONYMISE)
        assert (new.text, old.text) == ("배송이 빨라요 kim@example.com", "")
        assert (old.rating, old.profile, list(old.sentiment.terms)) == (5, "", [])
        assert old.sentiment.label == new.sentiment.label
        assert await stub.GetFeedbackSummary(feedback_pb2.GetFeedbackSummaryRequest(item_id="a")) == before
        runs = await service.stub(RetentionReportServiceStub).ListRetentionRuns(report_pb.ListRetentionRunsRequest())
        assert [(run.table, run.touched_count) for run in runs.runs] == [("feedback", 1)]


@pytest.mark.parametrize(("event", "left"), [("*", 1), ("NPS Answered", 2)])
async def test_destroyed_feedback_is_gone_and_that_of_other_events_stays(
    engines: Engines, event: str, left: int
) -> None:
    async with running(build, Settings, engines) as service:
        await filled(service)
        assert len(await enforced(service, event, pb.RETENTION_ACTION_DESTROY)) == left
