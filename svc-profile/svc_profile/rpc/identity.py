# SPDX-License-Identifier: Apache-2.0
"""Why a customer is one person, and what people decide about it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from chassis.calls import current_caller, tell_of
from chassis.database import Database, Transaction
from chassis.errors import Invalid
from chassis.identity import IdentityKey
from dangol.profile.v1 import identity_pb2 as pb
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceServicer
from grpc.aio import ServicerContext

from chassis import clock, pages
from svc_profile.domain.decisions import Note
from svc_profile.domain.events import FragmentKey
from svc_profile.usecases.conflicts import list_conflicts
from svc_profile.usecases.deciding import Bounds, merge_profiles, resolve_conflict, split_profile
from svc_profile.usecases.explaining import explain_profile, list_decisions
from svc_profile.wire.decisions import (
    change_to_proto,
    decision_position,
    decision_to_proto,
    explanation_to_proto,
    placements_to_proto,
    position_of_decision,
    read_resolution,
)
from svc_profile.wire.identity import conflict_position, conflict_to_proto, position_of_conflict, read_conflict_id


class IdentityRpc(IdentityServiceServicer):
    """Explains identity and takes decisions about it."""

    def __init__(self, database: Database, key: IdentityKey, max_fragments: int) -> None:
        self._database = database
        self._key = key
        self._bounds = Bounds(key.types, max_fragments)

    async def MergeProfiles(
        self, request: pb.MergeProfilesRequest, context: ServicerContext
    ) -> pb.MergeProfilesResponse:
        """Make customers one."""
        keep, absorb = self._key.resolve(request.profile).bytes, self._named("absorb", request.absorb)
        async with self._deciding(request.dry_run) as tx:
            decided = await merge_profiles(tx, self._bounds, _note(request.reason), keep=keep, absorb=absorb)
        tell_of(UUID(bytes=fragment) for fragment in absorb)
        return pb.MergeProfilesResponse(
            change=change_to_proto(decided), placements=placements_to_proto(decided, request.dry_run)
        )

    async def SplitProfile(self, request: pb.SplitProfileRequest, context: ServicerContext) -> pb.SplitProfileResponse:
        """Make one customer two."""
        of, chosen = self._key.resolve(request.profile).bytes, self._named("identifiers", request.identifiers)
        async with self._deciding(request.dry_run) as tx:
            decided = await split_profile(tx, self._bounds, _note(request.reason), of=of, chosen=chosen)
        return pb.SplitProfileResponse(
            change=change_to_proto(decided), placements=placements_to_proto(decided, request.dry_run)
        )

    async def ResolveIdentityConflict(
        self, request: pb.ResolveIdentityConflictRequest, context: ServicerContext
    ) -> pb.ResolveIdentityConflictResponse:
        """Decide about a conflict."""
        pair, resolution = read_conflict_id(request.conflict_id), read_resolution(request.resolution)
        async with self._deciding(request.dry_run) as tx:
            decided = await resolve_conflict(tx, self._bounds, _note(request.reason), pair=pair, resolution=resolution)
        tell_of(UUID(bytes=fragment) for fragment in pair)
        return pb.ResolveIdentityConflictResponse(
            change=change_to_proto(decided), placements=placements_to_proto(decided, request.dry_run)
        )

    async def ExplainProfile(
        self, request: pb.ExplainProfileRequest, context: ServicerContext
    ) -> pb.ExplainProfileResponse:
        """Say why a customer is one person."""
        fragment, ends = self._key.resolve(request.profile).bytes, self._ends(request)
        async with self._database.snapshot() as tx:
            explanation = await explain_profile(tx, fragment, ends)
        return explanation_to_proto(explanation)

    async def ListIdentityConflicts(
        self, request: pb.ListIdentityConflictsRequest, context: ServicerContext
    ) -> pb.ListIdentityConflictsResponse:
        """Return links that were refused."""
        size = pages.page_size(request.page_size)
        of = self._key.resolve(request.profile).bytes if request.profile else None
        before = conflict_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            conflicts = await list_conflicts(tx, of=of, before=before, most=size + 1)
        page, more = conflicts[:size], conflicts[size:]
        if of is None:
            tell_of(UUID(bytes=fragment) for conflict in page for fragment in conflict.pair)
        return pb.ListIdentityConflictsResponse(
            conflicts=[conflict_to_proto(conflict) for conflict in page],
            next_page_token=pages.encode_token(position_of_conflict(page[-1])) if more else "",
        )

    async def ListIdentityDecisions(
        self, request: pb.ListIdentityDecisionsRequest, context: ServicerContext
    ) -> pb.ListIdentityDecisionsResponse:
        """Return what people decided."""
        size = pages.page_size(request.page_size)
        of = self._key.resolve(request.profile).bytes if request.profile else None
        before = decision_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            records = await list_decisions(tx, of=of, before=before, most=size + 1)
        page, more = records[:size], records[size:]
        return pb.ListIdentityDecisionsResponse(
            decisions=[decision_to_proto(record) for record in page],
            next_page_token=pages.encode_token(position_of_decision(page[-1])) if more else "",
        )

    def _named(self, field: str, references: Sequence[str]) -> list[FragmentKey]:
        """Resolve each reference; an error names its place in the list."""
        return [self._key.resolve(each, f"{field}[{place}]").bytes for place, each in enumerate(references)]

    def _ends(self, request: pb.ExplainProfileRequest) -> tuple[FragmentKey, FragmentKey] | None:
        if not request.from_identifier and not request.to_identifier:
            return None
        ends = {"from_identifier": request.from_identifier, "to_identifier": request.to_identifier}
        for field, reference in ends.items():
            if not reference:
                raise Invalid.field(field, "is required with the other end of the chain")
        start, end = (self._key.resolve(reference, field).bytes for field, reference in ends.items())
        return start, end

    @asynccontextmanager
    async def _deciding(self, dry_run: bool) -> AsyncIterator[Transaction]:
        opened = self._database.rehearsal() if dry_run else self._database.transaction()
        async with opened as tx:
            yield tx


def _note(reason: str) -> Note:
    return Note(current_caller().name, reason, clock.to_us(clock.now()))
