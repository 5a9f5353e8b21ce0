# SPDX-License-Identifier: Apache-2.0
"""The file that tells other programs, and the next supervisor, what runs in a data folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from chassis.engines.folders import write_private

FILE = "state.json"
SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process as it was when its state last changed."""

    name: str
    pid: int | None
    created: float | None
    """When the process began; tells it from a later one with the same number."""
    state: str
    restarts: int
    port: int | None
    health: str

    def find(self) -> psutil.Process | None:
        """The running process, if it is still the same one."""
        return find_process(self.pid, self.created)


def find_process(pid: int | None, created: float | None) -> psutil.Process | None:
    """The running process with this number and time of birth."""
    with suppress(psutil.Error):
        if pid is not None and created is not None:
            process = psutil.Process(pid)
            is_same = abs(process.create_time() - created) < 1
            return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def created_at(pid: int | None) -> float | None:
    """When a process began."""
    with suppress(psutil.Error):
        return psutil.Process(pid).create_time() if pid is not None else None
    return None


def write_state(home: Path, processes: Sequence[ProcessState]) -> None:
    """Replace the file in one step."""
    rows = [asdict(process) for process in processes]
    write_private(home / FILE, json.dumps({"processes": rows}, indent=1) + "\n")


def read_state(home: Path) -> list[ProcessState]:
    """What was last written; nothing when there is no file that makes sense."""
    try:
        rows = json.loads((home / FILE).read_text(encoding="utf-8"))["processes"]
        return [ProcessState(**row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
