# SPDX-License-Identifier: Apache-2.0
"""A file whose pieces lie in PostgreSQL, as Python's readers want it."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

Fetch = Callable[[int], Awaitable[tuple[int, bytes] | None]]


class ChunkFile(io.RawIOBase):
    """Reads in a thread what an event loop fetches; holds one piece at a time."""

    def __init__(self, fetch: Fetch, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fetch = fetch
        self._size = size
        self._loop = loop
        self._position = 0
        self._first = 0
        self._piece = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what the piece at hand has, at most as much as fits."""
        if self._position >= self._size:
            return 0
        offset = self._position - self._first
        if not 0 <= offset < len(self._piece):
            self._first, self._piece = self._get(self._position)
            offset = self._position - self._first
        part = memoryview(self._piece)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _get(self, position: int) -> tuple[int, bytes]:
        found = asyncio.run_coroutine_threadsafe(self._found(position), self._loop).result()
        if found is None or position >= found[0] + len(found[1]):
            raise ForgottenError
        return found

    async def _found(self, position: int) -> tuple[int, bytes] | None:
        return await self._fetch(position)


class ForgottenError(Exception):
    """The file was forgotten while it was read."""
