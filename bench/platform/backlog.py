# SPDX-License-Identifier: Apache-2.0
"""How much of what was acknowledged is not processed yet, as JetStream knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.js import JetStreamContext

EVENTS, DOMAIN = "EVENTS", "DOMAIN"


class Backlog:
    """Looks at every consumer of a platform."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._jetstream = jetstream

    async def messages(self) -> dict[str, int]:
        """Messages that wait or are in hand, by consumer."""
        waiting = {}
        for stream in (EVENTS, DOMAIN):
            for info in await self._jetstream.consumers_info(stream):
                waiting[info.name] = (info.num_pending or 0) + (info.num_ack_pending or 0)
        return waiting

    async def events(self, total: int) -> float:
        """Events between the 200 and the last service, out of `total` that were sent.

        Those not yet resolved, and then what the slowest of the services that hear resolved events has to do.
        """
        waiting = await self.messages()
        events = 0.0
        for stage in ("collected", "resolved"):
            messages = max((count for name, count in waiting.items() if stage in name), default=0)
            info = await self._jetstream.stream_info(EVENTS, subjects_filter=f"events.{stage}.*")
            stored = sum((info.state.subjects or {}).values())
            events += messages * total / stored if stored else 0.0
        return events


@asynccontextmanager
async def backlog_of(nats_url: str) -> AsyncIterator[Backlog]:
    """Connect to a platform's JetStream."""
    client = await nats.connect(nats_url, name="bench")
    try:
        yield Backlog(client.jetstream())
    finally:
        await client.close()
