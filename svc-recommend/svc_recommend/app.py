# SPDX-License-Identifier: Apache-2.0
"""The one place where svc-recommend is put together."""

from pathlib import Path

from chassis.bus import Bus
from chassis.database import Database
from chassis.rpc import Servicer
from chassis.service import Service, Worker
from dangol.recommend.v1.recommend_pb2_grpc import add_RecommendServiceServicer_to_server

from svc_recommend.consumers import subscriptions
from svc_recommend.domain.ranking import Taste
from svc_recommend.jobs import jobs
from svc_recommend.rpc import RecommendRpc, RecommendTrace
from svc_recommend.settings import Settings
from svc_recommend.store.personal import personal_tables
from svc_recommend.store.retained import RetainedInteractions
from svc_recommend.usecases.recommending import ShelfKeeper
from svc_recommend.usecases.refreshing import Refresher


def build(settings: Settings) -> Service:
    """Put the service together; nothing is opened yet."""
    database = Database(settings)
    key = settings.identity()
    keeper = ShelfKeeper(database)
    # A process that both refreshes and answers need not wait until it looks by itself.
    refresher = Refresher(database, settings.parameters(), settings.limits(), on_put=keeper.wake)
    return Service(
        settings=settings,
        bus=Bus(settings, "svc-recommend"),
        database=database,
        migrations=Path(__file__).parent / "migrations",
        servicers=[
            Servicer(
                "dangol.recommend.v1.RecommendService",
                add_RecommendServiceServicer_to_server,
                RecommendRpc(database, key, keeper, Taste()),
            )
        ],
        subscriptions=subscriptions(settings.weights(), settings.batch_messages),
        jobs=jobs(refresher),
        workers=[Worker("shelf", keeper.run, role="rpc")],
        checks=[keeper.check],
        personal=[personal_tables()],
        retained=[RetainedInteractions(settings.weights())],
        trace=RecommendTrace(database, settings.weights()),
    )
