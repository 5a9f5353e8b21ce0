# SPDX-License-Identifier: Apache-2.0
"""Rows in the binary format of COPY: what costs PostgreSQL least to take in.

Beside `INSERT … SELECT … ON CONFLICT DO NOTHING`, COPY reads a value without an expression, and writes the rows of a
page and their log at once. It knows no ON CONFLICT, so whoever uses it asks first what is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from struct import Struct
from typing import Any, Literal

from chassis.database import Transaction

Kind = Literal["uuid", "bigint", "text", "bytea", "uuid?", "text?", "bytea?"]
"""Type of a column; with a question mark, values may be None."""

# PostgreSQL documentation, COPY, Binary Format: signature, flags, length of an extension; the end is a count of -1.
_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_FIXED = {"uuid": ("i16s", 16), "bigint": ("iq", 8)}


class Copied:
    """A table, and the columns that rows are brought in with.

    Values are given by column: `uuid` as 16 bytes, `bigint` as int, `text` as UTF-8 bytes, `bytea` as bytes.
    """

    def __init__(self, table: str, /, **columns: Kind) -> None:
        self._table = table
        self._fixed = {name: _FIXED[kind] for name, kind in columns.items() if kind in _FIXED}
        self._others = [name for name in columns if name not in self._fixed]
        # Columns of the same width come first: one call writes all of a row.
        self._head = Struct(">h" + "".join(code for code, _ in self._fixed.values()))

    async def bring(self, tx: Transaction, **columns: Sequence[Any]) -> None:
        """Bring in rows; every declared column is given, and all are of the same length.

        Raises `asyncpg.UniqueViolationError` when one of them is there already; then none came in.
        """
        await tx.copy(self._table, [*self._fixed, *self._others], self.data(**columns))

    def data(self, **columns: Sequence[Any]) -> bytes:
        """Write the rows."""
        widths = chain.from_iterable((repeat(width), columns[name]) for name, (_, width) in self._fixed.items())
        heads = map(self._head.pack, repeat(len(self._fixed) + len(self._others)), *widths)
        rows = zip(heads, *(_fields(columns[name]) for name in self._others), strict=True)
        return b"".join([_HEADER, *chain.from_iterable(rows), _TRAILER])


def _fields(values: Iterable[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else len(value).to_bytes(4) + value for value in values]
