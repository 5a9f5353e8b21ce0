# SPDX-License-Identifier: Apache-2.0
"""`PUT /v1/imports/{import_id}/file`: a body of any length, passed on in pieces as it comes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from chassis.keys import ApiKey
from dangol.profile.v1 import transfer_pb2 as pb
from grpc import StatusCode
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper
from gateway.errors import Refusal
from gateway.exchange import Disconnected, Headers, header, respond
from gateway.files.endpoint import FileEndpoint
from gateway.limits import Limiter
from gateway.transcode import writer
from gateway.transcode.calls import Services
from gateway.transcode.contract import Contract
from gateway.transcode.writer import Writers

PIECE_BYTES = 2**20
_RANGE = re.compile(rb"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True)
class _Part:
    """Which part of the file a body is."""

    start: int = 0
    end: int | None = None
    """One past its last byte; None when the body alone tells."""
    total: int | None = None

    def completes(self, end: int) -> bool:
        """Tell whether the file is complete with a part that ends here."""
        return self.end is None or end == self.total


class UploadEndpoint(FileEndpoint):
    """Takes the file of an import. Nothing is held but the piece in hand, and the client waits while it is stored."""

    route = "/v1/imports/{import_id}/file"
    verbs = ("PUT",)
    method_name = "UploadImportChunk"

    def __init__(self, contract: Contract, services: Services, gatekeeper: Gatekeeper, limiter: Limiter) -> None:
        super().__init__(contract, services, gatekeeper, limiter)
        self._start = next(method for method in contract.methods if method.name == "StartImport")
        writers = Writers()
        self._write_received = writers.of(self._method.descriptor.output_type)
        self._write_started = writers.of(self._start.descriptor.output_type)

    async def answer(
        self, file_id: str, key: ApiKey, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer when the whole body is stored."""
        part = _part_of(scope)
        end = part.start
        async for piece in _pieces(receive):
            request = pb.UploadImportChunkRequest(import_id=file_id, offset=end, data=piece)
            await self.call(request, key, pb.UploadImportChunkResponse)
            end += len(piece)
        if part.end is not None and end != part.end:
            raise _bad_range("the body is not as long as its Content-Range says")
        if part.completes(end):
            start = pb.StartImportRequest(import_id=file_id, total_bytes=end)
            body = self._write_started(await self._services.call(self._start, start, key))
        else:
            body = self._write_received(pb.UploadImportChunkResponse(received_bytes=end))
        await respond(send, 200, writer.encode(body), headers=headers)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    """Cut a body into pieces; what came before the client went away is handed on too, so that less comes again."""
    held = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            if held:
                yield bytes(held)
            raise Disconnected
        held += message.get("body", b"")
        more = message.get("more_body", False)
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)


def _part_of(scope: Scope) -> _Part:
    given = header(scope, b"content-range")
    if given is None:
        return _Part()
    found = _RANGE.fullmatch(given.strip())
    if found is None:
        raise _bad_range("Content-Range must be: bytes <first>-<last>/<size or *>")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == b"*" else int(found[3])
    if last < first or (total is not None and last >= total):
        raise _bad_range("Content-Range names no part of the file")
    return _Part(first, last + 1, total)


def _bad_range(message: str) -> Refusal:
    return Refusal(400, StatusCode.INVALID_ARGUMENT, "INVALID_RANGE", message)
