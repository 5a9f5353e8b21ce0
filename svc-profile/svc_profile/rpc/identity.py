# SPDX-License-Identifier: Apache-2.0
"""Why a customer is one person."""

from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.profile.v1 import identity_pb2 as pb
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.usecases.conflicts import list_conflicts
from svc_profile.wire.identity import conflict_position, conflict_to_proto, position_of_conflict


class IdentityRpc(IdentityServiceServicer):
    """Reads what was learnt about identity."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

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
        return pb.ListIdentityConflictsResponse(
            conflicts=[conflict_to_proto(conflict) for conflict in page],
            next_page_token=pages.encode_token(position_of_conflict(page[-1])) if more else "",
        )
