# SPDX-License-Identifier: Apache-2.0
"""Questions to the public API, over one connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.platform.http import Connection
from bench.platform.running import SECRET_KEY
from bench.platform.workload import http_get


class Questions:
    """Asks a platform, and waits for answers that are right."""

    def __init__(self, port: int) -> None:
        self._connection = Connection(port)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def get(self, path: str) -> dict[str, Any]:
        """Read something; raises LookupError when it is not there."""
        answer = await self._connection.exchange(http_get(path, SECRET_KEY), 30)
        if answer.status == 404:
            raise LookupError(path)
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {answer.body[:300]!r}")
        return dict(json.loads(answer.body))

    async def counted_events(self, names: set[str] | None = None) -> int:
        """Events that metrics answers for."""
        found = (await self.get("/v1/event-names?pageSize=1000")).get("eventNames", [])
        return sum(name.get("count", 0) for name in found if names is None or name["name"] in names)

    async def profile_counts(self, reference: str) -> dict[str, int]:
        """Event counts of one profile; empty when nobody is there yet."""
        try:
            return dict((await self.get(f"/v1/profiles/{reference}")).get("eventCounts", {}))
        except LookupError:
            return {}

    async def has_event(self, reference: str) -> bool:
        """Whether metrics knows anything that a customer did."""
        try:
            return bool((await self.get(f"/v1/profiles/{reference}/events?pageSize=1")).get("events"))
        except LookupError:
            return False

    async def is_a_member(self, reference: str, segment: str) -> bool:
        """Whether a customer is in a segment."""
        found = (await self.get(f"/v1/profiles/{reference}/segments")).get("segments", [])
        return any(membership["name"] == segment for membership in found)

    async def recommended(self, reference: str) -> tuple[bool, list[str]]:
        """Whether recommendations are a customer's own, and which items they are."""
        answer = await self.get(f"/v1/profiles/{reference}/recommendations")
        return bool(answer.get("personalized")), [item["itemId"] for item in answer.get("recommendations", [])]


async def seconds_until(question: Callable[[], Awaitable[bool]], patience: float, pause: float = 0.005) -> float | None:
    """Ask until the answer is true; returns how long it took, None when patience ran out."""
    begin = time.monotonic()
    while not await question():
        if time.monotonic() - begin > patience:
            return None
        await asyncio.sleep(pause)
    return time.monotonic() - begin
