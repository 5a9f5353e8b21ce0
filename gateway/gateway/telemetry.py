# SPDX-License-Identifier: Apache-2.0
"""What the gateway counts for Prometheus."""

import time
from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

HTTP_SECONDS = Histogram(
    "dangol_http_seconds",
    "Time of one HTTP request",
    ["route", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("dangol_ingest_events_total", "Events by verdict; `taken`, or the reason of a rejection", ["verdict"])
WAITING_BYTES = Gauge("dangol_ingest_waiting_bytes", "Bytes of events that wait for JetStream")
TAKEN = EVENTS.labels("taken")


def observe(route: str, method: str, status: int, started: float) -> None:
    """Count one answered request."""
    _child(route, method if method in _METHODS else "other", status).observe(time.perf_counter() - started)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_child = lru_cache(maxsize=4096)(HTTP_SECONDS.labels)
