# SPDX-License-Identifier: Apache-2.0
"""The RPCs that every service answers alike: dead letters, who read what, and what became of an event."""

from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import (
    AccessLogServiceServicer,
    DeadLetterServiceServicer,
    TraceServiceServicer,
    add_AccessLogServiceServicer_to_server,
    add_DeadLetterServiceServicer_to_server,
    add_TraceServiceServicer_to_server,
)
from dangol.operations.v1.retention_pb2_grpc import (
    RetentionReportServiceServicer,
    add_RetentionReportServiceServicer_to_server,
)
from dangol.options.v1 import options_pb2
from grpc.aio import ServicerContext

from chassis import dead_letters
from chassis.accesses import Access, Wanted, list_accesses
from chassis.bus import Bus
from chassis.clock import from_timestamp, to_timestamp
from chassis.database import Database
from chassis.errors import Invalid
from chassis.identity import format_profile_id
from chassis.pages import decode_token, encode_token, page_size
from chassis.rpc import Servicer
from chassis.settings import ServiceSettings
from chassis.trace import letter_to_proto


class DeadLetterRpc(DeadLetterServiceServicer):
    """Lists and replays what consumers gave up on."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: ServicerContext
    ) -> pb.ListDeadLettersResponse:
        """Answer one page, oldest first."""
        limit = page_size(request.page_size)
        after = decode_token(request.page_token).get("after", 0)
        if not isinstance(after, int):
            raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
        letters = await dead_letters.list_dead_letters(self._bus, consumer=request.consumer, after=after, limit=limit)
        full = len(letters) == limit
        return pb.ListDeadLettersResponse(
            dead_letters=[letter_to_proto(letter) for letter in letters],
            next_page_token=encode_token({"after": letters[-1].dead_letter_id}) if full else "",
        )

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: ServicerContext
    ) -> pb.ReplayDeadLettersResponse:
        """Hand letters to their consumer again."""
        count = await dead_letters.replay(self._bus, request.dead_letter_ids)
        return pb.ReplayDeadLettersResponse(replayed_count=count)

    async def DiscardDeadLetters(
        self, request: pb.DiscardDeadLettersRequest, context: ServicerContext
    ) -> pb.DiscardDeadLettersResponse:
        """Delete letters for good."""
        count = await dead_letters.discard(self._bus, request.dead_letter_ids)
        return pb.DiscardDeadLettersResponse(discarded_count=count)


class AccessLogRpc(AccessLogServiceServicer):
    """Tells who read what about whom in this service."""

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def ListAccesses(self, request: pb.ListAccessesRequest, context: ServicerContext) -> pb.ListAccessesResponse:
        """Answer one page, newest first."""
        limit = page_size(request.page_size)
        before = decode_token(request.page_token).get("before")
        if before is not None and not isinstance(before, int):
            raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
        async with self._database.snapshot() as tx:
            accesses = await list_accesses(tx, self._wanted(request), before=before, most=limit + 1)
        page, more = accesses[:limit], accesses[limit:]
        return pb.ListAccessesResponse(
            accesses=[_access_to_proto(self._settings.service, access) for access in page],
            next_page_token=encode_token({"before": page[-1].access_id}) if more else "",
        )

    def _wanted(self, request: pb.ListAccessesRequest) -> Wanted:
        key = self._settings.identity()
        return Wanted(
            fragment_id=key.resolve(request.profile) if request.profile else None,
            caller=request.caller,
            start=from_timestamp(request.start_time) if request.HasField("start_time") else None,
            end=from_timestamp(request.end_time) if request.HasField("end_time") else None,
        )


def operations_servicers(
    settings: ServiceSettings,
    bus: Bus,
    database: Database,
    trace: TraceServiceServicer,
    retention: RetentionReportServiceServicer,
) -> list[Servicer]:
    """Return what every server answers besides its service's own methods."""
    return [
        Servicer("dangol.operations.v1.DeadLetterService", add_DeadLetterServiceServicer_to_server, DeadLetterRpc(bus)),
        Servicer(
            "dangol.operations.v1.AccessLogService",
            add_AccessLogServiceServicer_to_server,
            AccessLogRpc(settings, database),
        ),
        Servicer("dangol.operations.v1.TraceService", add_TraceServiceServicer_to_server, trace),
        Servicer(
            "dangol.operations.v1.RetentionReportService", add_RetentionReportServiceServicer_to_server, retention
        ),
    ]


def _access_to_proto(service: str, access: Access) -> pb.Access:
    message = pb.Access(
        service=service,
        access_id=access.access_id,
        caller=access.caller,
        method=access.method,
        purpose=options_pb2.Purpose.ValueType(access.purpose),
        profile_id=format_profile_id(access.fragment_id) if access.fragment_id else "",
        outcome=pb.AccessOutcome.ValueType(access.outcome),
        trace_id=access.trace_id,
    )
    if access.access_time is not None:
        message.access_time.CopyFrom(to_timestamp(access.access_time))
    return message
