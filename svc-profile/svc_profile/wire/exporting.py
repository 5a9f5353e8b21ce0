# SPDX-License-Identifier: Apache-2.0
"""Rows of customers as the bytes of a file, piece by piece."""

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from chassis.clock import from_us
from chassis.masking import PERSONAL_NAMES, mask_within, plain

from svc_profile.domain.exports import CSV, ExportPlan, Pseudonyms

_BYTE_ORDER_MARK = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV injection)."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
"""Numbers begin like formulas and calculate nothing; a telephone number stays one that others can read."""

_GROUP_ROWS = 20_000
"""Rows of a group, which are in memory at a time: readers of Parquet skip and read whole groups."""

_TIMES = frozenset({"first_seen_time", "last_seen_time"})

_encode = msgspec.json.Encoder(order="sorted").encode


def pseudonyms_of(key: bytes, personal: Collection[str]) -> Pseudonyms:
    """Return other names for customers; `personal` names the traits that somebody defined as personal."""
    names = PERSONAL_NAMES.union(map(plain, personal))
    return Pseudonyms(key, lambda name: plain(name) in names, lambda text: mask_within(text) != text)


class FileWriter(Protocol):
    """Makes the bytes of a file."""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Return the bytes of some rows."""

    def end(self) -> bytes:
        """Return the last bytes of the file."""


def writer_of(plan: ExportPlan, columns: Sequence[str], *, begins: bool) -> FileWriter:
    """Return what makes the bytes of a file, or of its drafts, from its beginning or further on."""
    if plan.format == CSV:
        return CsvWriter(columns, begins=begins, byte_order_mark=plan.byte_order_mark)
    return DraftWriter(columns)


class CsvWriter:
    """RFC 4180. Each piece stands for itself, so that any process can go on."""

    def __init__(self, columns: Sequence[str], *, begins: bool, byte_order_mark: bool) -> None:
        self._columns = columns
        self._begins = begins
        self._mark = _BYTE_ORDER_MARK if byte_order_mark else ""

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Return the lines of some rows, after the header at the beginning."""
        out = io.StringIO(newline="")
        lines = csv.writer(out)
        if self._begins:
            out.write(self._mark)
            lines.writerow([_harmless(name) for name in self._columns])
            self._begins = False
        lines.writerows([_cell(name, value) for name, value in zip(self._columns, row, strict=True)] for row in rows)
        return out.getvalue().encode()

    def end(self) -> bytes:
        """Return the header of a file without rows, else nothing."""
        return self.write([]) if self._begins else b""


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if name in _TIMES:
        return _time(value)
    if isinstance(value, Mapping):
        return _encode(value).decode()
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return _harmless(";".join(value))
    if isinstance(value, str):
        return _harmless(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else _encode(value).decode()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def _time(time_us: int) -> str:
    return from_us(time_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class DraftWriter:
    """Rows for a Parquet file, as streams of Arrow. Each stands for itself, so that any process can go on."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._schema = _schema(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        """Return a stream of some rows."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self._schema)
        arrays = [
            pa.array([_value(field.name, value) for value in column], field.type)
            for field, column in zip(self._schema, columns, strict=True)
        ]
        out = io.BytesIO()
        with pa.ipc.new_stream(out, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            stream.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        return out.getvalue()

    def end(self) -> bytes:
        """Return nothing: the file is still to be made."""
        return b""


class ParquetWriter:
    """Parquet out of drafts. Its end tells where everything is, so that one process has to write all of it."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._bytes = _Taken()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._bytes, "w"), _schema(columns), compression="zstd")
        self._tables: list[pa.Table] = []

    def add(self, draft: bytes) -> bytes:
        """Take the rows of a draft; returns bytes of the file when a group of rows is full."""
        self._tables.append(pa.ipc.open_stream(draft).read_all())
        return self._group() if sum(table.num_rows for table in self._tables) >= _GROUP_ROWS else b""

    def end(self) -> bytes:
        """Return the last rows, and what tells where everything is."""
        rest = self._group() if self._tables else b""
        self._writer.close()
        return rest + self._bytes.take()

    def _group(self) -> bytes:
        self._writer.write_table(pa.concat_tables(self._tables))
        self._tables.clear()
        return self._bytes.take()


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, _type(name)) for name in columns])


class _Taken(io.RawIOBase):
    """A file that is written to and taken away from."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


_JSON = frozenset({"traits", "event_counts", "revenue", "consents", "computed_traits"})
_TEXT = frozenset({"profile_id"})


def _type(name: str) -> pa.DataType:
    if name in _TIMES:
        return pa.timestamp("us", "UTC")
    if name in _TEXT or name in _JSON or name.startswith("trait."):
        return pa.string()
    return pa.list_(pa.string())


def _value(name: str, value: Any) -> Any:
    if value is None or name in _TIMES or isinstance(value, str):
        return value
    if name in _JSON or name.startswith("trait."):
        return _encode(value).decode()
    return value
