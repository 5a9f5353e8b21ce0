# SPDX-License-Identifier: Apache-2.0
"""Derive traits again after a change of their definitions, from where the last one stopped, however it was stopped."""

import asyncio
import logging

from chassis.database import Database, lost_connection

from svc_profile.usecases.deriving import derivation_progress, derive_some

log = logging.getLogger(__name__)

_IDLE_S = 1.0


class DerivingWorker:
    """Looks every second whether there is anything to derive; of several replicas one at a time takes a step."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stopping: asyncio.Event) -> None:
        """Derive until stopped; each step is a transaction of its own."""
        while not stopping.is_set():
            try:
                await self._derive(stopping)
            except Exception as error:
                if not lost_connection(error):
                    raise
                log.warning("the derivation of traits waits for PostgreSQL")
            try:
                await asyncio.wait_for(stopping.wait(), _IDLE_S)
            except TimeoutError:
                continue

    async def _derive(self, stopping: asyncio.Event) -> None:
        async with self._database.snapshot() as tx:
            more = (await derivation_progress(tx)).running
        while more and not stopping.is_set():
            async with self._database.transaction() as tx:
                more = await derive_some(tx)
