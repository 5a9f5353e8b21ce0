# SPDX-License-Identifier: Apache-2.0
"""What the front hands requests to: ASGI endpoints that know their own paths."""

from typing import Protocol

from starlette.types import Receive, Scope, Send

from gateway.errors import Refusal


class Endpoint(Protocol):
    """Serves some paths: no request object, no dependencies, no response model."""

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for this endpoint."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that was accepted."""
        ...

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with an error in the form that this endpoint's clients understand."""
        ...
