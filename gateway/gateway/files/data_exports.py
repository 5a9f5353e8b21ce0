# SPDX-License-Identifier: Apache-2.0
"""`GET /v1/data-requests/{data_request_id}/export`: the zip file of an access request, piece by piece."""

from __future__ import annotations

import re

from chassis.keys import ApiKey
from dangol.profile.v1 import privacy_pb2 as pb
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper, check_scope
from gateway.errors import Refusal, method_not_allowed
from gateway.exchange import Headers
from gateway.limits import Limiter
from gateway.problems import respond_with_problem
from gateway.transcode.calls import Services
from gateway.transcode.contract import Contract

PATH = re.compile(r"/v1/data-requests/([A-Za-z0-9_]{1,64})/export/?")


class DataExportEndpoint:
    """Gives a customer's copy of everything as one file."""

    def __init__(self, contract: Contract, services: Services, gatekeeper: Gatekeeper, limiter: Limiter) -> None:
        self._services = services
        self._gatekeeper = gatekeeper
        self._limiter = limiter
        self._download = next(method for method in contract.methods if method.name == "DownloadExport")

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for the file of an access request."""
        return PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file."""
        scope["dangol.route"] = "/v1/data-requests/{data_request_id}/export"
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET, HEAD")
        key = self._gatekeeper.caller(scope)
        check_scope(key, self._download.scope)
        headers = self._limiter.admit(key)
        found = PATH.fullmatch(scope["path"])
        data_request_id = found[1] if found else ""
        chunk, index = await self._chunk(data_request_id, 0, key), 0
        await send(_beginning(data_request_id, chunk, headers))
        while scope["method"] == "GET":
            index += 1
            more = index < chunk.count
            await send({"type": "http.response.body", "body": chunk.data, "more_body": more})
            if not more:
                return
            chunk = await self._chunk(data_request_id, index, key)
        await send({"type": "http.response.body", "body": b""})

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem."""
        await respond_with_problem(scope, send, refusal)

    async def _chunk(self, data_request_id: str, index: int, key: ApiKey) -> pb.DownloadExportResponse:
        request = pb.DownloadExportRequest(data_request_id=data_request_id, index=index)
        answer = await self._services.call(self._download, request, key)
        if not isinstance(answer, pb.DownloadExportResponse):
            raise TypeError(type(answer).__name__)
        return answer


def _beginning(data_request_id: str, chunk: pb.DownloadExportResponse, headers: Headers) -> dict[str, object]:
    own: Headers = [
        (b"content-type", b"application/zip"),
        (b"content-length", b"%d" % chunk.total_bytes),
        (b"content-disposition", f'attachment; filename="{data_request_id}.zip"'.encode()),
        (b"cache-control", b"no-store"),
    ]
    return {"type": "http.response.start", "status": 200, "headers": [*own, *headers]}
