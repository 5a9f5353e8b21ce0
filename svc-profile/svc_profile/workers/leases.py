# SPDX-License-Identifier: Apache-2.0
"""A loop that takes one piece of long work after the other, and survives the absence of an engine."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from chassis.database import lost_connection
from chassis.ids import new_ulid

log = logging.getLogger(__name__)

_IDLE_S = 1.0


def new_holder() -> str:
    """Name this process as the holder of leases."""
    return f"{os.getpid()}-{new_ulid()}"


async def until(stopping: asyncio.Event, turn: Callable[[], Awaitable[bool]], what: str) -> None:
    """Take turns until the service stops; after one that found nothing to do, wait a little."""
    while not stopping.is_set():
        try:
            worked = await turn()
        except Exception as error:
            if not lost_connection(error):
                raise
            log.warning("%s wait for an engine: %s", what, type(error).__name__)
            worked = False
        if not worked:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _IDLE_S)
