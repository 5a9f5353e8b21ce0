# SPDX-License-Identifier: Apache-2.0
"""The one place where svc-segmentation is put together."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from chassis.bus import Bus
from chassis.clock import now
from chassis.database import Database
from chassis.rpc import Servicer
from chassis.service import Service, Worker
from dangol.segmentation.v1.segmentation_pb2_grpc import add_SegmentationServiceServicer_to_server

from svc_segmentation.consumers import Hearing, subscriptions
from svc_segmentation.jobs import Evaluator, jobs
from svc_segmentation.rpc import SegmentationRpc, SegmentationTrace
from svc_segmentation.settings import Settings
from svc_segmentation.store.personal import personal_tables
from svc_segmentation.store.retained import RetainedDays
from svc_segmentation.usecases.behaviour import Memory
from svc_segmentation.usecases.definitions import Definitions
from svc_segmentation.usecases.rulebook import Rulebook
from svc_segmentation.wire import EventReader


def build(settings: Settings, clock: Callable[[], datetime] = now) -> Service:
    """Put the service together; nothing is opened yet. `clock` says when memberships are judged."""
    database = Database(settings)
    rulebook = Rulebook()
    wake = asyncio.Event()
    definitions = Definitions(rulebook, settings.summed_properties)
    evaluator = Evaluator(database, rulebook, settings, wake, clock)
    hearing = Hearing(Memory(rulebook), EventReader(settings.summed_properties), wake)
    return Service(
        settings=settings,
        bus=Bus(settings, "svc-segmentation"),
        database=database,
        migrations=Path(__file__).parent / "migrations",
        servicers=[
            Servicer(
                "dangol.segmentation.v1.SegmentationService",
                add_SegmentationServiceServicer_to_server,
                SegmentationRpc(
                    database,
                    settings.identity(),
                    definitions,
                    rulebook,
                    clock,
                    population_batch=settings.population_batch,
                ),
            )
        ],
        subscriptions=subscriptions(hearing, settings.batch_messages),
        jobs=jobs(evaluator),
        workers=[Worker("evaluation", evaluator.run)],
        personal=[personal_tables()],
        retained=[RetainedDays()],
        trace=SegmentationTrace(database),
    )
