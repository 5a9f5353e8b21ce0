# SPDX-License-Identifier: Apache-2.0
"""What svc-metrics answers."""

from chassis.clock import now
from chassis.identity import IdentityKey
from chassis.pages import page_size
from dangol.metrics.v1 import metrics_pb2 as pb
from dangol.metrics.v1.metrics_pb2_grpc import MetricsServiceServicer
from dangol.operations.v1.operations_pb2 import TraceEventRequest, TraceEventResponse
from grpc.aio import ServicerContext

from svc_metrics import usecases, wire
from svc_metrics.domain import DayRange, FunnelQuestion
from svc_metrics.usecases import Stores


class MetricsRpc(MetricsServiceServicer):
    """Key figures, funnels, timelines, names."""

    def __init__(self, stores: Stores, identity_key: IdentityKey) -> None:
        self._stores = stores
        self._identity_key = identity_key

    async def QueryKpis(self, request: pb.QueryKpisRequest, context: ServicerContext) -> pb.QueryKpisResponse:
        """Answer key figures by day."""
        days = DayRange.of(request.start_date, request.end_date, request.time_zone, now())
        series = await usecases.query_kpis(self._stores, days, segment=request.segment, currency=request.currency)
        return wire.kpi_response(series)

    async def QueryFunnel(self, request: pb.QueryFunnelRequest, context: ServicerContext) -> pb.QueryFunnelResponse:
        """Answer a funnel."""
        days = DayRange.of(request.start_date, request.end_date, request.time_zone, now())
        question = FunnelQuestion.of([step.event for step in request.steps], request.window_seconds, days)
        return wire.funnel_response(await usecases.query_funnel(self._stores, question, segment=request.segment))

    async def ListProfileEvents(
        self, request: pb.ListProfileEventsRequest, context: ServicerContext
    ) -> pb.ListProfileEventsResponse:
        """Answer a page of what one customer did."""
        timeline = await usecases.list_profile_events(
            self._stores,
            self._identity_key.resolve(request.profile),
            before=wire.position_of(request.page_token),
            limit=page_size(request.page_size),
        )
        return wire.timeline_response(timeline)

    async def ListEventNames(
        self, request: pb.ListEventNamesRequest, context: ServicerContext
    ) -> pb.ListEventNamesResponse:
        """Answer the names that events are counted under."""
        return wire.event_names_response(await usecases.list_event_names(self._stores, page_size(request.page_size)))


class MetricsTrace:
    """Tells which rows an event has."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def __call__(self, request: TraceEventRequest) -> TraceEventResponse:
        """Answer the truth call."""
        places = wire.traced_places(request)
        rows = await usecases.rows_of_event(self._stores, request.message_id, places, request.source)
        return TraceEventResponse(steps=[wire.trace_to_proto(row) for row in rows])
