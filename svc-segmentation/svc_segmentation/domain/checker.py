# SPDX-License-Identifier: Apache-2.0
"""Find out what a rule means, and whether everything in it fits together."""

import difflib
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, NoReturn

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain import functions as known
from svc_segmentation.domain.expressions import Expression, Kind
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

_ORDERED = (Kind.NUMBER, Kind.TEXT, Kind.TIME, Kind.DURATION)
_FROM_TRAIT = (Kind.BOOL, Kind.NUMBER, Kind.TEXT)
_VARIABLES: Mapping[str, Expression] = {
    "now": ex.Now(),
    "first_seen": ex.Seen(last=False),
    "last_seen": ex.Seen(last=True),
}


def check(syntax: Syntax, *, properties: Collection[str] | None) -> Expression:
    """Return the condition that a rule states; raises `RuleError`. Only `properties` can be summed (None is any)."""
    return _Checker(properties).condition(syntax)


class _Checker:
    def __init__(self, properties: Collection[str] | None) -> None:
        self._properties = properties
        self._arithmetic = 0

    def condition(self, node: Syntax) -> Expression:
        """Return a condition; a trait counts as true when it is the value true."""
        found = self._value(node)
        if found.kind is Kind.BOOL:
            return found
        if found.kind is Kind.TRAIT:
            return ex.As(Kind.BOOL, found)
        raise RuleError(f"expected a condition, found a {found.kind.value}", node.at)

    def _value(self, node: Syntax) -> Expression:
        return _CHECKS[type(node)](self, node)

    def of_kind(self, node: Syntax, kind: Kind, what: str) -> Expression:
        """Return an operand of one kind; a trait is taken for one of that kind."""
        return _fitting(self._value(node), node, kind, what)

    def value(self, node: Syntax) -> Expression:
        """Return a value of any kind but null."""
        found = self._value(node)
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
        found = self._value(node)
        if found.kind is not Kind.DURATION:
            raise RuleError(f"the window must be a duration such as days(30), found a {found.kind.value}", node.at)
        if not isinstance(found, ex.Constant) or not isinstance(found.value, int):
            raise RuleError("the window must be the same for every customer, such as days(30)", node.at)
        if not 0 < found.value <= known.MAX_DURATION_US:
            raise RuleError(f"the window must be longer than 0 and at most {known.MAX_DAYS} days", node.at)
        return found.value

    def trait(self, node: Syntax) -> ex.Trait:
        """Return the trait that a path such as `traits.address.city` leads to."""
        found = self._value(node)
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
        found = self._value(operand)
        if not isinstance(found, ex.Trait):
            raise RuleError(f"a {found.kind.value} has no {key!r} inside; only traits have", node.at)
        return ex.Trait(found.name, (*found.path, key))

    def call(self, node: Call) -> Expression:
        function = known.FUNCTIONS.get(node.function)
        if function is None:
            if node.receiver is None and node.function in _VARIABLES:
                raise RuleError(f"{node.function} is not a function; write {node.function} without ()", node.at)
            hint = _similar(node.function, [*known.FUNCTIONS])
            raise RuleError(f"unknown function {node.function!r}{hint}", node.at)
        arguments = node.arguments if node.receiver is None else (node.receiver, *node.arguments)
        is_method = node.receiver is not None
        fits = function.least <= len(arguments) <= function.most
        if (is_method and not function.method) or (not is_method and not function.plain) or not fits:
            raise RuleError(f"write {function.usage}", node.at)
        return function.check(self, node, arguments)

    def unary(self, node: Unary) -> Expression:
        if node.operator == "!":
            return ex.Not(self.condition(node.operand))
        operand = self._value(node.operand)
        if isinstance(operand, ex.Constant) and operand.kind in (Kind.NUMBER, Kind.DURATION):
            return ex.Constant(operand.kind, -operand.value)  # type: ignore[operator]
        kind = Kind.DURATION if operand.kind is Kind.DURATION else Kind.NUMBER
        zero = ex.Constant(kind, 0 if kind is Kind.DURATION else Decimal(0))
        self._count_arithmetic(node)
        return ex.Arithmetic(kind, "-", zero, _fitting(operand, node.operand, kind, "what - turns round"))

    def chain(self, node: Chain) -> Expression:
        return ex.Joined(node.operator == "&&", tuple(self.condition(operand) for operand in node.operands))

    def ternary(self, node: Ternary) -> Expression:
        condition = self.condition(node.condition)
        then, otherwise = self.value(node.then), self.value(node.otherwise)
        kind = otherwise.kind if then.kind is Kind.TRAIT else then.kind
        first, second = _as_kind(then, kind), _as_kind(otherwise, kind)
        if first is None or second is None:
            raise RuleError(f"a ? {then.kind.value} : {otherwise.kind.value}: both must be of one kind", node.at)
        if kind in (Kind.TIME, Kind.DURATION):
            raise RuleError("? : chooses between conditions, numbers or texts; put the comparison inside", node.at)
        return ex.Choice(kind, condition, first, second)

    def items(self, node: Items) -> NoReturn:
        raise RuleError("a list can only stand after in", node.at)

    def binary(self, node: Binary) -> Expression:
        if node.operator == "in":
            return self._membership(node)
        if node.operator in "+-*/%":
            return self._calculation(node)
        left, right = self._value(node.left), self._value(node.right)
        if Kind.NULL in (left.kind, right.kind):
            return self._null(node, left, right)
        if node.operator in ("==", "!="):
            equal = self._equality(node, left, right)
            return equal if node.operator == "==" else ex.Not(equal)
        return self._order(node, left, right)

    def _null(self, node: Binary, left: Expression, right: Expression) -> Expression:
        other = right if left.kind is Kind.NULL else left
        if node.operator not in ("==", "!=") or not isinstance(other, ex.Trait):
            raise RuleError("only a trait can be compared with null, with == or !=", node.at)
        return ex.Exists(other) if node.operator == "!=" else ex.Not(ex.Exists(other))

    def _equality(self, node: Binary, left: Expression, right: Expression) -> Expression:
        kinds = {left.kind, right.kind}
        if len(kinds) > 1 and not (Kind.TRAIT in kinds and kinds & set(_FROM_TRAIT)):
            raise _no_operator(node, left, right)
        if kinds == {Kind.BOOL, Kind.TRAIT}:
            return self._equals_bool(left, right)
        kind = left.kind if right.kind is Kind.TRAIT else right.kind
        first, second = _as_kind(left, kind), _as_kind(right, kind)
        if first is None or second is None:
            raise _no_operator(node, left, right)
        return ex.Comparison("=", first, second)

    def _equals_bool(self, left: Expression, right: Expression) -> Expression:
        """Compare a trait with true or false; a missing trait is neither."""
        trait, condition = (left, right) if left.kind is Kind.TRAIT else (right, left)
        is_true = ex.OneOf(trait, (ex.Constant(Kind.BOOL, True),))
        is_false = ex.OneOf(trait, (ex.Constant(Kind.BOOL, False),))
        return ex.Choice(Kind.BOOL, condition, is_true, is_false)

    def _order(self, node: Binary, left: Expression, right: Expression) -> Expression:
        if left.kind is right.kind is Kind.TRAIT:
            numbers = ex.Comparison(node.operator, ex.As(Kind.NUMBER, left), ex.As(Kind.NUMBER, right))
            texts = ex.Comparison(node.operator, ex.As(Kind.TEXT, left), ex.As(Kind.TEXT, right))
            return ex.Joined(False, (numbers, texts))
        kind = left.kind if right.kind is Kind.TRAIT else right.kind
        first, second = _as_kind(left, kind), _as_kind(right, kind)
        if first is None or second is None or kind not in _ORDERED:
            raise _no_operator(node, left, right)
        return ex.Comparison(node.operator, first, second)

    def _membership(self, node: Binary) -> Expression:
        item = self.value(node.left)
        if isinstance(node.right, Items):
            return self._listed(node, item, node.right)
        container = self._value(node.right)
        if container.kind is not Kind.TRAIT:
            raise RuleError(f"expected a list after in, found a {container.kind.value}", node.right.at)
        if item.kind not in (*_FROM_TRAIT, Kind.TRAIT):
            raise _no_operator(node, item, container)
        return ex.Holds(container, item)

    def _listed(self, node: Binary, item: Expression, listed: Items) -> Expression:
        if item.kind not in (Kind.TEXT, Kind.NUMBER, Kind.TRAIT):
            raise RuleError(f"in compares numbers, texts and traits, found a {item.kind.value}", node.left.at)
        constants, others = [], []
        for entry in listed.items:
            found = self.value(entry)
            if item.kind is Kind.TRAIT and found.kind not in (*_FROM_TRAIT, Kind.TRAIT):
                raise _no_operator(node, item, found)
            if item.kind is not Kind.TRAIT and _as_kind(found, item.kind) is None:
                raise RuleError(f"expected a {item.kind.value} in the list, found a {found.kind.value}", entry.at)
            if isinstance(found, ex.Constant):
                constants.append(found)
            else:
                others.append(self._equality(Binary(entry.at, "==", node.left, entry), item, found))
        return ex.Joined(False, (ex.OneOf(item, tuple(constants)), *others))

    def _count_arithmetic(self, node: Syntax) -> None:
        self._arithmetic += 1
        if self._arithmetic > MAX_ARITHMETIC:
            raise RuleError(f"at most {MAX_ARITHMETIC} arithmetic operators", node.at)

    def _calculation(self, node: Binary) -> Expression:
        self._count_arithmetic(node)
        left, right = self.value(node.left), self.value(node.right)
        kind = _RESULTS.get((left.kind, node.operator, right.kind))
        if kind is not None:
            return _folded(ex.Arithmetic(kind, node.operator, left, right))
        wanted = Kind.TEXT if node.operator == "+" and Kind.TEXT in (left.kind, right.kind) else Kind.NUMBER
        first, second = _as_kind(left, wanted), _as_kind(right, wanted)
        if first is None or second is None:
            raise _no_operator(node, left, right)
        return ex.Arithmetic(wanted, node.operator, first, second)


