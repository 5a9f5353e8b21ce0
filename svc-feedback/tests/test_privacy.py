# SPDX-License-Identifier: Apache-2.0
"""Data subjects: feedback is erased and exported."""

import msgspec
from chassis.identity import Identifier, IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, running
from dangol.feedback.v1 import feedback_pb2
from dangol.feedback.v1.feedback_pb2_grpc import FeedbackServiceStub
from dangol.profile.v1 import privacy_pb2 as pb
from svc_feedback.app import build
from svc_feedback.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))


async def test_feedback_is_exported_then_erased_and_that_of_others_stays(engines: Engines) -> None:
    async with running(build, Settings, engines) as service:
        assert await service.undeclared_tables() == set()
        stub = service.stub(FeedbackServiceStub)
        for user in ("kim", "lee"):
            await stub.SubmitFeedback(
                feedback_pb2.SubmitFeedbackRequest(
                    feedback=feedback_pb2.Feedback(
                        profile=f"user_id:{user}",
                        kind=feedback_pb2.FEEDBACK_KIND_COMMENT,
                        text=f"{user}@example.com 배송이 빨라요",
                    )
                )
            )
        asked = {"data_request_id": "dsr_1", "fragment_ids": [KEY.fragment_id(Identifier("user_id", "kim")).bytes]}
        await service.deliver(pb.ExportRequested(**asked))  # type: ignore[arg-type]
        parts = await service.published(pb.ExportPart)
        (row,) = [
            msgspec.json.decode(line) for part in parts if part.file == "feedback" for line in part.rows.splitlines()
        ]
        assert row["text"] == "kim@example.com 배송이 빨라요"
        await service.deliver(pb.ErasureRequested(**asked, round=1))  # type: ignore[arg-type]
        await service.deliver(pb.ProbeRequested(**asked, round=1, values=["kim@example.com"]))  # type: ignore[arg-type]
        (probe,) = await service.published(pb.ProbeReported)
        assert list(probe.leftovers) == []
        left = await stub.ListFeedback(feedback_pb2.ListFeedbackRequest())
        assert ["lee" in piece.text for piece in left.feedback] == [True]
