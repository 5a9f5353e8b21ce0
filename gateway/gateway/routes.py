# SPDX-License-Identifier: Apache-2.0
"""Routes of FastAPI that lead straight to an ASGI endpoint: no request object, no dependencies, no response model."""

from typing import Protocol

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send


class Endpoint(Protocol):
    """Knows its own paths, and serves them."""

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for this endpoint."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that was accepted."""
        ...


class DirectRoute(BaseRoute):
    """Hands the requests that an endpoint accepts to it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether the request is for this route."""
        accepted = scope["type"] == "http" and self._endpoint.accepts(scope)
        return (Match.FULL if accepted else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        await self._endpoint(scope, receive, send)