_RESULTS = {
    (Kind.TIME, "+", Kind.DURATION): Kind.TIME,
    (Kind.DURATION, "+", Kind.TIME): Kind.TIME,
    (Kind.TIME, "-", Kind.DURATION): Kind.TIME,
    (Kind.TIME, "-", Kind.TIME): Kind.DURATION,
    (Kind.DURATION, "+", Kind.DURATION): Kind.DURATION,
    (Kind.DURATION, "-", Kind.DURATION): Kind.DURATION,
}

_CHECKS: Mapping[type, Callable[[_Checker, Any], Expression]] = {
    Literal: _Checker.literal,
    Name: _Checker.name,
    Select: _Checker.select,
    Index: _Checker.index,
    Call: _Checker.call,
    Unary: _Checker.unary,
    Binary: _Checker.binary,
    Chain: _Checker.chain,
    Ternary: _Checker.ternary,
    Items: _Checker.items,
}


def _as_kind(found: Expression, kind: Kind) -> Expression | None:
    """Take an expression for one of a kind, None when it cannot be."""
    if found.kind is kind:
        return found
    return ex.As(kind, found) if found.kind is Kind.TRAIT and kind in _FROM_TRAIT else None


def _fitting(found: Expression, node: Syntax, kind: Kind, what: str) -> Expression:
    fitting = _as_kind(found, kind)
    if fitting is None:
        raise RuleError(f"{what} must be a {kind.value}, found a {found.kind.value}{_hint(found, kind)}", node.at)
    return fitting


