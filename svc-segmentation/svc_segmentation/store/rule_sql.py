# SPDX-License-Identifier: Apache-2.0
"""Rules as one SQL statement.

All rules share one pass over the behaviour of the profiles in question: whatever any of them asks becomes a column of
`facts` (each once), and every rule is a boolean column over them. The only thing of a rule that enters the text is its
structure; names and values are bound parameters. A condition is never NULL: each comparison is wrapped where it stands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.behaviour import event_key
from svc_segmentation.domain.expressions import Expression, Kind
from svc_segmentation.domain.functions import TIME_FORMAT
from svc_segmentation.domain.segments import Judge
from svc_segmentation.domain.timing import Expiry, Instant, Turn

NOW = "CAST(:now_us AS bigint)"

_NULL = "CAST('null' AS jsonb)"
_TYPES = {Kind.TEXT: "text", Kind.NUMBER: "numeric", Kind.TIME: "bigint", Kind.DURATION: "bigint"}
_JSON_TYPES = {Kind.TEXT: "string", Kind.NUMBER: "number"}
_DECIMALS = "0.000000000000000000000000000000"
"""Added before a division, so that PostgreSQL works with 30 decimals before it rounds to 12."""


class RuleSql:
    """Builds the common table expressions of a statement, and its parameters."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self._bound: dict[tuple[str, str], str] = {}
        self._behaviour: dict[str, str] = {}
        self._event_keys: set[int] = set()
        self._traits: dict[str, str] = {}
        self._seen = False
        self._columns: dict[str, str] = {}

    def judged(self, judges: Sequence[Judge]) -> str:
        """Return the tables from `behaviour` to `judged`, which has a column `m<i>` for each rule, and `due_us`.

        A table `scope (fragment_id, profile_id)` must come before them. Judges are in order of reference.
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
        # OFFSET 0 keeps the planner from writing a rule out again wherever another one refers to it.
        fence = " OFFSET 0" if len(levels) > 1 else ""
        laterals = "".join(
            f"\n    CROSS JOIN LATERAL (SELECT {', '.join(rules)}{fence}) AS level{number}"
            for number, rules in enumerate(levels)
        )
        columns = "".join(f", m{position}" for position in range(len(judges)))
        return f"{self._facts()}, judged AS (\n    SELECT profile_id{columns}, {due} AS due_us FROM facts{laterals}\n)"

    def bind(self, value: object, sql_type: str) -> str:
        """Return a parameter with a value; equal ones are bound once."""
        key = (repr(value), sql_type)
        if key not in self._bound:
            name = f"p{len(self.parameters)}"
            self.parameters[name] = value
            self._bound[key] = f"CAST(:{name} AS {sql_type})"
        return self._bound[key]

    def condition(self, expression: Expression) -> str:
        """Return a condition as SQL."""
        return _WRITERS[type(expression)](self, expression)

    write = condition

    def constant(self, constant: ex.Constant) -> str:
        if constant.kind is Kind.BOOL:
            return "TRUE" if constant.value else "FALSE"
        return self.bind(constant.value, _TYPES[constant.kind])

    def trait(self, trait: ex.Trait) -> str:
        if trait.name not in self._traits:
            self._traits[trait.name] = f"t{len(self._traits)}"
        found = self._traits[trait.name]
        for step in trait.path:
            found = self._inside(found, step)
        return f"NULLIF({found}, {_NULL})" if trait.path else found

    def _inside(self, container: str, step: str | int) -> str:
        if isinstance(step, str):
            return f"({container} -> {self.bind(step, 'text')})"
        # Without the question, PostgreSQL takes a value that is no list for a list of one.
        return f"CASE WHEN jsonb_typeof({container}) = 'array' THEN {container} -> {self.bind(step, 'integer')} END"

    def as_kind(self, taken: ex.As) -> str:
        value = self.write(taken.operand)
        if taken.kind is Kind.BOOL:
            return f"COALESCE({value} = CAST('true' AS jsonb), FALSE)"
        inner = f"CAST({value} AS numeric)" if taken.kind is Kind.NUMBER else f"({value}) #>> '{{}}'"
        return f"CASE WHEN jsonb_typeof({value}) = '{_JSON_TYPES[taken.kind]}' THEN {inner} END"

    def exists(self, expression: ex.Exists) -> str:
        return f"({self.write(expression.operand)} IS NOT NULL)"

    def now(self, _: ex.Now) -> str:
        return NOW

    def seen(self, seen: ex.Seen) -> str:
        self._seen = True
        return "last_seen_us" if seen.last else "first_seen_us"

    def count(self, count: ex.Count) -> str:
        if count.window_us is None:
            return self._aggregate(count.event, "COALESCE({}, 0)", "sum(CAST(d.count AS numeric))")
        edge = self._edge(count.window_us)
        within = (
            f"sum(CAST(CASE WHEN d.first_us > {edge} THEN d.count ELSE"
            f" (SELECT count(*) FROM unnest(d.times_us) AS u (t) WHERE t > {edge}) END AS numeric))"
        )
        return self._aggregate(count.event, "COALESCE({}, 0)", within, f" AND d.last_us > {edge}")

    def sum(self, total: ex.Sum) -> str:
        name = self.bind(total.property, "text")
        apart = "SELECT sum(a) FROM unnest(d.amount_properties, d.amount_times_us, d.amounts) AS u (p, t, a)"
        older = f"COALESCE(CAST(d.older_amounts ->> {name} AS numeric), 0)"
        if total.window_us is None:
            every = f"sum(COALESCE(({apart} WHERE p = {name}), 0) + {older})"
            return self._aggregate(total.event, "COALESCE({}, 0)", every)
        edge = self._edge(total.window_us)
        within = (
            f"sum(COALESCE(({apart} WHERE p = {name} AND t > {edge}), 0)"
            f" + CASE WHEN d.first_us > {edge} THEN {older} ELSE 0 END)"
        )
        return self._aggregate(total.event, "COALESCE({}, 0)", within, f" AND d.last_us > {edge}")

    def moment(self, moment: ex.Moment) -> str:
        return self._aggregate(moment.event, "{}", "max(d.last_us)" if moment.last else "min(d.first_us)")

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
        container, item = self.write(holds.container), self.write(holds.item)
        as_json = item if holds.item.kind is Kind.TRAIT else f"to_jsonb({item})"
        key = item if holds.item.kind is Kind.TEXT else f"({item}) #>> '{{}}'"
        has_key = f"jsonb_exists({container}, {key})"
        if holds.item.kind is Kind.TRAIT:
            has_key = f"jsonb_typeof({item}) = 'string' AND {has_key}"
        elif holds.item.kind is not Kind.TEXT:
            has_key = "FALSE"
        return (
            f"COALESCE(CASE jsonb_typeof({container})"
            f" WHEN 'array' THEN EXISTS (SELECT FROM jsonb_array_elements({container}) AS e (v) WHERE v = {as_json})"
            f" WHEN 'object' THEN {has_key} END, FALSE)"
        )

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
        operand, argument = self.write(test.operand), self.write(test.argument)
        return f"COALESCE({_TEXT_TESTS[test.test].format(operand, argument)}, FALSE)"

    def matches(self, matches: ex.Matches) -> str:
        return f'COALESCE(({self.write(matches.operand)}) COLLATE "C" ~ {self.bind(matches.pattern, "text")}, FALSE)'

    def in_case(self, change: ex.InCase) -> str:
        upper, lower = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "'abcdefghijklmnopqrstuvwxyz'"
        old, new = (lower, upper) if change.upper else (upper, lower)
        return f"translate({self.write(change.operand)}, {old}, {new})"

    def size(self, size: ex.Size) -> str:
        operand = self.write(size.operand)
        if size.operand.kind is Kind.TEXT:
            return f"CAST(char_length({operand}) AS numeric)"
        return (
            f"CAST(CASE jsonb_typeof({operand}) WHEN 'string' THEN char_length(({operand}) #>> '{{}}')"
            f" WHEN 'array' THEN jsonb_array_length({operand})"
            f" WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys({operand})) END AS numeric)"
        )

    def read(self, read: ex.Read) -> str:
        value = self.write(read.operand)
        text = f"CASE WHEN jsonb_typeof({value}) = 'string' THEN ({value}) #>> '{{}}' END"
        if read.kind is Kind.TIME:
            return f"read_time_us({text}, {self.bind(f'^{TIME_FORMAT}$', 'text')})"
        return f"CASE WHEN jsonb_typeof({value}) = 'number' THEN CAST({value} AS numeric) ELSE read_number({text}) END"

    def _edge(self, window_us: int) -> str:
        """Return the moment that events of a window are later than."""
        return f"({NOW} - {self.bind(window_us, 'bigint')})"

    def _aggregate(self, event: str, default: str, aggregate: str, also: str = "") -> str:
        """Return a column of `facts` that adds up the days of one event."""
        key = event_key(event)
        self._event_keys.add(key)
        filtered = f"{aggregate} FILTER (WHERE d.event_key = {self.bind(key, 'bigint')}{also})"
        column = self._behaviour.setdefault(filtered, f"b{len(self._behaviour)}")
        return default.format(column)

    def _due(self, instants: set[Instant]) -> str:
        """Return the next moment after now at which the passing of time may change an answer."""
        moments = sorted(self._instant(instant) for instant in instants)
        return f"LEAST({', '.join(moments)})" if moments else "CAST(NULL AS bigint)"

    def _instant(self, instant: Instant) -> str:
        if isinstance(instant, Expiry):
            edge = self._edge(instant.window_us)
            next_out = (
                f"min(CASE WHEN d.first_us > {edge} THEN d.first_us ELSE"
                f" (SELECT min(t) FROM unnest(d.times_us) AS u (t) WHERE t > {edge}) END)"
            )
            earliest = self._aggregate(instant.event, "{}", next_out, f" AND d.last_us > {edge}")
            return f"({earliest} + {self.bind(instant.window_us, 'bigint')})"
        return self._turn(instant)

    def _turn(self, turn: Turn) -> str:
        terms = "".join(f" + {factor} * CAST({self.write(term)} AS numeric)" for factor, term in turn.terms)
        rest = f"(CAST({self.bind(turn.constant_us, 'bigint')} AS numeric){terms})"
        moment = f"ceil({rest} / {-turn.now_factor}) + {int(turn.later)}"
        return f"CASE WHEN {moment} > {NOW} AND {moment} < 9000000000000000000 THEN CAST({moment} AS bigint) END"

    def _facts(self) -> str:
        tables, columns, joins = [], [], []
        if self._behaviour:
            tables.append(self._behaviour_table())
            columns += list(self._behaviour.values())
            joins.append("behaviour")
        if self._seen:
            tables.append(_SEEN_TABLE)
            columns += ["first_seen_us", "last_seen_us"]
            joins.append("seen")
        if self._traits:
            tables.append(self._trait_table())
            columns += list(self._traits.values())
            joins.append("traits")
        joined = "".join(f" LEFT JOIN {table} USING (profile_id)" for table in joins)
        listed = "".join(f", {column}" for column in columns)
        tables.append(
            "facts AS (\n"
            f"    SELECT profile_id{listed} FROM (SELECT DISTINCT profile_id FROM scope) AS people{joined}\n)"
        )
        return ", ".join(tables)

    def _behaviour_table(self) -> str:
        aggregates = ",\n        ".join(f"{sql} AS {name}" for sql, name in self._behaviour.items())
        keys = self.bind(sorted(self._event_keys), "bigint[]")
        return (
            f"behaviour AS (\n    SELECT s.profile_id,\n        {aggregates}\n"
            f"    FROM scope AS s JOIN event_days AS d ON d.fragment_id = s.fragment_id AND d.event_key = ANY ({keys})\n"
            "    GROUP BY s.profile_id\n)"
        )

    def _trait_table(self) -> str:
        """Take each trait from the fragment where it was stated last."""
        values = ",\n        ".join(
            f"NULLIF((array_agg(f.traits -> {name} ORDER BY CAST(f.traits -> {name} ->> 1 AS bigint) DESC,"
            f' (f.traits -> {name} ->> 2) COLLATE "C" DESC) FILTER (WHERE jsonb_exists(f.traits, {name})))[1] -> 0, {_NULL})'
            f" AS {column}"
            for name, column in ((self.bind(trait, "text"), column) for trait, column in self._traits.items())
        )
        return (
            f"traits AS (\n    SELECT s.profile_id,\n        {values}\n"
            "    FROM scope AS s JOIN fragment_traits AS f ON f.fragment_id = s.fragment_id\n"
            "    GROUP BY s.profile_id\n)"
        )


_SEEN_TABLE = """seen AS (
    SELECT s.profile_id, min(d.first_us) AS first_seen_us, max(d.last_us) AS last_seen_us
    FROM scope AS s JOIN event_days AS d ON d.fragment_id = s.fragment_id GROUP BY s.profile_id
)"""

_TEXT_TESTS = {
    "contains": "strpos({0}, {1}) > 0",
    "startsWith": "starts_with({0}, {1})",
    "endsWith": "right({0}, char_length({1})) = {1}",
}

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
