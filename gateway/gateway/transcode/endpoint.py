# SPDX-License-Identifier: Apache-2.0
"""Every annotated RPC as an HTTP route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AioRpcError
from starlette.types import Receive, Scope, Send

from chassis.errors import DangolError
from chassis.keys import ApiKey
from gateway.access import Gatekeeper, check_scope, check_visitor
from gateway.cors import origin_headers, preflight_headers
from gateway.errors import Refusal, refusal_of, refusal_of_rpc
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
        headers = origin_headers(scope, self._gatekeeper)
        try:
            if isinstance(found, Miss):
                await self._miss(found, scope, send)
                return
            body = await self._answer(found, scope, receive, headers)
        except Refusal as refusal:
            await respond_with_problem(scope, send, refusal, headers)
        except DangolError as error:
            await respond_with_problem(scope, send, refusal_of(error), headers)
        except AioRpcError as error:
            await respond_with_problem(scope, send, refusal_of_rpc(error), headers)
        else:
            await respond(send, 200, body, headers=headers)

    async def _miss(self, miss: Miss, scope: Scope, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            methods = ", ".join(miss.allowed).encode()
            await respond_empty(send, 204, preflight_headers(scope, self._gatekeeper, methods))
            return
        allowed = ", ".join(sorted({*miss.allowed, "OPTIONS", *(["HEAD"] if "GET" in miss.allowed else [])}))
        raise Refusal(
            405,
            StatusCode.UNIMPLEMENTED,
            "METHOD_NOT_ALLOWED",
            f"this path takes {allowed}",
            headers=[(b"allow", allowed.encode())],
        )

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
