# SPDX-License-Identifier: Apache-2.0
"""Token buckets."""

from __future__ import annotations

import pytest
from chassis.keys import ApiKey
from gateway.errors import Refusal
from gateway.limits import Limiter


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(**limits: float) -> ApiKey:
    """Return a key with limits."""
    return ApiKey(id="k", kind="write", sha256=("0" * 64,), **limits)


def admitted(limiter: Limiter, limited: ApiKey, times: int) -> int:
    """Return how many of some requests are let in."""
    count = 0
    for _ in range(times):
        try:
            limiter.admit(limited)
        except Refusal:
            continue
        count += 1
    return count


def test_a_key_without_limits_is_always_let_in_and_told_nothing() -> None:
    limiter = Limiter()
    assert admitted(limiter, key(), 10_000) == 10_000
    assert limiter.admit(key()) == []


def test_a_second_holds_as_many_requests_as_the_rate_says() -> None:
    clock = Clock()
    limiter, limited = Limiter(clock), key(requests_per_second=100)
    assert admitted(limiter, limited, 500) == 100
    for _ in range(10):
        clock.now += 0.5
        assert admitted(limiter, limited, 500) == 50
    clock.now += 3600
    assert admitted(limiter, limited, 500) == 100


def test_a_batch_larger_than_the_bucket_is_slow_rather_than_impossible() -> None:
    clock = Clock()
    limiter, limited = Limiter(clock), key(events_per_second=100)
    limiter.admit(limited)
    limiter.count_events(limited, 2500)
    with pytest.raises(Refusal) as refused:
        limiter.admit(limited)
    assert refused.value.status == 429
    assert refused.value.retry_after_seconds == 25
    clock.now += 25
    limiter.admit(limited)


def test_the_wait_is_never_longer_than_clients_believe() -> None:
    limiter, limited = Limiter(Clock()), key(requests_per_second=0.001)
    limiter.admit(limited)
    with pytest.raises(Refusal) as refused:
        limiter.admit(limited)
    assert refused.value.retry_after_seconds == 300


def test_a_request_that_is_refused_for_its_events_does_not_use_up_requests() -> None:
    clock = Clock()
    limiter, limited = Limiter(clock), key(requests_per_second=2, events_per_second=1)
    limiter.admit(limited)
    limiter.count_events(limited, 3)
    assert admitted(limiter, limited, 5) == 0
    clock.now += 3
    assert admitted(limiter, limited, 5) == 2


def test_each_key_has_buckets_of_its_own() -> None:
    limiter = Limiter(Clock())
    one = key(requests_per_second=1)
    other = ApiKey(id="other", kind="write", sha256=("1" * 64,), requests_per_second=1)
    assert admitted(limiter, one, 3) == admitted(limiter, other, 3) == 1


def test_the_headers_speak_of_every_limit() -> None:
    headers = dict(Limiter(Clock()).admit(key(requests_per_second=10, events_per_second=1000)))
    assert headers[b"ratelimit-policy"] == b'"requests";q=10;w=1, "events";q=1000;w=1'
    assert headers[b"ratelimit"] == b'"requests";r=9;t=1, "events";r=1000;t=0'
