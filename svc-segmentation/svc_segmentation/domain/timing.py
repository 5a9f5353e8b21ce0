# SPDX-License-Identifier: Apache-2.0
"""When a rule may change its answer although nothing happens: the moments that the passing of time brings.

Times and durations are only ever added and subtracted, so each comparison of them is `k * now + terms < 0` with a whole
number `k`: it turns at one moment, which can be calculated. And an event leaves a window at its own time plus the
length of the window.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.expressions import Expression, Kind, parts


@dataclass(frozen=True)
class Expiry:
    """The next event of a name leaves a window."""

    event: str
    window_us: int


@dataclass(frozen=True)
class Turn:
    """`now_factor * now + constant + terms` passes zero; `later` when the answer changes a microsecond after that."""

    now_factor: int
    terms: tuple[tuple[int, Expression], ...]
    constant_us: int
    later: bool


Instant: TypeAlias = Expiry | Turn


def instants(condition: Expression) -> frozenset[Instant]:
    """Return every kind of moment at which time alone may change a condition."""
    found: set[Instant] = set()
    for part in parts(condition):
        if isinstance(part, ex.Count | ex.Sum) and part.window_us is not None:
            found.add(Expiry(part.event, part.window_us))
        elif isinstance(part, ex.Comparison) and part.left.kind in (Kind.TIME, Kind.DURATION):
            found |= _turns(part)
    return frozenset(found)


def _turns(comparison: ex.Comparison) -> set[Instant]:
    terms: Counter[Expression] = Counter()
    left, right = _add(comparison.left, 1, terms), _add(comparison.right, -1, terms)
    now_factor, constant = left[0] + right[0], left[1] + right[1]
    if not now_factor:
        return set()
    factors = tuple((factor, term) for term, factor in terms.items() if factor)
    return {Turn(now_factor, factors, constant, later) for later in _later(comparison.operator, now_factor)}


def _later(operator: str, now_factor: int) -> tuple[bool, ...]:
    """Tell whether an answer changes when both sides are equal (False), a moment later (True), or both."""
    if operator == "=":
        return (False, True)
    changes_when_equal = operator in ("<", ">=") if now_factor > 0 else operator in ("<=", ">")
    # A factor beyond 1 makes the moment a fraction, which is rounded up: then either may be it.
    return (not changes_when_equal,) if abs(now_factor) == 1 else (False, True)


def _add(expression: Expression, sign: int, terms: Counter[Expression]) -> tuple[int, int]:
    """Collect an expression's terms; return the factor of now and the constant."""
    if isinstance(expression, ex.Now):
        return sign, 0
    if isinstance(expression, ex.Constant):
        return 0, sign * int(expression.value or 0)
    if isinstance(expression, ex.Arithmetic):
        left = _add(expression.left, sign, terms)
        right = _add(expression.right, sign if expression.operator == "+" else -sign, terms)
        return left[0] + right[0], left[1] + right[1]
    terms[expression] += sign
    return 0, 0
