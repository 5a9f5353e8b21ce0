# SPDX-License-Identifier: Apache-2.0
"""Write measured tables into `bench/README.md`, each between its own markers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

README = Path(__file__).parent / "README.md"


def put_table(name: str, lines: Sequence[str], readme: Path = README) -> None:
    """Replace what stands between the markers of `name`; a name that is new is put at the end."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    body = "\n".join([begin, *lines, "", f"*{machine()}, {today()}*", end])
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: body, text)
    else:
        text = f"{text.rstrip()}\n\n## {name.replace('-', ' ').capitalize()}\n\n{body}\n"
    readme.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lay out a Markdown table; numbers stand to the right."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    signs = ["---:" if rows and isinstance(cell, int | float) else "---" for cell in (rows[0] if rows else head)]
    return [_line(head), _line(signs), *(_line(row) for row in texts)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def machine() -> str:
    """Name the machine: processors, memory, system."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} × {_processor()}, {pages / 2**30:.0f} GiB, Python {platform.python_version()}"


def today() -> str:
    """Return the date of the run."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
