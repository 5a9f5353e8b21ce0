# SPDX-License-Identifier: Apache-2.0
"""Know which traits somebody defined as personal, so that every answer masks them."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress

from chassis.database import Database, lost_connection
from chassis.masking import plain

from svc_profile.store.trait_schema import TraitSchemaStore

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class PersonalTraits:
    """The names of personal traits as this process knows them; half a second behind at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._names: Collection[str] = frozenset()

    def names(self) -> Collection[str]:
        """Return the names, spelt as the masking spells them."""
        return self._names

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for changes until the service stops."""
        while not stopping.is_set():
            try:
                await self.refresh()
            except Exception as error:
                if not lost_connection(error):
                    raise
                log.warning("the names of personal traits wait for PostgreSQL")
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_S)

    async def refresh(self) -> None:
        """Read the names."""
        async with self._database.snapshot() as tx:
            schema = await TraitSchemaStore(tx).current()
        self._names = frozenset(plain(name) for name, definition in schema.definitions.items() if definition.pii)

    async def open(self) -> None:
        """Read the names before anybody is answered, waiting for PostgreSQL as long as it takes."""
        while True:
            try:
                await self.refresh()
                return
            except Exception as error:
                if not lost_connection(error):
                    raise
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Nothing is held."""
