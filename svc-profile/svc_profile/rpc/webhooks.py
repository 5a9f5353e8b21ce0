# SPDX-License-Identifier: Apache-2.0
"""Endpoints of webhooks."""

from collections.abc import Sequence

from chassis.clock import now, to_us
from chassis.database import Database
from chassis.ids import new_id
from dangol.profile.v1 import webhooks_pb2 as pb
from dangol.profile.v1.webhooks_pb2_grpc import WebhookServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.clients import check_url
from svc_profile.domain.addresses import Network
from svc_profile.domain.webhooks import Endpoint, secret_of, written_secret
from svc_profile.usecases import webhooks
from svc_profile.wire.webhooks import (
    changes_from_proto,
    check_event_types,
    delivery_position,
    delivery_to_proto,
    endpoint_to_proto,
    position_of_delivery,
)

_FORMER_HOURS = 24


class WebhookRpc(WebhookServiceServicer):
    """Keeps endpoints, tests them, tells what became of messages."""

    def __init__(self, database: Database, key: bytes, allowed: Sequence[Network]) -> None:
        self._database = database
        self._key = key
        self._allowed = allowed

    async def CreateWebhookEndpoint(
        self, request: pb.CreateWebhookEndpointRequest, context: ServicerContext
    ) -> pb.CreateWebhookEndpointResponse:
        """Add an endpoint and show its secret."""
        wanted = request.webhook_endpoint
        check_url(wanted.url, self._allowed)
        check_event_types(wanted.event_types)
        endpoint = Endpoint(
            endpoint_id=new_id("whe"),
            url=wanted.url,
            event_types=tuple(wanted.event_types),
            description=wanted.description,
            disabled=wanted.disabled,
            disabled_reason="",
            create_time_us=to_us(now()),
        )
        async with self._database.transaction() as tx:
            await webhooks.create_endpoint(tx, endpoint)
        return pb.CreateWebhookEndpointResponse(webhook_endpoint=_written(endpoint), secret=self._secret(endpoint))

    async def GetWebhookEndpoint(
        self, request: pb.GetWebhookEndpointRequest, context: ServicerContext
    ) -> pb.GetWebhookEndpointResponse:
        """Return one endpoint."""
        async with self._database.snapshot() as tx:
            endpoint = await webhooks.get_endpoint(tx, request.endpoint_id)
        return pb.GetWebhookEndpointResponse(webhook_endpoint=_written(endpoint))

    async def ListWebhookEndpoints(
        self, request: pb.ListWebhookEndpointsRequest, context: ServicerContext
    ) -> pb.ListWebhookEndpointsResponse:
        """Return all endpoints."""
        async with self._database.snapshot() as tx:
            endpoints = await webhooks.list_endpoints(tx)
        return pb.ListWebhookEndpointsResponse(webhook_endpoints=[_written(each) for each in endpoints])

    async def UpdateWebhookEndpoint(
        self, request: pb.UpdateWebhookEndpointRequest, context: ServicerContext
    ) -> pb.UpdateWebhookEndpointResponse:
        """Change an endpoint."""
        changes = changes_from_proto(request)
        if "url" in changes:
            check_url(changes["url"], self._allowed)
        check_event_types(changes.get("event_types", ()))
        async with self._database.transaction() as tx:
            endpoint = await webhooks.update_endpoint(tx, request.webhook_endpoint.endpoint_id, changes)
        return pb.UpdateWebhookEndpointResponse(webhook_endpoint=_written(endpoint))

    async def DeleteWebhookEndpoint(
        self, request: pb.DeleteWebhookEndpointRequest, context: ServicerContext
    ) -> pb.DeleteWebhookEndpointResponse:
        """Remove an endpoint."""
        async with self._database.transaction() as tx:
            await webhooks.delete_endpoint(tx, request.endpoint_id)
        return pb.DeleteWebhookEndpointResponse()

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: ServicerContext
    ) -> pb.RotateWebhookSecretResponse:
        """Change the secret and show the new one."""
        hours = request.former_hours if request.HasField("former_hours") else _FORMER_HOURS
        async with self._database.transaction() as tx:
            endpoint = await webhooks.rotate_secret(tx, request.endpoint_id, former_hours=hours, now_us=to_us(now()))
        return pb.RotateWebhookSecretResponse(webhook_endpoint=_written(endpoint), secret=self._secret(endpoint))

    async def PingWebhookEndpoint(
        self, request: pb.PingWebhookEndpointRequest, context: ServicerContext
    ) -> pb.PingWebhookEndpointResponse:
        """Send a test message."""
        async with self._database.transaction() as tx:
            webhook_id = await webhooks.ping_endpoint(tx, request.endpoint_id, now_us=to_us(now()))
        return pb.PingWebhookEndpointResponse(webhook_id=webhook_id)

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: ServicerContext
    ) -> pb.ListWebhookDeliveriesResponse:
        """Return what became of messages."""
        size = pages.page_size(request.page_size)
        before = delivery_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await webhooks.list_deliveries(
                tx, request.endpoint_id, state=request.state, before=before, most=size + 1
            )
        page, more = found[:size], found[size:]
        return pb.ListWebhookDeliveriesResponse(
            deliveries=[delivery_to_proto(each) for each in page],
            next_page_token=pages.encode_token(position_of_delivery(page[-1])) if more else "",
        )

    async def ReplayWebhookDeliveries(
        self, request: pb.ReplayWebhookDeliveriesRequest, context: ServicerContext
    ) -> pb.ReplayWebhookDeliveriesResponse:
        """Send again."""
        async with self._database.transaction() as tx:
            count = await webhooks.replay_deliveries(
                tx, request.endpoint_id, list(request.webhook_ids), now_us=to_us(now())
            )
        return pb.ReplayWebhookDeliveriesResponse(replayed_count=count)

    def _secret(self, endpoint: Endpoint) -> str:
        return written_secret(secret_of(self._key, endpoint.endpoint_id, endpoint.secret_number))


def _written(endpoint: Endpoint) -> pb.WebhookEndpoint:
    return endpoint_to_proto(endpoint, to_us(now()))
