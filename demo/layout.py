# SPDX-License-Identifier: Apache-2.0
"""Lay text out in columns, minding that Korean characters are twice as wide."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

WIDE = ("W", "F")
GAP = "  "


def width(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in WIDE else 1 for c in text)


def cut(text: str, columns: int) -> str:
    """Shorten a text that is wider than `columns`."""
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return f"{text}…"


def heading(text: str) -> str:
    """Underline a heading."""
    return f"\n{text}\n{'─' * width(text)}"


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Line up rows; the columns in `right` stand to the right."""
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [_line(row, widths, right) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    cells = []
    for column, (text, columns_wide) in enumerate(zip(row, widths, strict=True)):
        space = " " * (columns_wide - width(text))
        cells.append(space + text if column in right else text + space)
    return f"  {GAP.join(cells)}".rstrip()
