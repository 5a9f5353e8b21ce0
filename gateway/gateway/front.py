# SPDX-License-Identifier: Apache-2.0
"""The outermost layer: request ids, the trace, security headers, timing, the answer to whatever was raised."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping, Sequence

from chassis.errors import DangolError
from grpc.aio import AioRpcError
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import telemetry as tracing
from gateway import telemetry
from gateway.endpoints import Endpoint
from gateway.errors import CLIENT_CLOSED_REQUEST, Refusal, internal, refusal_of, refusal_of_rpc
from gateway.exchange import Disconnected, Headers, header
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
    """Hands a request to the endpoint that accepts it, and what none accepts to the application behind."""

    def __init__(self, endpoints: Sequence[Endpoint], app: ASGIApp) -> None:
        self._endpoints = endpoints
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
            telemetry.observe(scope.get("dangol.route", "other"), scope["method"], answer.status, started)

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        endpoint = next((one for one in self._endpoints if one.accepts(scope)), None)
        try:
            await (endpoint or self._app)(scope, receive, answer.send)
        except Disconnected:
            answer.status = CLIENT_CLOSED_REQUEST
        except Exception as error:  # the one place where what was raised becomes an answer
            if answer.status:
                raise
            refuse = endpoint.refuse if endpoint else respond_with_problem
            await refuse(scope, answer.send, self._refusal(error, scope))

    def _refusal(self, error: Exception, scope: Scope) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, DangolError):
            return refusal_of(error)
        if isinstance(error, AioRpcError):
            return refusal_of_rpc(error)
        route = scope.get("dangol.route", "other")
        log.exception("%s %s failed, request %s", scope["method"], route, scope["dangol.request_id"])
        return internal()


class _Answer:
    """Adds the headers that every answer carries, and remembers its status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = header(scope, b"x-request-id")
        known = given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16).encode()
        scope["dangol.request_id"] = known.decode()
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
