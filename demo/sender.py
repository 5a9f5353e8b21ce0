# SPDX-License-Identifier: Apache-2.0
"""Send actions with the unmodified Segment client for Python."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType
from typing import Any

from segment.analytics.client import Client

from demo.actions import Action

QUEUE_SIZE = 5_000
# A failed batch is tried again for about a minute, then reported.
RETRIES = 8
WAIT_SECONDS = 0.02


class SendFailed(Exception):
    """The platform did not take some events."""


class Sender:
    """A Segment client that waits when it is ahead of the platform, and counts."""

    def __init__(self, url: str, write_key: str) -> None:
        logging.getLogger("segment").setLevel(logging.CRITICAL)
        self.counts: Counter[str] = Counter()
        self._failures: list[str] = []
        self._lost = 0
        self._client = Client(
            write_key, host=url, on_error=self._on_error, max_queue_size=QUEUE_SIZE, max_retries=RETRIES
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self._client.shutdown()

    @property
    def sent(self) -> int:
        """Events that have left the queue so far, as far as the client tells."""
        return self.counts.total() - int(self._client.queue.qsize())

    def send(self, action: Action) -> None:
        """Queue one action; waits while the queue is full."""
        while self._client.queue.full():
            self._check()
            time.sleep(WAIT_SECONDS)
        common: dict[str, Any] = {
            "user_id": action.user_id,
            "anonymous_id": action.anonymous_id,
            "timestamp": action.time,
            "message_id": action.message_id,
            "context": dict(action.context),
        }
        body = dict(action.body)
        if action.call == "identify":
            self._client.identify(traits=body, **common)
        elif action.call == "page":
            self._client.page(name=action.name, properties=body, **common)
        else:
            self._client.track(event=action.name, properties=body, **common)
        self.counts[action.counted_name] += 1

    def flush(self) -> None:
        """Return when the platform has acknowledged everything; raises `SendFailed` when it has not."""
        self._client.flush()
        self._check()

    def _on_error(self, error: Exception, batch: list[Any]) -> None:
        self._lost += len(batch)
        self._failures.append(str(error))

    def _check(self) -> None:
        if self._failures:
            raise SendFailed(f"{self._lost:,} events were not taken: {self._failures[-1]}")
