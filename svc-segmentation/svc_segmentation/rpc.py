# SPDX-License-Identifier: Apache-2.0
"""What svc-segmentation answers."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from chassis.calls import tell_of
from chassis.clock import from_timestamp, to_us
from chassis.consent import impersonal
from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.operations.v1.operations_pb2 import TraceEventRequest, TraceEventResponse
from dangol.segmentation.v1 import segmentation_pb2 as pb
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_segmentation import wire
from svc_segmentation.domain.segments import Draft
from svc_segmentation.usecases import definitions, evaluation, memberships
from svc_segmentation.usecases.definitions import Definitions
from svc_segmentation.usecases.placing import preview_memberships
from svc_segmentation.usecases.rulebook import Rulebook


class SegmentationRpc(SegmentationServiceServicer):
    """Keeps segments: rules whose membership follows what customers do."""

    def __init__(
        self,
        database: Database,
        key: IdentityKey,
        kept: Definitions,
        rulebook: Rulebook,
        clock: Callable[[], datetime],
        *,
        population_batch: int,
    ) -> None:
        self._database = database
        self._key = key
        self._definitions = kept
        self._rulebook = rulebook
        self._clock = clock
        self._population_batch = population_batch

    async def CreateSegment(
        self, request: pb.CreateSegmentRequest, context: ServicerContext
    ) -> pb.CreateSegmentResponse:
        """Keep a new segment and ask the whole population."""
        wanted = request.segment
        draft = Draft(name=wanted.name, description=wanted.description, rule=wanted.rule)
        async with self._database.transaction() as tx:
            segment = await self._definitions.create(tx, draft, request_id=request.request_id, now=self._clock())
        return pb.CreateSegmentResponse(segment=await self._evaluated(segment.segment_id))

    async def UpdateSegment(
        self, request: pb.UpdateSegmentRequest, context: ServicerContext
    ) -> pb.UpdateSegmentResponse:
        """Change a segment and ask the whole population."""
        wanted = wire.draft(request)
        async with self._database.transaction() as tx:
            segment = await self._definitions.update(tx, request.segment.segment_id, wanted, now=self._clock())
        return pb.UpdateSegmentResponse(segment=await self._evaluated(segment.segment_id))

    async def _evaluated(self, segment_id: str) -> pb.Segment:
        await evaluation.evaluate_if_new(
            self._database, self._rulebook, segment_id, now=self._clock(), most=self._population_batch
        )
        async with self._database.snapshot() as tx:
            return wire.segment_to_proto(await definitions.get(tx, segment_id))

    async def GetSegment(self, request: pb.GetSegmentRequest, context: ServicerContext) -> pb.GetSegmentResponse:
        """Return one segment."""
        async with self._database.snapshot() as tx:
            segment = await definitions.get(tx, request.segment_id)
        return pb.GetSegmentResponse(segment=wire.segment_to_proto(segment))

    async def ListSegments(self, request: pb.ListSegmentsRequest, context: ServicerContext) -> pb.ListSegmentsResponse:
        """Return segments by name."""
        size = pages.page_size(request.page_size)
        after = wire.name_position(request.page_token)
        async with self._database.snapshot() as tx:
            found = await definitions.page(tx, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListSegmentsResponse(
            segments=[wire.segment_to_proto(segment) for segment in page],
            next_page_token=wire.after_name(page[-1]) if more else "",
        )

    async def DeleteSegment(
        self, request: pb.DeleteSegmentRequest, context: ServicerContext
    ) -> pb.DeleteSegmentResponse:
        """Forget a segment."""
        async with self._database.transaction() as tx:
            await self._definitions.delete(tx, request.segment_id)
        return pb.DeleteSegmentResponse()

    async def PreviewSegment(
        self, request: pb.PreviewSegmentRequest, context: ServicerContext
    ) -> pb.PreviewSegmentResponse:
        """Say what a rule gives."""
        async with self._database.snapshot() as tx:
            preview = await self._definitions.preview(
                tx, request.rule, sample_size=request.sample_size, now_us=to_us(self._clock())
            )
        return wire.preview_to_proto(preview)

    async def PreviewMemberships(
        self, request: pb.PreviewMembershipsRequest, context: ServicerContext
    ) -> pb.PreviewMembershipsResponse:
        """Say which segments customers would be in if they were made of other fragments."""
        placements = wire.read_placements(request)
        async with self._database.rehearsal() as tx:
            found = await preview_memberships(tx, self._rulebook, placements, now=self._clock())
        tell_of(found)
        return pb.PreviewMembershipsResponse(
            profiles=[wire.previewed_to_proto(profile_id, segments) for profile_id, segments in found.items()]
        )

    async def ListSegmentMembers(
        self, request: pb.ListSegmentMembersRequest, context: ServicerContext
    ) -> pb.ListSegmentMembersResponse:
        """Return members by profile id."""
        size = pages.page_size(request.page_size)
        after = wire.profile_position(request.page_token)
        async with self._database.snapshot() as tx:
            found = await memberships.members(tx, request.segment_id, after=after, most=size + 1)
            page, more = found[:size], found[size:]
            members = await memberships.with_consent(tx, page)
        return pb.ListSegmentMembersResponse(
            members=[wire.member_to_proto(member) for member in members],
            next_page_token=wire.after_profile(page[-1]) if more else "",
        )

    async def ListProfileSegments(
        self, request: pb.ListProfileSegmentsRequest, context: ServicerContext
    ) -> pb.ListProfileSegmentsResponse:
        """Return what a customer is in."""
        fragment_id = self._key.resolve(request.profile)
        async with self._database.snapshot() as tx:
            profile_id, found = await memberships.of_profile(tx, fragment_id, is_impersonal=impersonal())
        return wire.profile_segments(profile_id, found)


class SegmentationTrace:
    """Tells which segments a customer entered and left shortly after an event."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, request: TraceEventRequest) -> TraceEventResponse:
        """Answer the truth call; of an event that svc-profile does not know, nothing is known here."""
        events = [event for event in request.events if len(event.fragment_id) == 16]
        after = [(UUID(bytes=event.fragment_id), from_timestamp(event.received_time)) for event in events]
        async with self._database.snapshot() as tx:
            changes = await memberships.changes_after(tx, after)
        return TraceEventResponse(steps=[wire.trace_to_proto(events[number], change) for number, change in changes])
