# SPDX-License-Identifier: Apache-2.0
"""Retention: days of events are forgotten, and with them the memberships that rested on them."""

import asyncio

from chassis.retention.enforcing import Retention
from chassis.testing import Engines, running
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1 import retention_pb2 as pb
from dangol.segmentation.v1 import segmentation_pb2
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

from .test_privacy import events_of, rows


async def test_a_customer_whose_orders_are_forgotten_leaves_the_segment_of_buyers(engines: Engines) -> None:
    """A name with a rule of its own stays, and so does whoever is younger than the limit."""
    async with running(build, Settings, engines) as service:
        segment = segmentation_pb2.Segment(name="buyers", rule="count('Order Completed') >= 1")
        stub = service.stub(SegmentationServiceStub)
        await stub.CreateSegment(segmentation_pb2.CreateSegmentRequest(segment=segment))
        kim = events_of("kim", 1)
        for event in kim:
            event.time_us = 1_500_000_000_000_000
        await service.deliver(EventBatch(events=[*kim, *events_of("lee", 1)]), subject="events.resolved.0")
        while await rows(service, "memberships") < 2:
            await asyncio.sleep(0.05)
        rules = [
            pb.RetentionRule(rule_id="all", event="*", days=2800, action=pb.RETENTION_ACTION_ANONYMISE),
            pb.RetentionRule(rule_id="login", event="identify", days=36_500, action=pb.RETENTION_ACTION_DESTROY),
        ]
        await service.deliver(pb.RetentionRulesChanged(retention_rules=rules, revision=2))
        await service.deliver(pb.RetentionRulesChanged(retention_rules=[], revision=1))
        await Retention(service.database, service.service.retained).run()
        assert await rows(service, "event_days") == 3
        async with asyncio.timeout(60):
            while await rows(service, "memberships") > 1:
                await asyncio.sleep(0.05)
