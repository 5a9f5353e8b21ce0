# SPDX-License-Identifier: Apache-2.0
"""Rules as one SQL statement.

All rules share one look at each profile: whatever any of them asks is a column of `facts`, and every rule is a boolean
column over those. Only the structure of a rule enters the text; names and values are bound parameters. A condition is
never NULL: each comparison is wrapped where it stands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.expressions import Expression, Kind
from svc_segmentation.domain.functions import TIME_FORMAT
from svc_segmentation.domain.segments import Judge
from svc_segmentation.domain.timing import Expiry, Instant, Turn
from svc_segmentation.store.facts import NOW, Facts

_TYPES = {Kind.TEXT: "text", Kind.NUMBER: "numeric", Kind.TIME: "bigint", Kind.DURATION: "bigint"}
_DECIMALS = "0.000000000000000000000000000000"
"""Added before a division, so that PostgreSQL works with 30 decimals before it rounds to 12."""

_TAKEN_AS = {
    Kind.BOOL: "COALESCE({0} = CAST('true' AS jsonb), FALSE)",
    Kind.NUMBER: "CASE WHEN jsonb_typeof({0}) = 'number' THEN CAST({0} AS numeric) END",
    Kind.TEXT: "CASE WHEN jsonb_typeof({0}) = 'string' THEN {0} #>> '{{}}' END",
}
_SIZE = (
    "CAST(CASE jsonb_typeof({0}) WHEN 'string' THEN char_length({0} #>> '{{}}')"
    " WHEN 'array' THEN jsonb_array_length({0})"
    " WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys({0})) END AS numeric)"
)
_HOLDS = (
    "COALESCE(CASE jsonb_typeof({0})"
    " WHEN 'array' THEN EXISTS (SELECT FROM jsonb_array_elements({0}) AS e (v) WHERE v = {1})"
    " WHEN 'object' THEN jsonb_typeof({1}) = 'string' AND jsonb_exists({0}, {1} #>> '{{}}') END, FALSE)"
)
_TEXT_TESTS = {
    "contains": "COALESCE(strpos({0}, {1}) > 0, FALSE)",
    "startsWith": "COALESCE(starts_with({0}, {1}), FALSE)",
    "endsWith": "COALESCE(right({0}, char_length({1})) = {1}, FALSE)",
}


class RuleSql:
    """Builds the common table expressions of a statement, and its parameters."""

    def __init__(self) -> None:
        self._facts = Facts()
        self._columns: dict[str, str] = {}

    @property
    def parameters(self) -> dict[str, Any]:
        """What is bound so far."""
        return self._facts.parameters

    def bind(self, value: object, sql_type: str) -> str:
        """Return a parameter with a value."""
        return self._facts.bind(value, sql_type)

    def judged(self, judges: Sequence[Judge]) -> str:
        """Return the tables `facts` and `judged`, which has a column `m<i>` for each rule, and `due_us`.

        A table `people (profile_id)` must come before them. Judges are in order of reference.
        """
        levels: list[list[str]] = []
        level_of: dict[str, int] = {}
        for position, judge in enumerate(judges):
            level = max((level_of[name] + 1 for name in judge.rule.segments), default=0)
            if level == len(levels):
                levels.append([])
            condition = self.condition(judge.rule.condition)
            levels[level].append(f"{condition} AS m{position}")
            level_of[judge.name], self._columns[judge.name] = level, f"m{position}"
        due = self._due({instant for judge in judges for instant in judge.rule.instants})
        # OFFSET 0 keeps the planner from writing out again whatever is used more than once.
        fence = " OFFSET 0" if len(levels) > 1 else ""
        laterals = "".join(
            f"\n    CROSS JOIN LATERAL (SELECT {', '.join(rules)}{fence}) AS level{number}"
            for number, rules in enumerate(levels)
        )
        columns = "".join(f", m{position}" for position in range(len(judges)))
        judged = f"SELECT profile_id{columns}, {due} AS due_us FROM facts{laterals}"  # noqa: S608
        return f"{self._facts.table()}, judged AS (\n    {judged}\n)"

    def condition(self, expression: Expression) -> str:
        """Return a condition as SQL."""
        return _WRITERS[type(expression)](self, expression)

    write = condition

    def constant(self, constant: ex.Constant) -> str:
        if constant.kind is Kind.BOOL:
            return "TRUE" if constant.value else "FALSE"
        return self.bind(constant.value, _TYPES[constant.kind])

    def trait(self, trait: ex.Trait) -> str:
        return self._facts.trait(trait)

    def as_kind(self, taken: ex.As) -> str:
        return self._once(_TAKEN_AS[taken.kind], taken.operand)

    def exists(self, expression: ex.Exists) -> str:
        return f"({self.write(expression.operand)} IS NOT NULL)"

    def now(self, _: ex.Now) -> str:
        return NOW

    def seen(self, seen: ex.Seen) -> str:
        return self._facts.seen(last=seen.last)

    def count(self, count: ex.Count) -> str:
        if count.window_us is None:
            return f"COALESCE({self._facts.of_events(count.event, 'sum(CAST(d.count AS numeric))')}, 0)"
        edge = self._facts.edge(count.window_us)
        apart = f"(SELECT count(*) FROM unnest(d.times_us) AS u (t) WHERE t > {edge})"  # noqa: S608
        within = f"sum(CAST(CASE WHEN d.first_us > {edge} THEN d.count ELSE {apart} END AS numeric))"
        return f"COALESCE({self._facts.of_events(count.event, within, edge)}, 0)"

    def sum(self, total: ex.Sum) -> str:
        name = self.bind(total.property, "text")
        apart = "SELECT sum(a) FROM unnest(d.amount_properties, d.amount_times_us, d.amounts) AS u (p, t, a)"
        older = f"COALESCE(CAST(d.older_amounts ->> {name} AS numeric), 0)"
        if total.window_us is None:
            every = f"sum(COALESCE(({apart} WHERE p = {name}), 0) + {older})"
            return f"COALESCE({self._facts.of_events(total.event, every)}, 0)"
        edge = self._facts.edge(total.window_us)
        older = f"CASE WHEN d.first_us > {edge} THEN {older} ELSE 0 END"
        within = f"sum(COALESCE(({apart} WHERE p = {name} AND t > {edge}), 0) + {older})"
        return f"COALESCE({self._facts.of_events(total.event, within, edge)}, 0)"

    def moment(self, moment: ex.Moment) -> str:
        return self._facts.of_events(moment.event, "max(d.last_us)" if moment.last else "min(d.first_us)")

    def in_segment(self, reference: ex.InSegment) -> str:
        return self._columns[reference.name]

    def negation(self, expression: ex.Not) -> str:
        return f"(NOT {self.condition(expression.operand)})"

    def joined(self, joined: ex.Joined) -> str:
        word = " AND " if joined.every else " OR "
        return f"({word.join(self.condition(operand) for operand in joined.operands)})"

    def comparison(self, comparison: ex.Comparison) -> str:
        left, right = self.write(comparison.left), self.write(comparison.right)
        if comparison.left.kind is Kind.TEXT and comparison.operator != "=":
            left, right = f'({left}) COLLATE "C"', f'({right}) COLLATE "C"'
        return f"COALESCE({left} {comparison.operator} {right}, FALSE)"

    def one_of(self, one_of: ex.OneOf) -> str:
        values = [constant.value for constant in one_of.constants]
        if not values:
            return "FALSE"
        operand = self.write(one_of.operand)
        if one_of.operand.kind is Kind.TRAIT:
            listed = f"CAST({self.bind([_json(value) for value in values], 'text[]')} AS jsonb[])"
        else:
            listed = self.bind(values, f"{_TYPES[one_of.operand.kind]}[]")
        return f"COALESCE({operand} = ANY ({listed}), FALSE)"

    def holds(self, holds: ex.Holds) -> str:
        return self._once(_HOLDS, holds.container, holds.item, as_json=True)

    def arithmetic(self, sum_of: ex.Arithmetic) -> str:
        left, right = self.write(sum_of.left), self.write(sum_of.right)
        if sum_of.kind is Kind.TEXT:
            return f"({left} || {right})"
        left, right = f"CAST({left} AS numeric)", f"CAST({right} AS numeric)"
        if sum_of.operator == "/":
            return f"round(({left} + {_DECIMALS}) / NULLIF({right}, 0), 12)"
        if sum_of.operator == "%":
            return f"({left} % NULLIF({right}, 0))"
        return f"({left} {sum_of.operator} {right})"

    def choice(self, choice: ex.Choice) -> str:
        condition = self.condition(choice.condition)
        return f"CASE WHEN {condition} THEN {self.write(choice.then)} ELSE {self.write(choice.otherwise)} END"

    def text_test(self, test: ex.TextTest) -> str:
        return self._once(_TEXT_TESTS[test.test], test.operand, test.argument)

    def matches(self, matches: ex.Matches) -> str:
        return f'COALESCE(({self.write(matches.operand)}) COLLATE "C" ~ {self.bind(matches.pattern, "text")}, FALSE)'

    def in_case(self, change: ex.InCase) -> str:
        upper, lower = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "'abcdefghijklmnopqrstuvwxyz'"
        old, new = (lower, upper) if change.upper else (upper, lower)
        return f"translate({self.write(change.operand)}, {old}, {new})"

    def size(self, size: ex.Size) -> str:
        if size.operand.kind is Kind.TEXT:
            return f"CAST(char_length({self.write(size.operand)}) AS numeric)"
        return self._once(_SIZE, size.operand)

    def read(self, read: ex.Read) -> str:
        text = _TAKEN_AS[Kind.TEXT]
        if read.kind is Kind.TIME:
            pattern = self.bind(f"^{TIME_FORMAT}$", "text")
            return f"read_time_us({self._once(text, read.operand)}, {pattern})"
        number = "CASE WHEN jsonb_typeof({0}) = 'number' THEN CAST({0} AS numeric) ELSE read_number(" + text + ") END"
        return self._once(number, read.operand)

    def _once(self, template: str, *operands: Expression, as_json: bool = False) -> str:
        """Fill a template that names its operands several times, writing each of them only once.

        Otherwise every level of nesting would double the statement.
        """
        written = [self.write(operand) for operand in operands]
        if as_json:
            written = [
                sql if operand.kind is Kind.TRAIT else f"to_jsonb({sql})"
                for sql, operand in zip(written, operands, strict=True)
            ]
        if all(isinstance(operand, ex.Trait | ex.Constant) for operand in operands):
            return template.format(*written)
        names = [f"v.x{number}" for number in range(len(written))]
        values = ", ".join(f"{sql} AS x{number}" for number, sql in enumerate(written))
        return f"(SELECT {template.format(*names)} FROM (SELECT {values} OFFSET 0) AS v)"  # noqa: S608

    def _due(self, instants: set[Instant]) -> str:
        """Return the next moment after now at which the passing of time may change an answer."""
        moments = sorted(self._instant(instant) for instant in instants)
        return f"LEAST({', '.join(moments)})" if moments else "CAST(NULL AS bigint)"

    def _instant(self, instant: Instant) -> str:
        if isinstance(instant, Turn):
            return self._turn(instant)
        return self._expiry(instant)

    def _expiry(self, expiry: Expiry) -> str:
        edge = self._facts.edge(expiry.window_us)
        apart = f"(SELECT min(t) FROM unnest(d.times_us) AS u (t) WHERE t > {edge})"  # noqa: S608
        earliest = f"min(CASE WHEN d.first_us > {edge} THEN d.first_us ELSE {apart} END)"
        column = self._facts.of_events(expiry.event, earliest, edge)
        return f"({column} + {self.bind(expiry.window_us, 'bigint')})"

    def _turn(self, turn: Turn) -> str:
        terms = "".join(f" + {factor} * CAST({self.write(term)} AS numeric)" for factor, term in turn.terms)
        rest = f"(CAST({self.bind(turn.constant_us, 'bigint')} AS numeric){terms})"
        moment = f"ceil({rest} / {-turn.now_factor}) + {int(turn.later)}"
        return f"CASE WHEN {moment} > {NOW} AND {moment} < 9000000000000000000 THEN CAST({moment} AS bigint) END"


_WRITERS: Mapping[type, Callable[[RuleSql, Any], str]] = {
    ex.Constant: RuleSql.constant,
    ex.Trait: RuleSql.trait,
    ex.As: RuleSql.as_kind,
    ex.Exists: RuleSql.exists,
    ex.Now: RuleSql.now,
    ex.Seen: RuleSql.seen,
    ex.Count: RuleSql.count,
    ex.Sum: RuleSql.sum,
    ex.Moment: RuleSql.moment,
    ex.InSegment: RuleSql.in_segment,
    ex.Not: RuleSql.negation,
    ex.Joined: RuleSql.joined,
    ex.Comparison: RuleSql.comparison,
    ex.OneOf: RuleSql.one_of,
    ex.Holds: RuleSql.holds,
    ex.Arithmetic: RuleSql.arithmetic,
    ex.Choice: RuleSql.choice,
    ex.TextTest: RuleSql.text_test,
    ex.Matches: RuleSql.matches,
    ex.InCase: RuleSql.in_case,
    ex.Size: RuleSql.size,
    ex.Read: RuleSql.read,
}
"""How each kind of expression is written; a test asserts that none is missing."""


_JSON = msgspec.json.Encoder(decimal_format="number")


def _json(value: object) -> str:
    return _JSON.encode(value).decode()