def _folded(sum_of: ex.Arithmetic) -> Expression:
    """Calculate durations that stand in the rule, so that `days(1) + hours(12)` can be a window."""
    left, right = sum_of.left, sum_of.right
    if isinstance(left, ex.Constant) and isinstance(right, ex.Constant):
        first, second = int(left.value or 0), int(right.value or 0)
        return ex.Constant(sum_of.kind, first + second if sum_of.operator == "+" else first - second)
    return sum_of


def _no_operator(node: Binary, left: Expression, right: Expression) -> RuleError:
    hint = _hint(left, right.kind) or _hint(right, left.kind)
    if Kind.BOOL in (left.kind, right.kind) and Kind.NUMBER in (left.kind, right.kind):
        hint = hint or "; join two comparisons with &&"
    return RuleError(f"a {left.kind.value} and a {right.kind.value} cannot go with {node.operator}{hint}", node.at)


def _hint(found: Expression, kind: Kind) -> str:
    if found.kind is Kind.TRAIT and kind is Kind.TIME:
        return "; write timestamp(traits.…) to read a time from a trait"
    if found.kind is Kind.TEXT and kind is Kind.TIME:
        return '; write timestamp("2026-01-31T00:00:00Z") for a time'
    if found.kind is Kind.NUMBER and kind is Kind.DURATION:
        return "; write days(…), hours(…) or minutes(…)"
    if found.kind is Kind.TEXT and kind is Kind.NUMBER:
        return "; write double(…) to read a number from a text"
    return ""


def _similar(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    folded = [other for other in names if other.lower() == name.lower().replace("_", "")]
    best = [*folded, *close]
    return f"; did you mean {best[0]}?" if best else ""
