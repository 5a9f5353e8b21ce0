# SPDX-License-Identifier: Apache-2.0
"""What a rule looks like once it is parsed, before anybody asked whether it makes sense."""

import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

MAX_DEPTH = 40
"""Levels of nesting that a rule may have."""
MAX_NODES = 2000
"""Operators, operands and calls that a rule may have."""


class RuleError(Exception):
    """A rule that is not one: the reason, and the character that it is about."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


@dataclass(frozen=True)
class Node:
    """A piece of a rule; `at` is the position of its first character."""

    at: int


@dataclass(frozen=True)
class Literal(Node):
    """A value that stands in the rule."""

    value: str | Decimal | bool | None


@dataclass(frozen=True)
class Name(Node):
    """A variable."""

    name: str


@dataclass(frozen=True)
class Select(Node):
    """`operand.field`."""

    operand: "Syntax"
    field: str


@dataclass(frozen=True)
class Index(Node):
    """`operand[key]`."""

    operand: "Syntax"
    key: "Syntax"


@dataclass(frozen=True)
class Call(Node):
    """`function(arguments)` or `receiver.function(arguments)`."""

    function: str
    function_at: int
    receiver: "Syntax | None"
    arguments: tuple["Syntax", ...]


@dataclass(frozen=True)
class Unary(Node):
    """`!operand` or `-operand`."""

    operator: str
    operand: "Syntax"


@dataclass(frozen=True)
class Binary(Node):
    """`left operator right`."""

    operator: str
    operator_at: int
    left: "Syntax"
    right: "Syntax"


@dataclass(frozen=True)
class Chain(Node):
    """Operands that are all joined by `&&`, or all by `||`."""

    operator: str
    operands: tuple["Syntax", ...]


@dataclass(frozen=True)
class Ternary(Node):
    """`condition ? then : otherwise`."""

    condition: "Syntax"
    then: "Syntax"
    otherwise: "Syntax"


@dataclass(frozen=True)
class Items(Node):
    """`[a, b, c]`."""

    items: tuple["Syntax", ...]


Syntax: TypeAlias = Literal | Name | Select | Index | Call | Unary | Binary | Chain | Ternary | Items


def explain(rule: str, error: RuleError) -> str:
    """Say where a rule is wrong and why, and show the place."""
    start = rule.rfind("\n", 0, error.at) + 1
    number, column = rule.count("\n", 0, error.at) + 1, error.at - start + 1
    before, after = rule[start : error.at], rule[error.at :].partition("\n")[0].rstrip("\r")
    if len(before) > _SHOWN:
        before = "…" + before[-_SHOWN:]
    if len(after) > _SHOWN:
        after = after[:_SHOWN] + "…"
    return f"line {number}, column {column}: {error.reason}\n{before}{after}\n{_indent(before)}^"


def _indent(before: str) -> str:
    """Return as much space as the text is wide where letters of Korean take two columns."""
    return "".join(_BLANKS.get(unicodedata.east_asian_width(c), " ") if c != "\t" else "\t" for c in before)


_BLANKS = {"W": "  ", "F": "  "}
_SHOWN = 60
