# SPDX-License-Identifier: Apache-2.0
"""The functions that a rule can call: how they are written, and what they mean."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.expressions import Expression, Kind
from svc_segmentation.domain.patterns import PatternError, to_postgres
from svc_segmentation.domain.syntax import Call, Literal, RuleError, Syntax

if TYPE_CHECKING:
    from svc_segmentation.domain.checker import Checker

MAX_DAYS = 36_525
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
MAX_DURATION_US = MAX_DAYS * DAY_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TIME_FORMAT = (
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"([Tt ]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-](0\d|1[0-4]):[0-5]\d)?)?"
)
"""A time as people send it: RFC 3339, or a date alone; UTC where no offset is given."""

_UNITS_US = {
    "weeks": 7 * DAY_US,
    "days": DAY_US,
    "hours": 3600 * SECOND_US,
    "minutes": 60 * SECOND_US,
    "seconds": SECOND_US,
}
_GO_UNITS = {"h": 3600 * SECOND_US, "m": 60 * SECOND_US, "s": SECOND_US, "ms": 1000, "us": 1, "µs": 1}
_GO_DURATION = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:h|ms|m|us|µs|s))+)")

Check = Callable[["Checker", Call, Sequence[Syntax]], Expression]


@dataclass(frozen=True)
class Function:
    """One function: how many arguments it takes (a receiver counts), and how it may be written."""

    usage: str
    least: int
    most: int
    check: Check
    method: bool = False
    plain: bool = True


def _has(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    return ex.Exists(checker.trait(arguments[0]))


def _size(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.value(arguments[0])
    if operand.kind not in (Kind.TEXT, Kind.TRAIT):
        raise RuleError(f"size is of a text or a trait, found a {operand.kind.value}", arguments[0].at)
    return ex.Size(operand)


def _text_test(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.of_kind(arguments[0], Kind.TEXT, f"what {node.function} looks at")
    return ex.TextTest(node.function, operand, checker.of_kind(arguments[1], Kind.TEXT, "the text to look for"))


def _matches(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.of_kind(arguments[0], Kind.TEXT, "what matches looks at")
    pattern = arguments[1]
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
        raise RuleError("the pattern must be a text in quotes", pattern.at)
    try:
        return ex.Matches(operand, to_postgres(pattern.value))
    except PatternError as error:
        raise RuleError(f"the pattern cannot be used: {error}", pattern.at) from error


def _in_case(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.of_kind(arguments[0], Kind.TEXT, f"what {node.function} changes")
    return ex.InCase(operand, upper=node.function == "upperAscii")


def _double(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.value(arguments[0])
    if operand.kind is Kind.NUMBER:
        return operand
    if operand.kind is not Kind.TRAIT:
        raise RuleError(f"double reads a trait, found a {operand.kind.value}", arguments[0].at)
    return ex.Read(Kind.NUMBER, operand)


def _timestamp(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    operand = checker.value(arguments[0])
    if operand.kind is Kind.TRAIT:
        return ex.Read(Kind.TIME, operand)
    if not isinstance(operand, ex.Constant) or operand.kind is not Kind.TEXT:
        raise RuleError("timestamp reads a trait or a text in quotes", arguments[0].at)
    moment = read_time_us(str(operand.value))
    if moment is None:
        raise RuleError('a time is written like "2026-01-31" or "2026-01-31T09:00:00+09:00"', arguments[0].at)
    return ex.Constant(Kind.TIME, moment)


def read_time_us(text: str) -> int | None:
    """Read a time, in microseconds since the epoch; None when the text is no time."""
    if not re.fullmatch(TIME_FORMAT, text, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // (datetime.resolution)


def _duration(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    text = checker.text(arguments[0], "the duration")
    match = _GO_DURATION.fullmatch(text)
    if match is None:
        raise RuleError('a duration is written like "72h", "1h30m" or "45s"', arguments[0].at)
    total = sum(
        (Decimal(number) * _GO_UNITS[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|us|µs|s)", match[2])),
        Decimal(0),
    )
    return _constant_duration(-total if match[1] else total, arguments[0])


def _unit(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    number = arguments[0].value if isinstance(arguments[0], Literal) else None
    if isinstance(number, bool) or not isinstance(number, Decimal):
        raise RuleError(
            f"{node.function} takes a number that stands in the rule, such as {node.function}(7)", arguments[0].at
        )
    return _constant_duration(number * _UNITS_US[node.function], arguments[0])


def _constant_duration(microseconds: Decimal, node: Syntax) -> Expression:
    if abs(microseconds) > MAX_DURATION_US:
        raise RuleError(f"a duration is at most {MAX_DAYS} days", node.at)
    return ex.Constant(Kind.DURATION, int(microseconds))


def _count(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    event = checker.text(arguments[0], "the name of the event")
    return ex.Count(event, checker.window(arguments[1]) if len(arguments) > 1 else None)


def _sum(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    event = checker.text(arguments[0], "the name of the event")
    name = checker.property(arguments[1])
    return ex.Sum(event, name, checker.window(arguments[2]) if len(arguments) > 2 else None)


def _moment(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    return ex.Moment(checker.text(arguments[0], "the name of the event"), last=node.function == "last")


def _segment(checker: "Checker", node: Call, arguments: Sequence[Syntax]) -> Expression:
    return ex.InSegment(checker.text(arguments[0], "the name of the segment"))


def _text_method(name: str) -> Function:
    return Function(f"traits.name.{name}('text')", 2, 2, _text_test, method=True, plain=False)


def _case_method(name: str) -> Function:
    return Function(f"traits.name.{name}()", 1, 1, _in_case, method=True, plain=False)


FUNCTIONS: Mapping[str, Function] = {
    "has": Function("has(traits.name)", 1, 1, _has),
    "size": Function("size(traits.name) or traits.name.size()", 1, 1, _size, method=True),
    "contains": _text_method("contains"),
    "startsWith": _text_method("startsWith"),
    "endsWith": _text_method("endsWith"),
    "matches": Function("traits.name.matches('pattern')", 2, 2, _matches, method=True),
    "lowerAscii": _case_method("lowerAscii"),
    "upperAscii": _case_method("upperAscii"),
    "double": Function("double(traits.name)", 1, 1, _double),
    "timestamp": Function("timestamp('2026-01-31T00:00:00Z') or timestamp(traits.name)", 1, 1, _timestamp),
    "duration": Function("duration('72h')", 1, 1, _duration),
    **{unit: Function(f"{unit}(7)", 1, 1, _unit) for unit in _UNITS_US},
    "count": Function("count('event') or count('event', days(30))", 1, 2, _count),
    "sum": Function("sum('event', 'property') or sum('event', 'property', days(30))", 2, 3, _sum),
    "first": Function("first('event')", 1, 1, _moment),
    "last": Function("last('event')", 1, 1, _moment),
    "segment": Function("segment('name')", 1, 1, _segment),
    "in_segment": Function("in_segment('name')", 1, 1, _segment),
}
