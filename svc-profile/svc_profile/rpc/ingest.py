# SPDX-License-Identifier: Apache-2.0
"""What became of events."""

from chassis.database import Database
from dangol.profile.v1 import ingest_pb2 as pb
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.store.rejected import Filter
from svc_profile.usecases.rejected import list_rejected
from svc_profile.wire.rejected import position_of_rejected, rejected_position, rejected_to_proto


class IngestRpc(IngestServiceServicer):
    """Reads what became of events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListRejectedEvents(
        self, request: pb.ListRejectedEventsRequest, context: ServicerContext
    ) -> pb.ListRejectedEventsResponse:
        """Return events that were not taken."""
        size = pages.page_size(request.page_size)
        wanted = Filter(request.message_id, request.reason, request.source)
        before = rejected_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            rejected = await list_rejected(tx, wanted, before=before, most=size + 1)
        page, more = rejected[:size], rejected[size:]
        return pb.ListRejectedEventsResponse(
            rejected_events=[rejected_to_proto(event) for _, event in page],
            next_page_token=pages.encode_token(position_of_rejected(page[-1][0])) if more else "",
        )
