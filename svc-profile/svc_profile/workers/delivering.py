# SPDX-License-Identifier: Apache-2.0
"""Send webhooks: take what is due, post it, remember how that ended.

What a process had in hand when it died is due again after a minute, under the same id.
"""

import asyncio
import logging
from collections.abc import Sequence

from chassis.clock import now, to_us
from chassis.database import Database, lost_connection

from svc_profile.clients import WebhookClient
from svc_profile.domain.webhooks import Delivery, Endpoint, Outcome, live_secrets, signed_headers
from svc_profile.usecases import webhooks

log = logging.getLogger(__name__)

_IDLE_S = 0.5
_AT_ONCE = 8
"""Messages of one endpoint that are sent at once."""
_LEASE_US = 60_000_000


class DeliveryWorker:
    """Sends what waits for endpoints. Each endpoint is served by itself, so that a slow one holds up nobody else."""

    def __init__(self, database: Database, client: WebhookClient, key: bytes, delays: Sequence[float]) -> None:
        self._database = database
        self._client = client
        self._key = key
        self._delays = delays
        self._serving: dict[str, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until the service stops; what is on its way then is waited for."""
        stopped = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                await self._turn()
                await asyncio.wait(
                    [stopped, *self._serving.values()], timeout=_IDLE_S, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            stopped.cancel()
            await asyncio.gather(*self._serving.values(), return_exceptions=True)
            self._serving.clear()

    async def _turn(self) -> None:
        """Begin to serve the endpoints for which something is due and that are not being served."""
        try:
            for endpoint_id in [name for name, task in self._serving.items() if task.done()]:
                self._serving.pop(endpoint_id).result()
            for endpoint, deliveries in (await self._due()).values():
                task = asyncio.create_task(self._serve(endpoint, deliveries))
                self._serving[endpoint.endpoint_id] = task
        except Exception as error:
            if not lost_connection(error):
                raise
            log.warning("webhooks wait for PostgreSQL: %s", type(error).__name__)
            await asyncio.sleep(_IDLE_S)

    async def _due(self) -> dict[str, tuple[Endpoint, list[Delivery]]]:
        async with self._database.transaction() as tx:
            due = await webhooks.take_due(
                tx, now_us=to_us(now()), lease_us=_LEASE_US, most=_AT_ONCE, but=list(self._serving)
            )
        found: dict[str, tuple[Endpoint, list[Delivery]]] = {}
        for endpoint, delivery in due:
            found.setdefault(endpoint.endpoint_id, (endpoint, []))[1].append(delivery)
        return found

    async def _serve(self, endpoint: Endpoint, deliveries: Sequence[Delivery]) -> None:
        outcomes = await asyncio.gather(*(self._send(endpoint, delivery) for delivery in deliveries))
        results = list(zip(deliveries, outcomes, strict=True))
        async with self._database.transaction() as tx:
            await webhooks.remember_outcomes(tx, results, delays=self._delays, now_us=to_us(now()))

    async def _send(self, endpoint: Endpoint, delivery: Delivery) -> Outcome:
        moment_us = to_us(now())
        secrets = live_secrets(endpoint, self._key, moment_us)
        headers = signed_headers(delivery.message, secrets, moment_us // 1_000_000)
        return await self._client.post(endpoint.url, delivery.message.body, headers)
