# SPDX-License-Identifier: Apache-2.0
"""Send webhooks: take what is due, post it, remember how that ended.

What a process had in hand when it died is due again after a minute, under the same id.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

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
    """Sends what waits for endpoints."""

    def __init__(self, database: Database, client: WebhookClient, key: bytes, delays: Sequence[float]) -> None:
        self._database = database
        self._client = client
        self._key = key
        self._delays = delays

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until the service stops."""
        while not stopping.is_set():
            try:
                worked = await self._turn()
            except Exception as error:
                if not lost_connection(error):
                    raise
                log.warning("webhooks wait for PostgreSQL: %s", type(error).__name__)
                worked = False
            if not worked:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _IDLE_S)

    async def _turn(self) -> bool:
        async with self._database.transaction() as tx:
            due = await webhooks.take_due(tx, now_us=to_us(now()), lease_us=_LEASE_US, most=_AT_ONCE)
        if not due:
            return False
        outcomes = await asyncio.gather(*(self._send(endpoint, delivery) for endpoint, delivery in due))
        results = [(delivery, outcome) for (_, delivery), outcome in zip(due, outcomes, strict=True)]
        async with self._database.transaction() as tx:
            await webhooks.remember_outcomes(tx, results, delays=self._delays, now_us=to_us(now()))
        return True

    async def _send(self, endpoint: Endpoint, delivery: Delivery) -> Outcome:
        moment_us = to_us(now())
        secrets = live_secrets(endpoint, self._key, moment_us)
        headers = signed_headers(delivery.message, secrets, moment_us // 1_000_000)
        return await self._client.post(endpoint.url, delivery.message.body, headers)
