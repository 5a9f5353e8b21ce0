# SPDX-License-Identifier: Apache-2.0
"""A keep-alive HTTP/1.1 connection that costs next to nothing, so that a load generator stays out of the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    head: bytes
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds of the `Retry-After` header."""
        text = _header(self.head, b"retry-after")
        return float(text) if text is not None else None


class Connection(asyncio.Protocol):
    """One connection; one request at a time. Lost connections raise ConnectionError and are made again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._received = bytearray()

    async def exchange(self, request: bytes, seconds: float = 15) -> Answer:
        """Send a request and return the response; raises ConnectionError or TimeoutError."""
        if self._transport is None or self._transport.is_closing():
            await self._connect()
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._waiting, seconds)
        except TimeoutError:
            self.close()
            raise

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect a response; called by the event loop."""
        self._received += data
        end = self._received.find(HEAD_END)
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        head = bytes(self._received[:end])
        body_end = end + len(HEAD_END) + int(_header(head, b"content-length") or 0)
        if len(self._received) >= body_end:
            body = bytes(self._received[end + len(HEAD_END) : body_end])
            del self._received[:body_end]
            self._waiting.set_result(Answer(int(head[9:12]), head, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits; called by the event loop."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("the connection was lost"))

    async def _connect(self) -> None:
        self._received.clear()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._transport = transport


def _header(head: bytes, name: bytes) -> bytes | None:
    position = head.lower().find(b"\r\n" + name + b":")
    if position < 0:
        return None
    value = head[position + len(name) + 3 :]
    return value.partition(b"\r\n")[0].strip()
