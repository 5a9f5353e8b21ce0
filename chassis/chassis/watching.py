# SPDX-License-Identifier: Apache-2.0
"""What every process holds in memory and reads anew, because another process may have changed it."""

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

from chassis.database import lost_connection

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class Watched(ABC):
    """A resource of a service that is half a second behind at most."""

    what: ClassVar[str]
    """What it is, for the log."""

    @abstractmethod
    async def refresh(self) -> None:
        """Read it."""

    async def open(self) -> None:
        """Read it before anybody is answered, waiting for PostgreSQL as long as it takes."""
        while not await self._refreshed():
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:  # noqa: B027  a resource has to have it
        """Nothing is held."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for changes until the service stops."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_S)
            await self._refreshed()

    async def _refreshed(self) -> bool:
        try:
            await self.refresh()
        except Exception as error:
            if not lost_connection(error):
                raise
            log.warning("%s wait for PostgreSQL", self.what)
            return False
        return True
