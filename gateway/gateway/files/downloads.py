# SPDX-License-Identifier: Apache-2.0
"""`GET /v1/exports/{export_id}/file`: a file of any length, fetched in pieces as the client reads."""

from __future__ import annotations

import re

from chassis.keys import ApiKey
from dangol.profile.v1 import transfer_pb2 as pb
from grpc import StatusCode
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper, check_scope
from gateway.errors import Refusal, method_not_allowed
from gateway.exchange import Headers, header
from gateway.limits import Limiter
from gateway.problems import respond_with_problem
from gateway.transcode.calls import Services
from gateway.transcode.contract import Contract

PATH = re.compile(r"/v1/exports/([A-Za-z0-9_]{1,64})/file/?")
_RANGE = re.compile(rb"bytes=(\d{1,18})-")


class DownloadEndpoint:
    """Gives the file of an export, from any byte on."""

    def __init__(self, contract: Contract, services: Services, gatekeeper: Gatekeeper, limiter: Limiter) -> None:
        self._services = services
        self._gatekeeper = gatekeeper
        self._limiter = limiter
        self._download = next(method for method in contract.methods if method.name == "DownloadExportChunk")

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for the file of an export."""
        return PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file, or with the rest of it (`Range: bytes=<first>-`)."""
        scope["dangol.route"] = "/v1/exports/{export_id}/file"
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET, HEAD")
        key = self._gatekeeper.caller(scope)
        check_scope(key, self._download.scope)
        headers = self._limiter.admit(key)
        found = PATH.fullmatch(scope["path"])
        export_id = found[1] if found else ""
        asked = _RANGE.fullmatch((header(scope, b"range") or b"").strip())
        offset = int(asked[1]) if asked else 0
        chunk = await self._chunk(export_id, offset, key)
        if asked and offset >= chunk.file_bytes:
            raise Refusal(
                416,
                StatusCode.OUT_OF_RANGE,
                "INVALID_RANGE",
                "the file ends before",
                headers=[(b"content-range", b"bytes */%d" % chunk.file_bytes)],
            )
        await send(_beginning(chunk, offset, headers, partial=asked is not None))
        if scope["method"] == "GET":
            while chunk.data:
                await send({"type": "http.response.body", "body": chunk.data, "more_body": True})
                offset += len(chunk.data)
                chunk = await self._chunk(export_id, offset, key)
        await send({"type": "http.response.body", "body": b""})

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem."""
        await respond_with_problem(scope, send, refusal)

    async def _chunk(self, export_id: str, offset: int, key: ApiKey) -> pb.DownloadExportChunkResponse:
        request = pb.DownloadExportChunkRequest(export_id=export_id, offset=offset)
        answer = await self._services.call(self._download, request, key)
        if not isinstance(answer, pb.DownloadExportChunkResponse):
            raise TypeError(type(answer).__name__)
        return answer


def _beginning(
    chunk: pb.DownloadExportChunkResponse, offset: int, headers: Headers, *, partial: bool
) -> dict[str, object]:
    own: Headers = [
        (b"content-type", chunk.media_type.encode()),
        (b"content-length", b"%d" % (chunk.file_bytes - offset)),
        (b"content-disposition", f'attachment; filename="{chunk.file_name}"'.encode()),
        (b"accept-ranges", b"bytes"),
    ]
    if partial:
        own.append((b"content-range", b"bytes %d-%d/%d" % (offset, chunk.file_bytes - 1, chunk.file_bytes)))
    return {"type": "http.response.start", "status": 206 if partial else 200, "headers": [*own, *headers]}
