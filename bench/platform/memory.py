# SPDX-License-Identifier: Apache-2.0
"""What the whole platform holds in memory at rest, by process."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from bench.platform.running import running_platform
from bench.platform.setting import furnish
from bench.report import put_table, table

NAME = "memory"
GOAL_GIB = 2.5
REST_SECONDS = 20.0


def main() -> None:
    """Measure and write the table."""
    with running_platform() as platform:
        furnish(platform)
        time.sleep(REST_SECONDS)
        rows = [(name, *_megabytes(processes)) for name, processes in platform.processes().items()]
    rows.sort(key=lambda row: -row[2])
    total = sum(row[2] for row in rows)
    lines = table(["process", "processes", "PSS, MiB", "RSS, MiB"], rows)
    lines += ["", f"In all {total / 1024:.2f} GiB (PSS); goal: under {GOAL_GIB} GiB."]
    put_table(NAME, lines)
    print("\n".join(lines))


def _megabytes(processes: list[psutil.Process]) -> tuple[int, float, float]:
    """Count processes and sum their memory; PSS shares what several of them map, such as PostgreSQL's buffers."""
    pss = sum(_pss(process) for process in processes)
    rss = sum(process.memory_info().rss for process in processes)
    return len(processes), pss / 2**20, rss / 2**20


def _pss(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)


if __name__ == "__main__":
    main()
