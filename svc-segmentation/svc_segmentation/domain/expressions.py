# SPDX-License-Identifier: Apache-2.0
"""What a rule means: expressions whose kinds are known to fit together.

Values may be missing (a trait nobody set, the last time of something that never happened). What is missing stays
missing through arithmetic and functions; a comparison with it is false. So a condition is true or not true, never
unknown, and `!` of it is simply the opposite.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from typing import TypeAlias


class Kind(Enum):
    """What an expression yields; the value is how people are told."""

    BOOL = "bool"
    NUMBER = "number"
    TEXT = "string"
    TIME = "timestamp"
    DURATION = "duration"
    TRAIT = "trait value"
    NULL = "null"


@dataclass(frozen=True)
class Constant:
    """A value that stands in the rule; times and durations in microseconds."""

    kind: Kind
    value: str | Decimal | bool | int | None


@dataclass(frozen=True)
class Trait:
    """A trait, or what lies inside one: keys of objects and positions in lists. Missing when null."""

    name: str
    path: tuple[str | int, ...] = ()
    kind = Kind.TRAIT


@dataclass(frozen=True)
class As:
    """A trait's value if it is of a kind, else missing (a missing bool is false)."""

    kind: Kind
    operand: "Expression"


@dataclass(frozen=True)
class Exists:
    """True when a trait is there."""

    operand: Trait
    kind = Kind.BOOL


@dataclass(frozen=True)
class Now:
    """The moment of evaluation."""

    kind = Kind.TIME


@dataclass(frozen=True)
class Seen:
    """When the customer was seen first, or last."""

    last: bool
    kind = Kind.TIME


@dataclass(frozen=True)
class Count:
    """How many events of a name there were, in all or within the last `window_us` microseconds."""

    event: str
    window_us: int | None = None
    kind = Kind.NUMBER


@dataclass(frozen=True)
class Sum:
    """Sum of a numeric property of events, in all or within the last `window_us` microseconds."""

    event: str
    property: str
    window_us: int | None = None
    kind = Kind.NUMBER


@dataclass(frozen=True)
class Moment:
    """When an event of a name happened first, or last; missing when it never did."""

    event: str
    last: bool
    kind = Kind.TIME


@dataclass(frozen=True)
class InSegment:
    """True when the rule of another segment holds."""

    name: str
    kind = Kind.BOOL


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    operand: "Expression"
    kind = Kind.BOOL


@dataclass(frozen=True)
class Joined:
    """All (`and`) or any (`or`) of several conditions."""

    every: bool
    operands: tuple["Expression", ...]
    kind = Kind.BOOL


@dataclass(frozen=True)
class Comparison:
    """Two operands of one kind; `=` also compares trait values of any sort."""

    operator: str
    left: "Expression"
    right: "Expression"
    kind = Kind.BOOL


@dataclass(frozen=True)
class OneOf:
    """True when the operand equals one of the constants."""

    operand: "Expression"
    constants: tuple[Constant, ...]
    kind = Kind.BOOL


@dataclass(frozen=True)
class Holds:
    """True when a trait that is a list has an item, or one that is an object has a key."""

    container: "Expression"
    item: "Expression"
    kind = Kind.BOOL


@dataclass(frozen=True)
class Arithmetic:
    """`+ - * / %` of numbers, `+ -` of times and durations, `+` of texts. A quotient has 12 decimals."""

    kind: Kind
    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True)
class Choice:
    """One of two expressions."""

    kind: Kind
    condition: "Expression"
    then: "Expression"
    otherwise: "Expression"


@dataclass(frozen=True)
class TextTest:
    """`contains`, `startsWith` or `endsWith`."""

    test: str
    operand: "Expression"
    argument: "Expression"
    kind = Kind.BOOL


@dataclass(frozen=True)
class Matches:
    """True when a regular expression is found in a text; `pattern` is in PostgreSQL's spelling."""

    operand: "Expression"
    pattern: str
    kind = Kind.BOOL


@dataclass(frozen=True)
class InCase:
    """A text with the letters A to Z in lower, or in upper, case."""

    operand: "Expression"
    upper: bool
    kind = Kind.TEXT


@dataclass(frozen=True)
class Size:
    """Characters of a text, items of a list, keys of an object."""

    operand: "Expression"
    kind = Kind.NUMBER


@dataclass(frozen=True)
class Read:
    """A number or a time read from a trait that is a text (or a number); missing when it says something else."""

    kind: Kind
    operand: "Expression"


Expression: TypeAlias = (
    Constant | Trait | As | Exists | Now | Seen | Count | Sum | Moment | InSegment | Not | Joined | Comparison
    | OneOf | Holds | Arithmetic | Choice | TextTest | Matches | InCase | Size | Read
)  # fmt: skip


def parts(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and everything inside it."""
    yield expression
    for field in fields(expression):
        value = getattr(expression, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Expression):
                yield from parts(part)
