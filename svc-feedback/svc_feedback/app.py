# SPDX-License-Identifier: Apache-2.0
"""Wire svc-feedback together."""

from pathlib import Path

from chassis.bus import Bus
from chassis.database import Database
from chassis.rpc import Servicer
from chassis.service import Service
from dangol.feedback.v1.feedback_pb2_grpc import add_FeedbackServiceServicer_to_server

from svc_feedback.consumers import subscriptions
from svc_feedback.rpc import FeedbackRpc, FeedbackTrace
from svc_feedback.settings import Settings
from svc_feedback.store import PERSONAL_TABLES, RetainedFeedback


def build(settings: Settings) -> Service:
    """Make the service; opens nothing."""
    database = Database(settings)
    rpc = FeedbackRpc(database, settings.identity())
    return Service(
        settings=settings,
        bus=Bus(settings, "svc-feedback"),
        database=database,
        migrations=Path(__file__).parent / "migrations",
        servicers=[
            Servicer("dangol.feedback.v1.FeedbackService", add_FeedbackServiceServicer_to_server, rpc),
        ],
        subscriptions=subscriptions(),
        personal=[PERSONAL_TABLES],
        retained=[RetainedFeedback()],
        trace=FeedbackTrace(database),
    )
