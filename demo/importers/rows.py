# SPDX-License-Identifier: Apache-2.0
"""What every importer hands over: pieces of bounded size, and the rows that it could not use."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from demo.actions import Action

ROWS_PER_CHUNK = 20_000


class BadDataset(Exception):
    """The files are not what the importer reads."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot become an event."""

    row: int
    """Number of the row in its file, from 1, without the header."""
    reason: str
    """A stable upper-case code."""
    detail: str


class Rejections:
    """How many rows were left out and why, with the first of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, RejectedRow] = {}

    def add(self, rows: Sequence[RejectedRow]) -> None:
        """Count some more."""
        for row in rows:
            self.counts[row.reason] += 1
            self._first.setdefault(row.reason, row)

    def as_json(self) -> list[dict[str, Any]]:
        """Write them down, for an import that is resumed."""
        return [{**asdict(self._first[reason]), "count": count} for reason, count in self.counts.items()]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> Rejections:
        """Read what `as_json` wrote."""
        rejections = cls()
        for row in rows:
            rejections.counts[row["reason"]] = row["count"]
            rejections._first[row["reason"]] = RejectedRow(row["row"], row["reason"], row["detail"])
        return rejections

    def lines(self) -> list[str]:
        """Say it, the most frequent reason first."""
        return [
            f"  rejected {count:,} rows: {reason}; the first is row {first.row:,}: {first.detail}"
            for reason, count in self.counts.most_common()
            for first in (self._first[reason],)
        ]


@dataclass(slots=True)
class Chunk:
    """What some rows became."""

    next_row: int = 0
    """Rows before this one (from 0) are done when the chunk has been sent; an import can be resumed there."""
    actions: list[Action] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)


class Dataset(Protocol):
    """A data set on disk."""

    name: str
    row_count: int
    last_time: datetime
    """Time of the last event."""

    def items(self) -> list[dict[str, Any]]:
        """The catalogue, as the API takes it."""

    def chunks(self, start_row: int, shift: timedelta) -> Iterator[Chunk]:
        """Actions from a row on, with their times moved by `shift`."""


def find_file(path: Path, name: str) -> Path:
    """Find a file of a data set: `path` is its folder, or any of its files."""
    candidate = path / name if path.is_dir() else path.parent / name
    if not candidate.is_file():
        raise BadDataset(f"no file {name} in {candidate.parent}")
    return candidate


def check_columns(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise `BadDataset` that names the columns which are missing."""
    missing = [column for column in wanted if column not in found]
    if missing:
        raise BadDataset(f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(found)}")


def csv_rows(file: Path, wanted: Sequence[str], start_row: int = 0) -> Iterator[tuple[int, dict[str, str]]]:
    """Read rows of a packed CSV file, with their numbers from 0."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        reader = csv.DictReader(text)
        check_columns(file, reader.fieldnames or (), wanted)
        yield from islice(enumerate(reader), start_row, None)
