# SPDX-License-Identifier: Apache-2.0
"""Token buckets per API key, and the headers that tell clients about them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from chassis.keys import ApiKey
from grpc import StatusCode

from gateway.errors import MAX_RETRY_AFTER_S, Refusal
from gateway.exchange import Headers


@dataclass(slots=True)
class Bucket:
    """Holds what one key may still do; it fills at `rate` a second up to one second's worth.

    A request is let in while anything is left and may overdraw the bucket, so that a batch larger than the bucket
    is slow rather than impossible.
    """

    unit: str
    rate: float
    level: float
    filled: float

    @property
    def capacity(self) -> float:
        """What may be used at once."""
        return max(1.0, self.rate)

    def wait_seconds(self, now: float) -> float:
        """Return how long until the bucket holds something again; 0 when it does now."""
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate)
        self.filled = now
        # One whole unit is needed, so that a rate of one a second lets one a second in.
        need = min(1.0, self.capacity)
        return 0.0 if self.level >= need else (need - self.level) / self.rate

    def seconds_until_full(self) -> int:
        """Return when everything may be used again."""
        return math.ceil((self.capacity - self.level) / self.rate)


class Limiter:
    """The buckets of every key that has limits, on this replica."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, key: ApiKey) -> Headers:
        """Count one request; returns the headers for the answer, raises `Refusal` with 429."""
        buckets = self._buckets_of(key)
        if not buckets:
            return []
        now = self._clock()
        wait = max(bucket.wait_seconds(now) for bucket in buckets)
        if wait > 0:
            raise _too_many(wait, buckets)
        for bucket in buckets:
            bucket.level -= bucket.unit == "requests"
        return _headers(buckets)

    def count_events(self, key: ApiKey, events: int) -> None:
        """Count the events of a request that was let in."""
        bucket = self._buckets.get((key.id, "events"))
        if bucket is not None:
            bucket.level -= events

    def _buckets_of(self, key: ApiKey) -> list[Bucket]:
        rates = (("requests", key.requests_per_second), ("events", key.events_per_second))
        return [self._bucket(key.id, unit, rate) for unit, rate in rates if rate > 0]

    def _bucket(self, key_id: str, unit: str, rate: float) -> Bucket:
        bucket = self._buckets.get((key_id, unit))
        if bucket is None:
            bucket = Bucket(unit, rate, max(1.0, rate), self._clock())
            self._buckets[key_id, unit] = bucket
        return bucket


def _too_many(wait: float, buckets: list[Bucket]) -> Refusal:
    seconds = min(MAX_RETRY_AFTER_S, math.ceil(wait))
    # Older clients of Segment read seconds from here.
    headers = [*_headers(buckets), (b"x-ratelimit-reset", b"%d" % seconds)]
    return Refusal(
        429,
        StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        "the key is used more often than it may be",
        retry_after_seconds=seconds,
        headers=headers,
    )


def _headers(buckets: list[Bucket]) -> Headers:
    """Write `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers)."""
    policies = ", ".join(f'"{b.unit}";q={int(b.capacity)};w={max(1, math.ceil(1 / b.rate))}' for b in buckets)
    states = ", ".join(f'"{b.unit}";r={max(0, int(b.level))};t={b.seconds_until_full()}' for b in buckets)
    return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", states.encode())]
