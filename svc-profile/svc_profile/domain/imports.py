# SPDX-License-Identifier: Apache-2.0
"""An import: a file that is brought in row by row, and how far that is."""

from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """What an import is doing; the numbers are those of the contract."""

    UPLOADING = 1
    RUNNING = 2
    PAUSED = 3
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6


ENDED = frozenset({State.COMPLETED, State.CANCELLED})
"""States that nothing leads out of."""

BATCH_ROWS = 24_000
"""Rows of one batch. An import keeps the number it began with: a batch that is done again must be the same.

Of 8,000 rows each event cost about a fifth more, of 32,000 little less, and batches in hand are in memory.
"""

BATCH_BYTES = 8 * 2**20
"""A batch ends early with the row that makes its events, and the bodies of its rejected rows, as large as this."""

KEPT_REJECTS = 10_000
"""Rejected rows of one import that are kept to look at; all are counted."""

MAX_ATTEMPTS = 20
"""Times that the same rows are tried before an import is given up."""


@dataclass(frozen=True)
class ImportPlan:
    """What was asked for."""

    import_id: str
    kind: int
    format: int
    gzip: bool
    source: str
    mapping: bytes
    """The mapping as the contract has it, serialised."""


@dataclass(frozen=True)
class Progress:
    """How far an import is."""

    received_bytes: int = 0
    read_bytes: int = 0
    """Bytes of the file as it was sent."""
    next_offset: int = 0
    """Where the next row begins, in the file after inflating; Parquet: in rows."""
    read_rows: int = 0
    taken_events: int = 0
    repeated_events: int = 0
    rejected_rows: int = 0
    working_us: int = 0
    """Time that was spent on reading."""

    @property
    def rows_per_second(self) -> float:
        """Rows read in a second of work."""
        return self.read_rows / self.working_us * 1e6 if self.working_us else 0.0

    def remaining_seconds(self) -> int:
        """Return how long the rest of the file takes at this speed; 0 while nobody can tell."""
        if not self.read_bytes or not self.working_us:
            return 0
        rest = self.received_bytes - self.read_bytes
        return round(self.working_us / self.read_bytes * rest / 1e6)


@dataclass(frozen=True)
class ImportJob:
    """An import as it is kept."""

    plan: ImportPlan
    state: State
    progress: Progress
    create_time_us: int
    end_time_us: int | None
    failure: str
    batch_rows: int
    file_key: str
    """Names the file, its mapping and its source; empty until the file is complete."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that was not taken."""

    row: int
    """From 1."""
    field: str
    rule: str
    body: str
    """The beginning of the row as it came."""
