# SPDX-License-Identifier: Apache-2.0
"""Find out what a rule means, and whether everything in it fits together."""

import difflib
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain import functions as known
from svc_segmentation.domain import operators
from svc_segmentation.domain.expressions import Expression, Kind
from svc_segmentation.domain.operators import as_kind, fitting
from svc_segmentation.domain.syntax import (
    Binary,
    Call,
    Chain,
    Index,
    Items,
    Literal,
    Name,
    RuleError,
    Select,
    Syntax,
    Ternary,
    Unary,
)

MAX_ARITHMETIC = 200
"""Arithmetic operators in one rule; bounds how large a number can become."""

_VARIABLES: Mapping[str, Expression] = {
    "now": ex.Now(),
    "first_seen": ex.Seen(last=False),
    "last_seen": ex.Seen(last=True),
}


def check(syntax: Syntax, *, properties: Collection[str] | None) -> Expression:
    """Return the condition that a rule states; raises `RuleError`. Only `properties` can be summed (None is any)."""
    return Checker(properties).condition(syntax)


class Checker:
    def __init__(self, properties: Collection[str] | None) -> None:
        self._properties = properties
        self._arithmetic = 0

    def condition(self, node: Syntax) -> Expression:
        """Return a condition; a trait counts as true when it is the value true."""
        found = self.any(node)
        if found.kind is Kind.BOOL:
            return found
        if found.kind is Kind.TRAIT:
            return ex.As(Kind.BOOL, found)
        raise RuleError(f"expected a condition, found a {found.kind.value}", node.at)

    def any(self, node: Syntax) -> Expression:
        """Return whatever a piece of a rule means."""
        return _CHECKS[type(node)](self, node)

    def of_kind(self, node: Syntax, kind: Kind, what: str) -> Expression:
        """Return an operand of one kind; a trait is taken for one of that kind."""
        return fitting(self.any(node), node, kind, what)

    def value(self, node: Syntax) -> Expression:
        """Return a value of any kind but null."""
        found = self.any(node)
        if found.kind is Kind.NULL:
            raise RuleError("null can only be compared with == and !=", node.at)
        return found

    def text(self, node: Syntax, what: str) -> str:
        """Return a text that stands in the rule."""
        if isinstance(node, Literal) and isinstance(node.value, str):
            if not node.value:
                raise RuleError(f"{what} must not be empty", node.at)
            return node.value
        raise RuleError(f"{what} must be a text in quotes", node.at)

    def property(self, node: Syntax) -> str:
        """Return the name of a property that is summed."""
        name = self.text(node, "the property")
        known_as = "revenue" if name.startswith("revenue.") else name
        if self._properties is not None and known_as not in self._properties:
            raise RuleError(
                f"the property {name!r} is not summed; these are: {', '.join(sorted(self._properties))}", node.at
            )
        return name

    def window(self, node: Syntax) -> int:
        """Return the length of a window in microseconds."""
        found = self.any(node)
        if found.kind is not Kind.DURATION:
            raise RuleError(f"the window must be a duration such as days(30), found a {found.kind.value}", node.at)
        if not isinstance(found, ex.Constant) or not isinstance(found.value, int):
            raise RuleError("the window must be the same for every customer, such as days(30)", node.at)
        if not 0 < found.value <= known.MAX_DURATION_US:
            raise RuleError(f"the window must be longer than 0 and at most {known.MAX_DAYS} days", node.at)
        return found.value

    def trait(self, node: Syntax) -> ex.Trait:
        """Return the trait that a path such as `traits.address.city` leads to."""
        found = self.any(node)
        if not isinstance(found, ex.Trait):
            raise RuleError("expected a trait, such as traits.city", node.at)
        return found

    def literal(self, node: Literal) -> Expression:
        if node.value is None:
            return ex.Constant(Kind.NULL, None)
        if isinstance(node.value, bool):
            return ex.Constant(Kind.BOOL, node.value)
        return ex.Constant(Kind.TEXT if isinstance(node.value, str) else Kind.NUMBER, node.value)

    def name(self, node: Name) -> Expression:
        if node.name in _VARIABLES:
            return _VARIABLES[node.name]
        if node.name == "traits":
            raise RuleError('traits holds all traits; name one, such as traits.city or traits["도시"]', node.at)
        if node.name in known.FUNCTIONS:
            raise RuleError(f"{node.name} is a function; write {known.FUNCTIONS[node.name].usage}", node.at)
        hint = _similar(node.name, [*_VARIABLES, "traits"]) or f"; did you mean traits.{node.name}?"
        raise RuleError(f"unknown variable {node.name!r}{hint}", node.at)

    def select(self, node: Select) -> Expression:
        return self._inside(node.operand, node.field, node)

    def index(self, node: Index) -> Expression:
        key = node.key.value if isinstance(node.key, Literal) else None
        if isinstance(key, str):
            return self._inside(node.operand, key, node)
        if isinstance(key, Decimal) and key == int(key) and 0 <= key < 2**31:
            return self._inside(node.operand, int(key), node)
        raise RuleError("expected a name in quotes or a position from 0 in [ ]", node.key.at)

    def _inside(self, operand: Syntax, key: str | int, node: Select | Index) -> Expression:
        if isinstance(operand, Name) and operand.name == "traits":
            if isinstance(key, int):
                raise RuleError("traits have names, not positions", node.at)
            return ex.Trait(key)
        found = self.any(operand)
        if not isinstance(found, ex.Trait):
            raise RuleError(f"a {found.kind.value} has no {key!r} inside; only traits have", node.at)
        return ex.Trait(found.name, (*found.path, key))

    def call(self, node: Call) -> Expression:
        function = known.FUNCTIONS.get(node.function)
        if function is None:
            if node.receiver is None and node.function in _VARIABLES:
                raise RuleError(
                    f"{node.function} is not a function; write {node.function} without ()", node.function_at
                )
            hint = _similar(node.function, [*known.FUNCTIONS])
            raise RuleError(f"unknown function {node.function!r}{hint}", node.function_at)
        arguments = node.arguments if node.receiver is None else (node.receiver, *node.arguments)
        is_method = node.receiver is not None
        fits = function.least <= len(arguments) <= function.most
        if (is_method and not function.method) or (not is_method and not function.plain) or not fits:
            raise RuleError(f"write {function.usage}", node.function_at)
        return function.check(self, node, arguments)

    def unary(self, node: Unary) -> Expression:
        if node.operator == "!":
            return ex.Not(self.condition(node.operand))
        operand = self.any(node.operand)
        if isinstance(operand, ex.Constant) and operand.kind in (Kind.NUMBER, Kind.DURATION):
            return ex.Constant(operand.kind, -operand.value)  # type: ignore[operator]
        kind = Kind.DURATION if operand.kind is Kind.DURATION else Kind.NUMBER
        zero = ex.Constant(kind, 0 if kind is Kind.DURATION else Decimal(0))
        self.count_arithmetic(node)
        return ex.Arithmetic(kind, "-", zero, fitting(operand, node.operand, kind, "what - turns round"))

    def chain(self, node: Chain) -> Expression:
        return ex.Joined(node.operator == "&&", tuple(self.condition(operand) for operand in node.operands))

    def ternary(self, node: Ternary) -> Expression:
        condition = self.condition(node.condition)
        then, otherwise = self.value(node.then), self.value(node.otherwise)
        kind = otherwise.kind if then.kind is Kind.TRAIT else then.kind
        first, second = as_kind(then, kind), as_kind(otherwise, kind)
        if first is None or second is None:
            raise RuleError(f"a ? {then.kind.value} : {otherwise.kind.value}: both must be of one kind", node.at)
        if kind in (Kind.TIME, Kind.DURATION):
            raise RuleError("? : chooses between conditions, numbers or texts; put the comparison inside", node.at)
        return ex.Choice(kind, condition, first, second)

    def items(self, node: Items) -> NoReturn:
        raise RuleError("a list can only stand after in", node.at)

    def binary(self, node: Binary) -> Expression:
        return operators.check(self, node)

    def count_arithmetic(self, node: Syntax) -> None:
        """Count an arithmetic operator; raises when there are too many."""
        self._arithmetic += 1
        if self._arithmetic > MAX_ARITHMETIC:
            raise RuleError(f"at most {MAX_ARITHMETIC} arithmetic operators", node.at)


_CHECKS: Mapping[type, Callable[[Checker, Any], Expression]] = {
    Literal: Checker.literal,
    Name: Checker.name,
    Select: Checker.select,
    Index: Checker.index,
    Call: Checker.call,
    Unary: Checker.unary,
    Binary: Checker.binary,
    Chain: Checker.chain,
    Ternary: Checker.ternary,
    Items: Checker.items,
}


def _similar(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    folded = [other for other in names if other.lower() == name.lower().replace("_", "")]
    best = [*folded, *close]
    return f"; did you mean {best[0]}?" if best else ""
