# SPDX-License-Identifier: Apache-2.0
"""Rows of files: CSV, lines and Parquet, read from any offset, one at a time, never the whole file."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from chassis.errors import Invalid

MAX_LINE_BYTES = 2**20
_BLOCK_BYTES = 2**18
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PARQUET_ROWS = 1_000
_PARQUET_BUFFER_BYTES = 2**20


class Problem(NamedTuple):
    """A row that cannot be read."""

    rule: str
    body: str


class Lines:
    """The lines of a file. `offset` is where the next one begins."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        self._file = file
        self.offset = offset

    def __iter__(self) -> Iterator[bytes]:
        """Go through the lines, each with its end; of one that is too long only the beginning is kept."""
        self._file.seek(self.offset)
        is_first = self.offset == 0
        rest, dropped = b"", 0
        while block := self._file.read(_BLOCK_BYTES):
            lines = (rest + block).splitlines(keepends=True)
            # A line may go on in the next block, and so may its end.
            rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
            for line in lines:
                self.offset += len(line) + dropped
                dropped = 0
                yield line.removeprefix(_BYTE_ORDER_MARK) if is_first else line
                is_first = False
            if len(rest) > MAX_LINE_BYTES:
                dropped += len(rest) - MAX_LINE_BYTES - 1
                rest = rest[: MAX_LINE_BYTES + 1]
        if rest:
            self.offset += len(rest) + dropped
            yield rest.removeprefix(_BYTE_ORDER_MARK) if is_first else rest


class CsvRows:
    """Rows of CSV: lists of texts. A broken row costs only itself."""

    def __init__(self, file: BinaryIO, offset: int, *, delimiter: str, encoding: str, header: Sequence[str]) -> None:
        self._encoding = encoding
        self._delimiter = delimiter
        self._is_bad = False
        self._lines = Lines(file, 0)
        self.columns = list(header) or self._header()
        self._lines = Lines(file, max(offset, 0 if header else self._lines.offset))

    @property
    def offset(self) -> int:
        """Where the next row begins."""
        return self._lines.offset

    def _header(self) -> list[str]:
        names = next(csv.reader(self._texts(), delimiter=self._delimiter), None)
        if not names or self._is_bad:
            raise Invalid.field("file", f"needs a header line in {self._encoding}")
        return [name.strip() for name in names]

    def __iter__(self) -> Iterator[list[str] | Problem]:
        """Go through the rows; empty lines are none."""
        texts, width = self._texts(), len(self.columns)
        while True:
            try:
                for values in csv.reader(texts, delimiter=self._delimiter):
                    if self._is_bad:
                        self._is_bad = False
                        yield Problem(f"text must be {self._encoding}", self.body(values))
                    elif len(values) == width:
                        yield values
                    elif values:
                        yield Problem(f"has {len(values)} values, the header has {width}", self.body(values))
                return
            except csv.Error:
                # The reader has swallowed lines up to its limit; the next one goes on behind them.
                yield Problem("a value has more than 131072 characters: is a quote left open?", "")

    def _texts(self) -> Iterator[str]:
        for line in self._lines:
            try:
                yield line.decode(self._encoding)
            except UnicodeDecodeError:
                self._is_bad = True
                yield line.decode(self._encoding, "replace")

    def body(self, values: Sequence[str]) -> str:
        """Return a row as it may have been written."""
        return self._delimiter.join(values)

    def read_bytes(self, file: BinaryIO) -> int:
        """Return how much of the file, as it was sent, has been read."""
        return file.tell()


class LineRows:
    """Rows of NDJSON: lines without those that are empty."""

    columns = None

    def __init__(self, file: BinaryIO, offset: int, *, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._lines = Lines(file, offset)

    @property
    def offset(self) -> int:
        """Where the next row begins."""
        return self._lines.offset

    def __iter__(self) -> Iterator[bytes | Problem]:
        """Go through the rows."""
        for line in self._lines:
            if line.isspace():
                continue
            if len(line) > MAX_LINE_BYTES:
                yield Problem(f"has more than {MAX_LINE_BYTES} bytes", self.body(line[:4096]))
            elif self._encoding == "utf-8":
                yield line
            else:
                yield line.decode(self._encoding, "replace").encode()

    def body(self, line: bytes) -> str:
        """Return a row as text."""
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def read_bytes(self, file: BinaryIO) -> int:
        """Return how much of the file, as it was sent, has been read."""
        return file.tell()


class ParquetRows:
    """Rows of Parquet: lists of values. Its offsets count rows."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._size = size
        self._file = pq.ParquetFile(pa.PythonFile(file, "r"), buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False)
        self.columns: list[str] = self._file.schema_arrow.names
        self.offset = offset

    def __iter__(self) -> Iterator[list[Any]]:
        """Go through the rows; groups of rows that are done are not read at all."""
        skip, groups, first = self.offset, [], 0
        for number in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(number).num_rows
            if first + rows > self.offset:
                groups.append(number)
            else:
                skip -= rows
            first += rows
        if not groups:
            return
        for batch in self._file.iter_batches(_PARQUET_ROWS, row_groups=groups, use_threads=False):
            rest = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - rest.num_rows
            for values in zip(*(_plain(column) for column in rest.columns), strict=True):
                self.offset += 1
                yield list(values)

    def body(self, values: Sequence[Any]) -> str:
        """Return a row as text."""
        return ", ".join(f"{name}={value}" for name, value in zip(self.columns, values, strict=True))

    def read_bytes(self, file: BinaryIO) -> int:
        """Return about how much has been read: Parquet is not read from front to back."""
        rows: int = self._file.metadata.num_rows
        return self._size * self.offset // max(1, rows)


def _plain(column: pa.Array) -> list[Any]:
    """Return Python's values; nanoseconds, which Python's times do not have, are cut off."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return cast(list[Any], column.to_pylist())


@contextmanager
def readable() -> Iterator[None]:
    """Say in words why a file cannot be read."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Invalid.field("file", "is no complete gzip") from error
    except pa.ArrowException as error:
        raise Invalid.field("file", "is no readable Parquet") from error
