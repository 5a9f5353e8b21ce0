# SPDX-License-Identifier: Apache-2.0
"""What the routes of files share: who may use them, under which id a file goes, and one call to the service."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

from chassis.keys import ApiKey
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper, check_scope
from gateway.errors import Refusal, method_not_allowed
from gateway.exchange import Headers
from gateway.limits import Limiter
from gateway.problems import respond_with_problem
from gateway.transcode.calls import Services
from gateway.transcode.contract import Contract, Method

M = TypeVar("M", bound=Message)

_ID = r"([A-Za-z0-9_]{1,64})"


class FileEndpoint(ABC):
    """A route whose body is a file of any length."""

    route: ClassVar[str]
    """Such as `/v1/exports/{export_id}/file`."""
    verbs: ClassVar[tuple[str, ...]] = ("GET", "HEAD")
    method_name: ClassVar[str]
    """The RPC that pieces of the file come from or go to; its scope is the route's."""

    def __init__(self, contract: Contract, services: Services, gatekeeper: Gatekeeper, limiter: Limiter) -> None:
        self._services = services
        self._gatekeeper = gatekeeper
        self._limiter = limiter
        self._path = re.compile(re.sub(r"\{\w+\}", lambda _: _ID, self.route) + "/?")
        self._method: Method = next(method for method in contract.methods if method.name == self.method_name)

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for such a file."""
        return self._path.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the caller, then answer."""
        scope["dangol.route"] = self.route
        if scope["method"] not in self.verbs:
            raise method_not_allowed(", ".join(self.verbs))
        key = self._gatekeeper.caller(scope)
        check_scope(key, self._method.scope)
        headers = self._limiter.admit(key)
        found = self._path.fullmatch(scope["path"])
        await self.answer(found[1] if found else "", key, headers, scope, receive, send)

    @abstractmethod
    async def answer(
        self, file_id: str, key: ApiKey, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Take or give the file; `headers` go with the answer."""

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem."""
        await respond_with_problem(scope, send, refusal)

    async def call(self, request: Message, key: ApiKey, answer_class: type[M]) -> M:
        """Ask the service for a piece, or hand one over."""
        answer = await self._services.call(self._method, request, key)
        if not isinstance(answer, answer_class):
            raise TypeError(type(answer).__name__)
        return answer
