# SPDX-License-Identifier: Apache-2.0
"""The operators between two operands: which kinds go together, and what they yield."""

from typing import TYPE_CHECKING

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.expressions import Expression, Kind
from svc_segmentation.domain.syntax import Binary, Items, RuleError, Syntax

if TYPE_CHECKING:
    from svc_segmentation.domain.checker import Checker

_ORDERED = (Kind.NUMBER, Kind.TEXT, Kind.TIME, Kind.DURATION)
_FROM_TRAIT = (Kind.BOOL, Kind.NUMBER, Kind.TEXT)

_RESULTS = {
    (Kind.TIME, "+", Kind.DURATION): Kind.TIME,
    (Kind.DURATION, "+", Kind.TIME): Kind.TIME,
    (Kind.TIME, "-", Kind.DURATION): Kind.TIME,
    (Kind.TIME, "-", Kind.TIME): Kind.DURATION,
    (Kind.DURATION, "+", Kind.DURATION): Kind.DURATION,
    (Kind.DURATION, "-", Kind.DURATION): Kind.DURATION,
}


def check(checker: "Checker", node: Binary) -> Expression:
    """Return what an operator between two operands means; raises `RuleError`."""
    if node.operator == "in":
        return _membership(checker, node)
    if node.operator in "+-*/%":
        return _calculation(checker, node)
    left, right = checker.any(node.left), checker.any(node.right)
    if Kind.NULL in (left.kind, right.kind):
        return _null(node, left, right)
    if node.operator in ("==", "!="):
        equal = _equality(node, left, right)
        return equal if node.operator == "==" else ex.Not(equal)
    return _order(node, left, right)


def _null(node: Binary, left: Expression, right: Expression) -> Expression:
    other = right if left.kind is Kind.NULL else left
    if node.operator not in ("==", "!=") or not isinstance(other, ex.Trait):
        raise RuleError("only a trait can be compared with null, with == or !=", node.operator_at)
    return ex.Exists(other) if node.operator == "!=" else ex.Not(ex.Exists(other))


def _equality(node: Binary, left: Expression, right: Expression) -> Expression:
    kinds = {left.kind, right.kind}
    if len(kinds) > 1 and not (Kind.TRAIT in kinds and kinds & set(_FROM_TRAIT)):
        raise _no_operator(node, left, right)
    if kinds == {Kind.BOOL, Kind.TRAIT}:
        return _equals_bool(left, right)
    kind = left.kind if right.kind is Kind.TRAIT else right.kind
    first, second = as_kind(left, kind), as_kind(right, kind)
    if first is None or second is None:
        raise _no_operator(node, left, right)
    return ex.Comparison("=", first, second)


def _equals_bool(left: Expression, right: Expression) -> Expression:
    """Compare a trait with true or false; a missing trait is neither."""
    trait, condition = (left, right) if left.kind is Kind.TRAIT else (right, left)
    is_true = ex.OneOf(trait, (ex.Constant(Kind.BOOL, True),))
    is_false = ex.OneOf(trait, (ex.Constant(Kind.BOOL, False),))
    return ex.Choice(Kind.BOOL, condition, is_true, is_false)


def _order(node: Binary, left: Expression, right: Expression) -> Expression:
    if left.kind is right.kind is Kind.TRAIT:
        numbers = ex.Comparison(node.operator, ex.As(Kind.NUMBER, left), ex.As(Kind.NUMBER, right))
        texts = ex.Comparison(node.operator, ex.As(Kind.TEXT, left), ex.As(Kind.TEXT, right))
        return ex.Joined(False, (numbers, texts))
    kind = left.kind if right.kind is Kind.TRAIT else right.kind
    first, second = as_kind(left, kind), as_kind(right, kind)
    if first is None or second is None or kind not in _ORDERED:
        raise _no_operator(node, left, right)
    return ex.Comparison(node.operator, first, second)


def _membership(checker: "Checker", node: Binary) -> Expression:
    item = checker.value(node.left)
    if isinstance(node.right, Items):
        return _listed(checker, node, item, node.right)
    container = checker.any(node.right)
    if container.kind is not Kind.TRAIT:
        raise RuleError(f"expected a list after in, found a {container.kind.value}", node.right.at)
    if item.kind not in (*_FROM_TRAIT, Kind.TRAIT):
        raise _no_operator(node, item, container)
    return ex.Holds(container, item)


def _listed(checker: "Checker", node: Binary, item: Expression, listed: Items) -> Expression:
    if item.kind not in (Kind.TEXT, Kind.NUMBER, Kind.TRAIT):
        raise RuleError(f"in compares numbers, texts and traits, found a {item.kind.value}", node.left.at)
    constants, others = [], []
    for entry in listed.items:
        found = checker.value(entry)
        if item.kind is Kind.TRAIT and found.kind not in (*_FROM_TRAIT, Kind.TRAIT):
            raise _no_operator(node, item, found)
        if item.kind is not Kind.TRAIT and as_kind(found, item.kind) is None:
            raise RuleError(f"expected a {item.kind.value} in the list, found a {found.kind.value}", entry.at)
        if isinstance(found, ex.Constant):
            constants.append(found)
        else:
            others.append(_equality(Binary(entry.at, "==", entry.at, node.left, entry), item, found))
    return ex.Joined(False, (ex.OneOf(item, tuple(constants)), *others))


def _calculation(checker: "Checker", node: Binary) -> Expression:
    checker.count_arithmetic(node)
    left, right = checker.value(node.left), checker.value(node.right)
    kind = _RESULTS.get((left.kind, node.operator, right.kind))
    if kind is not None:
        return _folded(ex.Arithmetic(kind, node.operator, left, right))
    wanted = Kind.TEXT if node.operator == "+" and Kind.TEXT in (left.kind, right.kind) else Kind.NUMBER
    first, second = as_kind(left, wanted), as_kind(right, wanted)
    if first is None or second is None:
        raise _no_operator(node, left, right)
    return ex.Arithmetic(wanted, node.operator, first, second)


def as_kind(found: Expression, kind: Kind) -> Expression | None:
    """Take an expression for one of a kind, None when it cannot be."""
    if found.kind is kind:
        return found
    return ex.As(kind, found) if found.kind is Kind.TRAIT and kind in _FROM_TRAIT else None


def fitting(found: Expression, node: Syntax, kind: Kind, what: str) -> Expression:
    """Take an expression for one of a kind; raises `RuleError` that says what it is of."""
    fitting = as_kind(found, kind)
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
    return RuleError(
        f"a {left.kind.value} and a {right.kind.value} cannot go with {node.operator}{hint}", node.operator_at
    )


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
