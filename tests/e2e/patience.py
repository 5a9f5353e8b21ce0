# SPDX-License-Identifier: Apache-2.0
"""Wait for what must become true, with a bound."""

import asyncio
import time
from collections.abc import Callable

import httpx

from bench.platform.backlog import backlog_of
from bench.platform.running import Platform

PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.05


def eventually(question: Callable[[], bool], what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Return when the answer is yes; fails with words when it never is."""
    end = time.monotonic() + patience
    while not question():
        assert time.monotonic() < end, f"after {patience:.0f} s it is still not so that {what}"
        time.sleep(LOOK_SECONDS)


async def everything_handled(platform: Platform, patience: float) -> None:
    """Return when no consumer has anything left to do, and stays so."""
    end, quiet = time.monotonic() + patience, 0
    async with backlog_of(platform.nats_url) as backlog:
        while quiet < 3:
            waiting = {name: count for name, count in (await backlog.messages()).items() if count}
            quiet = 0 if waiting else quiet + 1
            assert time.monotonic() < end, f"after {patience:.0f} s there is work left: {waiting}"
            await asyncio.sleep(0.2)


def found(api: httpx.Client, path: str) -> dict[str, object] | None:
    """Return what is there, or None while nothing is."""
    response = api.get(path)
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    response.raise_for_status()
    return dict(response.json())
