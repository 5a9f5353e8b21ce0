# SPDX-License-Identifier: Apache-2.0
"""`GET /v1/exports/{export_id}/file`: a file of any length, fetched in pieces as the client reads."""

from __future__ import annotations

import re

from chassis.keys import ApiKey
from dangol.profile.v1 import transfer_pb2 as pb
from grpc import StatusCode
from starlette.types import Receive, Scope, Send

from gateway.errors import Refusal
from gateway.exchange import Headers, header
from gateway.files.endpoint import FileEndpoint

_RANGE = re.compile(rb"bytes=(\d{1,18})-")


class DownloadEndpoint(FileEndpoint):
    """Gives the file of an export, from any byte on."""

    route = "/v1/exports/{export_id}/file"
    method_name = "DownloadExportChunk"

    async def answer(
        self, file_id: str, key: ApiKey, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer with the file, or with the rest of it (`Range: bytes=<first>-`)."""
        asked = _RANGE.fullmatch((header(scope, b"range") or b"").strip())
        offset = int(asked[1]) if asked else 0
        chunk = await self._chunk(file_id, offset, key)
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
                chunk = await self._chunk(file_id, offset, key)
        await send({"type": "http.response.body", "body": b""})

    async def _chunk(self, export_id: str, offset: int, key: ApiKey) -> pb.DownloadExportChunkResponse:
        request = pb.DownloadExportChunkRequest(export_id=export_id, offset=offset)
        return await self.call(request, key, pb.DownloadExportChunkResponse)


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
