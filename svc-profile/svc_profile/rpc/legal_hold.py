# SPDX-License-Identifier: Apache-2.0
"""Records on legal hold."""

from chassis.database import Database
from dangol.profile.v1 import legal_hold_pb2 as pb
from dangol.profile.v1.legal_hold_pb2_grpc import LegalHoldServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.usecases.holding import list_held
from svc_profile.wire.legal_hold import held_position, record_to_proto


class LegalHoldRpc(LegalHoldServiceServicer):
    """Shows what is on hold."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ListHeldRecords(
        self, request: pb.ListHeldRecordsRequest, context: ServicerContext
    ) -> pb.ListHeldRecordsResponse:
        """Return records on hold."""
        size = pages.page_size(request.page_size)
        before = held_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await list_held(tx, request.data_request_id, before=before, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListHeldRecordsResponse(
            records=[record_to_proto(record) for record in page],
            next_page_token=pages.encode_token({"before": page[-1].record_id}) if more else "",
        )
