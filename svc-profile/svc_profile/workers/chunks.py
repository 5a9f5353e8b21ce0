# SPDX-License-Identifier: Apache-2.0
"""A file whose pieces lie in PostgreSQL, as Python's readers want it."""

import io
from collections.abc import Callable
from typing import Any


class ChunkFile(io.RawIOBase):
    """Holds one piece at a time. `fetch` finds the piece that holds a byte: where it begins, and its bytes."""

    def __init__(self, fetch: Callable[[int], tuple[int, bytes]], size: int) -> None:
        self._fetch = fetch
        self._size = size
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
            self._first, self._piece = self._fetch(self._position)
            offset = self._position - self._first
        part = memoryview(self._piece)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


class ForgottenError(Exception):
    """The file was forgotten while it was read."""
