# SPDX-License-Identifier: Apache-2.0
"""What stands between a client and the gateway: it sees every request, and may lose answers on their way back."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

_HOP_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
_LOST = b'{"code":"UNAVAILABLE","message":"the answer was lost"}'


@dataclass
class Exchange:
    """One request and what the gateway answered."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    began: float
    status: int = 0
    answer: bytes = b""
    retry_after: float = 0

    @property
    def is_gzip(self) -> bool:
        """Whether the client compressed the body."""
        return self.headers.get("content-encoding") == "gzip"

    @property
    def sent(self) -> dict[str, Any]:
        """The body as JSON."""
        text = gzip.decompress(self.body) if self.is_gzip else self.body
        decoded: dict[str, Any] = json.loads(text)
        return decoded


@dataclass
class Wire:
    """A running intermediary."""

    target: str
    url: str = ""
    losses: int = 0
    """How many further answers are lost: the gateway has stored the events, and the client is told 503."""
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def statuses(self) -> list[int]:
        """What the gateway answered, in order."""
        return [exchange.status for exchange in self.exchanges]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one request on and close."""
        try:
            exchange = await _read(reader)
            if exchange is not None:
                writer.write(await self._forward(exchange))
                await writer.drain()
        finally:
            writer.close()

    async def _forward(self, exchange: Exchange) -> bytes:
        self.exchanges.append(exchange)
        headers = {name: value for name, value in exchange.headers.items() if name not in _HOP_HEADERS}
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.post(self.target + exchange.path, content=exchange.body, headers=headers)
        exchange.status, exchange.answer = answer.status_code, answer.content
        exchange.retry_after = float(answer.headers.get("retry-after", 0))
        if self.losses:
            self.losses -= 1
            return _answer(503, _LOST, {"content-type": "application/json"})
        return _answer(answer.status_code, answer.content, answer.headers)


@asynccontextmanager
async def wire_to(target: str, losses: int = 0) -> AsyncIterator[Wire]:
    """Stand on a free port before a gateway, and lose the first answers."""
    wire = Wire(target, losses=losses)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield wire


async def _read(reader: asyncio.StreamReader) -> Exchange | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    named = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in named}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Exchange(first.split()[1], headers, body, time.monotonic())


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    kept = {name: value for name, value in headers.items() if name.lower() not in _HOP_HEADERS}
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in kept.items())]
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body
