# SPDX-License-Identifier: Apache-2.0
"""`GET /v1/data-requests/{data_request_id}/export`: the zip file of an access request, piece by piece."""

from __future__ import annotations

from chassis.keys import ApiKey
from dangol.profile.v1 import privacy_pb2 as pb
from starlette.types import Receive, Scope, Send

from gateway.exchange import Headers
from gateway.files.endpoint import FileEndpoint


class DataExportEndpoint(FileEndpoint):
    """Gives a customer's copy of everything as one file."""

    route = "/v1/data-requests/{data_request_id}/export"
    method_name = "DownloadExport"

    async def answer(
        self, file_id: str, key: ApiKey, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer with the file."""
        chunk, index = await self._chunk(file_id, 0, key), 0
        await send(_beginning(file_id, chunk, headers))
        while scope["method"] == "GET":
            index += 1
            more = index < chunk.count
            await send({"type": "http.response.body", "body": chunk.data, "more_body": more})
            if not more:
                return
            chunk = await self._chunk(file_id, index, key)
        await send({"type": "http.response.body", "body": b""})

    async def _chunk(self, data_request_id: str, index: int, key: ApiKey) -> pb.DownloadExportResponse:
        request = pb.DownloadExportRequest(data_request_id=data_request_id, index=index)
        return await self.call(request, key, pb.DownloadExportResponse)


def _beginning(data_request_id: str, chunk: pb.DownloadExportResponse, headers: Headers) -> dict[str, object]:
    own: Headers = [
        (b"content-type", b"application/zip"),
        (b"content-length", b"%d" % chunk.total_bytes),
        (b"content-disposition", f'attachment; filename="{data_request_id}.zip"'.encode()),
        (b"cache-control", b"no-store"),
    ]
    return {"type": "http.response.start", "status": 200, "headers": [*own, *headers]}
