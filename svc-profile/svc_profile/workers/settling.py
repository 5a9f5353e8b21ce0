# SPDX-License-Identifier: Apache-2.0
"""Work out what customers consent to wherever that is due; what is left waits for whoever is next."""

import asyncio
import logging
from collections.abc import Collection

from chassis.clock import now, to_us
from chassis.database import Database, lost_connection

from svc_profile.domain.events import Namer
from svc_profile.usecases.settling import settle_due

log = logging.getLogger(__name__)

_LOOK_S = 0.25


class Settler:
    """Settles customers as soon as this process announces anything, and looks for what others left."""

    def __init__(self, database: Database, namer: Namer, anonymous_properties: Collection[str] | None = None) -> None:
        self._database = database
        self._namer = namer
        self._anonymous_properties = anonymous_properties
        self._woken = asyncio.Event()
        database.on_announced(self._woken.set)

    async def run(self, stopping: asyncio.Event) -> None:
        """Settle until stopped; each step is a transaction of its own."""
        while not stopping.is_set():
            self._woken.clear()
            if not await self._step():
                try:
                    await asyncio.wait_for(self._woken.wait(), _LOOK_S)
                except TimeoutError:
                    continue

    async def _step(self) -> bool:
        try:
            async with self._database.transaction() as tx:
                return await settle_due(tx, self._namer, to_us(now()), self._anonymous_properties)
        except Exception as error:
            if not lost_connection(error):
                raise
            log.warning("consents wait for PostgreSQL")
            return False
