# SPDX-License-Identifier: Apache-2.0
"""Say how far a long piece of work has come: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

LOOK_SECONDS = 0.2
LINE_SECONDS = 5.0


class Progress:
    """Counts up to a total that may be unknown; used with `with`."""

    def __init__(self, label: str, total: int | None = None, start: int = 0) -> None:
        self._label = label
        self._total = total
        self._start = self._count = start
        self._remark = ""
        self._begin = time.monotonic()
        self._is_terminal = sys.stdout.isatty()
        self._next_look = 0.0
        self._shown = ""

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._show(is_last=True)

    def advance(self, count: int = 1, remark: str = "") -> None:
        """Say that `count` more are done."""
        self.reach(self._count + count, remark)

    def reach(self, count: int, remark: str = "") -> None:
        """Say that `count` are done in all."""
        self._count, self._remark = count, remark
        if time.monotonic() >= self._next_look:
            self._show()

    def _show(self, is_last: bool = False) -> None:
        self._next_look = time.monotonic() + (LOOK_SECONDS if self._is_terminal else LINE_SECONDS)
        line = self._line()
        if self._is_terminal:
            print(f"\r\033[K  {line}", end="\n" if is_last else "", flush=True)
        elif line != self._shown and (self._count or is_last):
            print(f"  {line}", flush=True)
        self._shown = line

    def _line(self) -> str:
        elapsed = time.monotonic() - self._begin
        count = f"{self._count:,}" if self._total is None else f"{self._count:,} of {self._total:,}"
        done = self._count - self._start
        rate = f", {done / elapsed:,.0f}/s" if elapsed > 1 and done > 100 else ""
        return f"{self._label}: {count}{rate} ({elapsed:.0f} s){' ' + self._remark if self._remark else ''}"
