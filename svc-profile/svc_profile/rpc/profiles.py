# SPDX-License-Identifier: Apache-2.0
"""Who a customer is."""

from chassis.clock import now, to_us
from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceServicer
from grpc.aio import ServicerContext

from svc_profile.usecases.reading import read_profile
from svc_profile.wire.views import read_parts, view_to_proto


class ProfileRpc(ProfileServiceServicer):
    """Reads profiles."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def GetProfile(self, request: pb.GetProfileRequest, context: ServicerContext) -> pb.GetProfileResponse:
        """Return one customer, as far as was asked."""
        fragment, parts = self._key.resolve(request.profile).bytes, read_parts(request.read_mask)
        async with self._database.snapshot() as tx:
            view = await read_profile(tx, fragment, parts, to_us(now()))
        return pb.GetProfileResponse(profile=view_to_proto(view, parts))
