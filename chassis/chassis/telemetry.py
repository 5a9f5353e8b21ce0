# SPDX-License-Identifier: Apache-2.0
"""Logs as JSON lines, metrics for Prometheus, traces that cross HTTP, gRPC and NATS (W3C trace context)."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Gauge, Histogram, start_http_server

_tracer = trace.get_tracer("dangol")

REQUEST_SECONDS = Histogram("dangol_rpc_seconds", "Time of one RPC", ["method", "code"])
MESSAGES = Counter("dangol_messages_total", "Messages of a consumer by what became of them", ["consumer", "outcome"])
BATCH_SECONDS = Histogram("dangol_batch_seconds", "Time of one micro-batch", ["consumer"])
PENDING = Gauge("dangol_consumer_pending", "Messages that a consumer has not seen yet", ["consumer"])
ACCESSES = Counter("dangol_accesses_total", "Uses of personal data by what became of them", ["method", "outcome"])
OUTBOX = Gauge("dangol_outbox_rows", "Messages that wait to be published")
JOB_RUNS = Counter("dangol_job_runs_total", "Runs of a job by outcome", ["job", "outcome"])


class JsonFormatter(logging.Formatter):
    """One log record as one JSON line, with the ids of the current trace."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(service: str, level: str, prometheus_port: int = 0) -> None:
    """Set up logs, traces and metrics of this process; called once, by `__main__`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "alembic", "nats", "asyncio", "sqlalchemy.engine.Engine"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    provider = TracerProvider(resource=Resource.create({"service.name": f"dangol-{service}"}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        # Imported only where it is used: the exporter pulls in gRPC's synchronous half and 20 MB of memory.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    if prometheus_port:
        start_http_server(prometheus_port, addr=os.environ.get("DANGOL_PROMETHEUS_HOST", "127.0.0.1"))


@contextmanager
def span(name: str, kind: SpanKind, parent: Mapping[str, str] | None = None) -> Iterator[None]:
    """Trace a piece of work as the child of what the carrier (headers) says."""
    context: Context | None = propagate.extract(parent) if parent else None
    with _tracer.start_as_current_span(name, context=context, kind=kind):
        yield


def inject(headers: MutableMapping[str, str]) -> None:
    """Write the current trace into headers."""
    propagate.inject(headers)
