# SPDX-License-Identifier: Apache-2.0
"""What svc-profile answers."""

from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile import usecases, wire
from svc_profile.store.rejected import Filter


class ProfileRpc(ProfileServiceServicer):
    """Reads profiles and what was learnt about identity."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def GetProfile(self, request: pb.GetProfileRequest, context: ServicerContext) -> pb.GetProfileResponse:
        """Return one customer."""
        fragment = self._key.resolve(request.profile).bytes
        async with self._database.snapshot() as tx:
            profile = await usecases.get_profile(tx, fragment)
        return pb.GetProfileResponse(profile=wire.profile_to_proto(profile))

    async def ListIdentityConflicts(
        self, request: pb.ListIdentityConflictsRequest, context: ServicerContext
    ) -> pb.ListIdentityConflictsResponse:
        """Return links that were refused."""
        size = pages.page_size(request.page_size)
        of = self._key.resolve(request.profile).bytes if request.profile else None
        before = wire.conflict_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            conflicts = await usecases.list_conflicts(tx, of=of, before=before, most=size + 1)
        page, more = conflicts[:size], conflicts[size:]
        return pb.ListIdentityConflictsResponse(
            conflicts=[wire.conflict_to_proto(conflict) for conflict in page],
            next_page_token=pages.encode_token(wire.position_of_conflict(page[-1])) if more else "",
        )

    async def ListRejectedEvents(
        self, request: pb.ListRejectedEventsRequest, context: ServicerContext
    ) -> pb.ListRejectedEventsResponse:
        """Return events that were not taken."""
        size = pages.page_size(request.page_size)
        wanted = Filter(request.message_id, request.reason, request.source)
        before = wire.rejected_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            rejected = await usecases.list_rejected(tx, wanted, before=before, most=size + 1)
        page, more = rejected[:size], rejected[size:]
        return pb.ListRejectedEventsResponse(
            rejected_events=[wire.rejected_to_proto(event) for _, event in page],
            next_page_token=pages.encode_token(wire.position_of_rejected(page[-1][0])) if more else "",
        )
