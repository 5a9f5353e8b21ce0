# SPDX-License-Identifier: Apache-2.0
"""A table of what runs in a data folder, for a second terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.health import PROBES
from deploy.local.state import SUPERVISOR, ProcessState, read_state

HEADINGS = ("process", "pid", "port", "state", "health", "restarts", "RSS MiB")
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One process as it is now."""

    process: ProcessState
    is_running: bool
    is_healthy: bool
    resident_bytes: int


def rows(home: Path) -> list[Row]:
    """Look at every process that the supervisor of this folder has noted, all at once."""
    processes = read_state(home)
    if not processes:
        return []
    with ThreadPoolExecutor(max_workers=len(processes)) as pool:
        return list(pool.map(_look_at, processes))


def table(rows: Sequence[Row]) -> str:
    """The rows as text, with the memory of all."""
    total = sum(row.resident_bytes for row in rows) / MEBIBYTE
    cells = [HEADINGS, *(_cells(row) for row in rows), ("total", "", "", "", "", "", f"{total:.0f}")]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(_line(line, widths) for line in cells)


def resident_bytes(process: psutil.Process) -> int:
    """Memory of a process and its children; pages that they share, such as PostgreSQL's buffers, count once."""
    with suppress(psutil.Error):
        family = [process, *process.children(recursive=True)]
        return process.memory_info().rss if len(family) == 1 else sum(map(_own_bytes, family))
    return 0


def _own_bytes(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        memory = process.memory_full_info()
        # Only Linux tells a process's share of shared pages.
        return int(getattr(memory, "pss", memory.uss))
    return 0


def _look_at(state: ProcessState) -> Row:
    process = state.find()
    probe = PROBES.get(state.health)
    is_healthy = process is not None and (probe is None or state.port is None or probe(state.port))
    return Row(state, process is not None, is_healthy, _memory_of(state, process) if process else 0)


def _memory_of(state: ProcessState, process: psutil.Process) -> int:
    # The supervisor's children have rows of their own.
    return process.memory_info().rss if state.name == SUPERVISOR else resident_bytes(process)


def _cells(row: Row) -> tuple[str, ...]:
    process = row.process
    health = "healthy" if row.is_healthy else "not healthy" if row.is_running else "gone"
    return (
        process.name,
        str(process.pid or ""),
        str(process.port or ""),
        process.state,
        health,
        str(process.restarts),
        f"{row.resident_bytes / MEBIBYTE:.0f}",
    )


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
