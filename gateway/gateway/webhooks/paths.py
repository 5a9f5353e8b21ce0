# SPDX-License-Identifier: Apache-2.0
"""Paths into JSON, the part of JSONPath (RFC 9535) that names things.

Such as `$.order.items[0].sku`, `@['상품']`, `$.lines[*].id`. `$` is the whole body, `@` the element that an event is
made of. What is not there is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(r"""\.([^\W\d][\w-]*)|\['([^']*)'\]|\["([^"]*)"\]|\[(\d{1,6})\]|(\[\*\])""")


class _Every:
    """The step `[*]`."""


_EVERY = _Every()


@dataclass(frozen=True)
class Path:
    """A path that was read already."""

    root: str
    steps: tuple[str | int | _Every, ...]

    @classmethod
    def read(cls, text: str) -> Path:
        """Read a path; raises ValueError that quotes it."""
        steps: list[str | int | _Every] = []
        position = 1
        while position < len(text):
            found = _STEP.match(text, position)
            if found is None:
                raise ValueError(f"{text!r} is not a path: see position {position + 1}")
            name, single, double, index, every = found.groups()
            steps.append(_EVERY if every else int(index) if index else name or single or double or "")
            position = found.end()
        return cls(text[:1], tuple(steps))

    def find(self, root: Any, current: Any) -> Any:
        """Return what the path names."""
        return _walk(root if self.root == "$" else current, self.steps)


def is_path(text: str) -> bool:
    """Tell a path from a constant; `$$…` is the constant `$…`."""
    return text[:1] in ("$", "@") and text[:2] not in ("$$", "@@")


def _walk(value: Any, steps: tuple[str | int | _Every, ...]) -> Any:
    for position, step in enumerate(steps):
        if isinstance(step, _Every):
            rest = steps[position + 1 :]
            return [_walk(element, rest) for element in value] if isinstance(value, list) else None
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else None
    return value
