# SPDX-License-Identifier: Apache-2.0
"""The outermost layer: request ids, the trace, security headers, timing, and the answer to a bug."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping

from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import telemetry as tracing
from gateway import telemetry
from gateway.errors import internal
from gateway.exchange import Disconnected, Headers, header
from gateway.ingest.endpoint import KIND_OF_PATH, answer_internal_error
from gateway.problems import respond_with_problem

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_API_ONLY: Headers = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
_HTTPS_ONLY: Headers = [(b"strict-transport-security", b"max-age=31536000")]
_TRACE = {b"traceparent": "traceparent", b"tracestate": "tracestate", b"baggage": "baggage"}


class Front:
    """Pure ASGI middleware around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other kinds of scope go through untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answer = _Answer(scope, send)
        try:
            with tracing.span("HTTP", SpanKind.SERVER, _trace_of(scope)):
                await self._serve(scope, receive, answer)
        finally:
            route = scope.get("dangol.route", "other")
            telemetry.HTTP_SECONDS.labels(route, scope["method"], answer.status).observe(time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Disconnected:
            answer.status = 499
        except Exception:  # the one place where a bug becomes an answer
            log.exception(
                "%s %s failed, request %s", scope["method"], scope.get("dangol.route", "?"), answer.request_id
            )
            if answer.status:
                raise
            if scope["path"] in KIND_OF_PATH:
                await answer_internal_error(answer.send)
            else:
                await respond_with_problem(scope, answer.send, internal())


class _Answer:
    """Adds the headers that every answer carries, and remembers its status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = header(scope, b"x-request-id")
        known = given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16).encode()
        self.request_id = known.decode()
        scope["dangol.request_id"] = self.request_id
        self.status = 0
        self._headers = [(b"x-request-id", known), *_SECURITY]
        if scope["scheme"] == "https":
            self._headers += _HTTPS_ONLY
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = [*message["headers"], *self._headers]
            if not any(name == b"content-security-policy" for name, _ in headers):
                headers += _API_ONLY
        await self._send(message)


def _trace_of(scope: Scope) -> Mapping[str, str] | None:
    found = {_TRACE[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE}
    return found or None
