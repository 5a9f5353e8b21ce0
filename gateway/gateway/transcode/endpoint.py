# SPDX-License-Identifier: Apache-2.0
"""Every annotated RPC as an HTTP route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from chassis.keys import ApiKey
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper, check_scope, check_visitor
from gateway.cors import origin_headers, preflight_headers
from gateway.errors import Refusal, method_not_allowed
from gateway.exchange import Headers, read_body, respond, respond_empty
from gateway.limits import Limiter
from gateway.problems import respond_with_problem
from gateway.transcode import writer
from gateway.transcode.binding import assemble
from gateway.transcode.calls import Services
from gateway.transcode.contract import Binding, Contract, Method
from gateway.transcode.reader import Readers
from gateway.transcode.router import BadPath, Match, Miss, Router
from gateway.transcode.writer import Write, Writers


@dataclass(frozen=True)
class Route:
    """One binding of one method, ready to serve."""

    method: Method
    binding: Binding
    write: Write


class ContractEndpoint:
    """Serves the contract over HTTP."""

    def __init__(
        self,
        contract: Contract,
        services: Services,
        gatekeeper: Gatekeeper,
        limiter: Limiter,
        *,
        max_body_bytes: int,
    ) -> None:
        self._services = services
        self._gatekeeper = gatekeeper
        self._limiter = limiter
        self._max_body_bytes = max_body_bytes
        self._readers = Readers()
        self._router: Router[Route] = Router()
        writers = Writers()
        for method in contract.methods:
            self._readers.of(method.descriptor.input_type)
            for binding in method.bindings:
                write = writers.of(method.response_part(binding))
                self._router.add(binding.verb, binding.template, Route(method, binding, write))

    def accepts(self, scope: Scope) -> bool:
        """Tell whether the path of a request is one of the contract's."""
        verb: str = scope["method"]
        try:
            found = self._router.find("GET" if verb == "HEAD" else verb, scope["raw_path"])
        except BadPath:
            return False
        scope["dangol.match"] = found
        return isinstance(found, Match) or bool(found.allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found: Match[Route] | Miss = scope["dangol.match"]
        if isinstance(found, Match):
            headers = origin_headers(scope, self._gatekeeper)
            body = await self._answer(found, scope, receive, headers)
            await respond(send, 200, body, headers=headers)
        elif scope["method"] == "OPTIONS":
            methods = ", ".join(found.allowed).encode()
            await respond_empty(send, 204, preflight_headers(scope, self._gatekeeper, methods))
        else:
            heads = ["HEAD"] if "GET" in found.allowed else []
            raise method_not_allowed(", ".join(sorted({*found.allowed, *heads, "OPTIONS"})))

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem that the asking page may read."""
        await respond_with_problem(scope, send, refusal, origin_headers(scope, self._gatekeeper))

    async def _answer(self, found: Match[Route], scope: Scope, receive: Receive, headers: Headers) -> bytes:
        route, method = found.target, found.target.method
        scope["dangol.route"] = route.binding.template
        key = self._gatekeeper.caller(scope)
        headers += self._limiter.admit(key)
        _authorise(key, method, found.values, scope["query_string"])
        body = await read_body(scope, receive, self._max_body_bytes) if route.binding.body else b""
        request = self._request(route, found.values, scope["query_string"], body)
        response = await self._services.call(method, request, key)
        if route.binding.response_body:
            response = getattr(response, route.binding.response_body)
        return writer.encode(route.write(response))

    def _request(self, route: Route, values: Mapping[str, str], query: bytes, body: bytes) -> Message:
        descriptor = route.method.descriptor.input_type
        return self._readers.read(descriptor, assemble(descriptor, route.binding, values, query, body))


def _authorise(key: ApiKey, method: Method, values: Mapping[str, str], query: bytes) -> None:
    if key.kind == "secret":
        check_scope(key, method.scope)
        return
    reference = values.get("profile") or dict(parse_qsl(query.decode("latin-1"))).get("profile", "")
    check_visitor(key, reference, is_open_to_visitors=method.visitor)
