# SPDX-License-Identifier: Apache-2.0
"""What the gateway counts for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

HTTP_SECONDS = Histogram(
    "dangol_http_seconds",
    "Time of one HTTP request",
    ["route", "method", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
EVENTS = Counter("dangol_ingest_events_total", "Events by verdict; `taken`, or the reason of a rejection", ["verdict"])
WAITING_BYTES = Gauge("dangol_ingest_waiting_bytes", "Bytes of events that wait for JetStream")
