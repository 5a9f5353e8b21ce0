# SPDX-License-Identifier: Apache-2.0
"""What became of events, and what they must look like."""

from chassis.calls import current_caller
from chassis.clock import now, to_us
from chassis.database import Database
from dangol.profile.v1 import ingest_pb2 as pb
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.planning import Only, Wanted
from svc_profile.store.rejected import Filter
from svc_profile.usecases import schemas
from svc_profile.usecases.rejected import list_rejected
from svc_profile.usecases.schemas import SchemaBook
from svc_profile.usecases.tracking import get_tracked, list_tracked
from svc_profile.wire.rejected import position_of_rejected, rejected_position, rejected_to_proto, span_of
from svc_profile.wire.schemas import (
    draft_of_change,
    draft_of_new,
    name_position,
    read_struct,
    schema_to_proto,
    verdicts_to_proto,
    version_position,
)
from svc_profile.wire.tracking import tracked_to_proto


class IngestRpc(IngestServiceServicer):
    """Says what events must look like, and which were not taken."""

    def __init__(self, database: Database, book: SchemaBook) -> None:
        self._database = database
        self._book = book

    async def ListRejectedEvents(
        self, request: pb.ListRejectedEventsRequest, context: ServicerContext
    ) -> pb.ListRejectedEventsResponse:
        """Return events that were not taken."""
        size = pages.page_size(request.page_size)
        message_id, source = storable_text(request.message_id), storable_text(request.source)
        wanted = Filter(message_id, storable_text(request.reason), source, *span_of(request))
        before = rejected_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            rejected = await list_rejected(tx, wanted, before=before, most=size + 1)
        page, more = rejected[:size], rejected[size:]
        return pb.ListRejectedEventsResponse(
            rejected_events=[rejected_to_proto(event) for _, event in page],
            next_page_token=pages.encode_token(position_of_rejected(page[-1][0])) if more else "",
        )

    async def CreateEventSchema(
        self, request: pb.CreateEventSchemaRequest, context: ServicerContext
    ) -> pb.CreateEventSchemaResponse:
        """Keep a new schema."""
        draft = draft_of_new(request.event_schema)
        async with self._database.transaction() as tx:
            schema = await schemas.create_schema(tx, draft, by=current_caller().name, now_us=to_us(now()))
        await self._book.refresh()
        return pb.CreateEventSchemaResponse(event_schema=schema_to_proto(schema))

    async def UpdateEventSchema(
        self, request: pb.UpdateEventSchemaRequest, context: ServicerContext
    ) -> pb.UpdateEventSchemaResponse:
        """Change a schema."""
        draft = draft_of_change(request)
        async with self._database.transaction() as tx:
            schema = await schemas.update_schema(tx, draft, by=current_caller().name, now_us=to_us(now()))
        await self._book.refresh()
        return pb.UpdateEventSchemaResponse(event_schema=schema_to_proto(schema))

    async def DeleteEventSchema(
        self, request: pb.DeleteEventSchemaRequest, context: ServicerContext
    ) -> pb.DeleteEventSchemaResponse:
        """Delete a schema."""
        async with self._database.transaction() as tx:
            await schemas.delete_schema(tx, storable_text(request.name))
        await self._book.refresh()
        return pb.DeleteEventSchemaResponse()

    async def GetEventSchema(
        self, request: pb.GetEventSchemaRequest, context: ServicerContext
    ) -> pb.GetEventSchemaResponse:
        """Return one schema."""
        async with self._database.snapshot() as tx:
            schema = await schemas.get_schema(tx, storable_text(request.name), request.version)
        return pb.GetEventSchemaResponse(event_schema=schema_to_proto(schema))

    async def ListEventSchemas(
        self, request: pb.ListEventSchemasRequest, context: ServicerContext
    ) -> pb.ListEventSchemasResponse:
        """Return schemas by name."""
        size = pages.page_size(request.page_size)
        after = name_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await schemas.list_schemas(tx, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListEventSchemasResponse(
            event_schemas=[schema_to_proto(schema) for schema in page],
            next_page_token=pages.encode_token({"name": page[-1].name}) if more else "",
        )

    async def ListEventSchemaVersions(
        self, request: pb.ListEventSchemaVersionsRequest, context: ServicerContext
    ) -> pb.ListEventSchemaVersionsResponse:
        """Return the versions of a schema."""
        size = pages.page_size(request.page_size)
        before = version_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await schemas.list_versions(tx, storable_text(request.name), before=before, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListEventSchemaVersionsResponse(
            event_schemas=[schema_to_proto(schema) for schema in page],
            next_page_token=pages.encode_token({"version": page[-1].version}) if more else "",
        )

    async def TestEventSchema(
        self, request: pb.TestEventSchemaRequest, context: ServicerContext
    ) -> pb.TestEventSchemaResponse:
        """Hold samples against a schema."""
        schema = read_struct(request.schema) if request.HasField("schema") else None
        samples = [read_struct(sample) for sample in request.samples]
        async with self._database.snapshot() as tx:
            verdicts = await schemas.try_schema(tx, storable_text(request.name), schema, samples)
        return pb.TestEventSchemaResponse(verdicts=verdicts_to_proto(verdicts))

    async def ListTrackedEvents(
        self, request: pb.ListTrackedEventsRequest, context: ServicerContext
    ) -> pb.ListTrackedEventsResponse:
        """Return the tracking plan."""
        size = pages.page_size(request.page_size)
        wanted = Wanted(storable_text(request.source), Only(request.filter) if request.filter else None)
        after = name_position(token) if (token := pages.decode_token(request.page_token)) else None
        async with self._database.snapshot() as tx:
            found = await list_tracked(tx, wanted, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListTrackedEventsResponse(
            tracked_events=[tracked_to_proto(event, with_properties=False) for event in page],
            next_page_token=pages.encode_token({"name": page[-1].name}) if more else "",
        )

    async def GetTrackedEvent(
        self, request: pb.GetTrackedEventRequest, context: ServicerContext
    ) -> pb.GetTrackedEventResponse:
        """Return what the events of one name look like."""
        async with self._database.snapshot() as tx:
            event = await get_tracked(tx, storable_text(request.name), source=storable_text(request.source))
        return pb.GetTrackedEventResponse(tracked_event=tracked_to_proto(event, with_properties=True))
