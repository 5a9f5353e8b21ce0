# SPDX-License-Identifier: Apache-2.0
"""Let customers be found by what is new about them, within about a second."""

import asyncio
import logging
from contextlib import suppress

from chassis.database import Database, lost_connection

from svc_profile.usecases.indexing import index_some

log = logging.getLogger(__name__)

_LOOK_S = 0.3
_INDEX_AT_ONCE = 1_000


class IndexingWorker:
    """Looks a few times a second whether anything waits; of several replicas one at a time takes a step."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stopping: asyncio.Event) -> None:
        """Make the entries of what waits until the service stops; what is left waits for whoever is next."""
        while not stopping.is_set():
            if not await self._step():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _LOOK_S)

    async def _step(self) -> bool:
        try:
            async with self._database.transaction() as tx:
                return await index_some(tx, _INDEX_AT_ONCE)
        except Exception as error:
            if not lost_connection(error):
                raise
            log.warning("the search index waits for PostgreSQL")
            return False
