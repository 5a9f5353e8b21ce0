# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and a plain reading of the rule, event by event, agree on everybody."""

import operator
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from random import Random
from typing import Any
from uuid import UUID

from chassis.database import Database, Transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from svc_segmentation.domain.behaviour import Behaviour, event_key
from svc_segmentation.domain.functions import DAY_US
from svc_segmentation.domain.parser import parse
from svc_segmentation.domain.rules import read_rule
from svc_segmentation.domain.segments import Judge, in_order
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
from svc_segmentation.store import behaviour as store
from svc_segmentation.store import judging

PROPERTIES = frozenset({"revenue", "value", "price"})
HOUR_US = 3600 * 1_000_000
NOW_US = 1_795_000_000_000_000
MISSING = object()


@dataclass(frozen=True)
class Happened:
    """One event."""

    name: str
    time_us: int
    amounts: tuple[tuple[str, Decimal], ...] = ()


@dataclass
class Known:
    """What is known under one identifier."""

    events: list[Happened] = field(default_factory=list)
    traits: dict[str, tuple[Any, int, str]] = field(default_factory=dict)


@dataclass
class Person:
    """A customer known under some identifiers."""

    profile_id: UUID
    fragments: dict[UUID, Known]

    @property
    def events(self) -> list[Happened]:
        return [event for known in self.fragments.values() for event in known.events]

    def trait(self, name: str) -> Any:
        found = [known.traits[name] for known in self.fragments.values() if name in known.traits]
        value = max(found, key=lambda stated: stated[1:])[0] if found else None
        return MISSING if value is None else value


@dataclass(frozen=True)
class Moment:
    """A time, or a duration, in microseconds."""

    us: int


class Reader:
    """Reads a rule for one customer, from its syntax, with nothing but Python's own values."""

    def __init__(self, person: Person, now_us: int, segments: Mapping[str, Syntax]) -> None:
        self.person = person
        self.now_us = now_us
        self.segments = segments

    def holds(self, node: Syntax) -> bool:
        return self.read(node) is True

    def read(self, node: Syntax) -> Any:
        return getattr(self, type(node).__name__.lower())(node)

    def literal(self, node: Literal) -> Any:
        return node.value

    def name(self, node: Name) -> Any:
        times = [event.time_us for event in self.person.events]
        if node.name == "now":
            return Moment(self.now_us)
        return Moment((min if node.name == "first_seen" else max)(times)) if times else MISSING

    def select(self, node: Select) -> Any:
        return self._inside(node.operand, node.field)

    def index(self, node: Index) -> Any:
        assert isinstance(node.key, Literal)
        key = node.key.value
        return self._inside(node.operand, int(key) if isinstance(key, Decimal) else key)

    def _inside(self, operand: Syntax, key: Any) -> Any:
        if isinstance(operand, Name):
            return _decimal(self.person.trait(key))
        container = self.read(operand)
        if isinstance(container, dict) and isinstance(key, str):
            value = container.get(key)
        elif isinstance(container, list) and isinstance(key, int) and key < len(container):
            value = container[key]
        else:
            value = None
        return MISSING if value is None else _decimal(value)

    def unary(self, node: Unary) -> Any:
        if node.operator == "!":
            return not self.holds(node.operand)
        value = self.read(node.operand)
        if isinstance(value, Moment):
            return Moment(-value.us)
        return -value if _is_number(value) else MISSING

    def chain(self, node: Chain) -> bool:
        joined = all if node.operator == "&&" else any
        return joined([self.holds(operand) for operand in node.operands])

    def ternary(self, node: Ternary) -> Any:
        return self.read(node.then if self.holds(node.condition) else node.otherwise)

    def binary(self, node: Binary) -> Any:
        if node.operator == "in":
            return self._membership(node)
        left, right = self.read(node.left), self.read(node.right)
        if node.operator in ("==", "!="):
            return _equal(left, right) is (node.operator == "==")
        if node.operator in _ORDERS:
            return _same_sort(left, right) and _ORDERS[node.operator](_plain(left), _plain(right))
        return _calculated(node.operator, left, right)

    def _membership(self, node: Binary) -> bool:
        item = self.read(node.left)
        if isinstance(node.right, Items):
            return any(_equal(item, self.read(entry)) for entry in node.right.items)
        container = self.read(node.right)
        if isinstance(container, list):
            return any(_equal(item, _decimal(entry)) for entry in container if entry is not None)
        return isinstance(container, dict) and isinstance(item, str) and item in container

    def call(self, node: Call) -> Any:
        arguments = node.arguments if node.receiver is None else (node.receiver, *node.arguments)
        return getattr(self, "call_" + node.function)(*arguments)

    def call_has(self, trait: Syntax) -> bool:
        return self.read(trait) is not MISSING

    def call_size(self, operand: Syntax) -> Any:
        value = self.read(operand)
        return Decimal(len(value)) if isinstance(value, str | list | dict) else MISSING

    def call_contains(self, operand: Syntax, argument: Syntax) -> bool:
        return self._texts(operand, argument, lambda text, part: part in text)

    def call_startsWith(self, operand: Syntax, argument: Syntax) -> bool:
        return self._texts(operand, argument, str.startswith)

    def call_endsWith(self, operand: Syntax, argument: Syntax) -> bool:
        return self._texts(operand, argument, str.endswith)

    def call_matches(self, operand: Syntax, argument: Syntax) -> bool:
        return self._texts(operand, argument, lambda text, pattern: bool(re.search(pattern, text, re.ASCII)))

    def _texts(self, operand: Syntax, argument: Syntax, test: Callable[[str, str], bool]) -> bool:
        text, other = self.read(operand), self.read(argument)
        return isinstance(text, str) and isinstance(other, str) and test(text, other)

    def call_lowerAscii(self, operand: Syntax) -> Any:
        value = self.read(operand)
        return re.sub("[A-Z]", lambda m: m[0].lower(), value) if isinstance(value, str) else MISSING

    def call_double(self, operand: Syntax) -> Any:
        value = self.read(operand)
        if isinstance(value, str):
            return Decimal(value) if re.fullmatch(r"[-+]?[0-9]{1,30}(\.[0-9]{1,30})?", value) else MISSING
        return value if _is_number(value) else MISSING

    def call_timestamp(self, operand: Syntax) -> Any:
        value = self.read(operand)
        try:
            moment = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return MISSING
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return Moment(round((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000))

    def call_days(self, number: Syntax) -> Moment:
        return Moment(int(self.read(number) * DAY_US))

    def call_hours(self, number: Syntax) -> Moment:
        return Moment(int(self.read(number) * HOUR_US))

    def call_count(self, name: Syntax, window: Syntax | None = None) -> Decimal:
        return Decimal(len(self._events(name, window)))

    def call_sum(self, name: Syntax, of: Syntax, window: Syntax | None = None) -> Decimal:
        amounts = [amount for event in self._events(name, window) for amount in event.amounts]
        return sum((value for summed, value in amounts if summed == self.read(of)), Decimal(0))

    def call_first(self, name: Syntax) -> Any:
        return min((Moment(e.time_us) for e in self._events(name)), key=lambda m: m.us, default=MISSING)

    def call_last(self, name: Syntax) -> Any:
        return max((Moment(e.time_us) for e in self._events(name)), key=lambda m: m.us, default=MISSING)

    def call_segment(self, name: Syntax) -> bool:
        return self.holds(self.segments[self.read(name)])

    def _events(self, name: Syntax, window: Syntax | None = None) -> list[Happened]:
        since = self.now_us - self.read(window).us if window is not None else -(2**63)
        wanted = self.read(name)
        return [event for event in self.person.events if event.name == wanted and event.time_us > since]


_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _decimal(value: Any) -> Any:
    return Decimal(repr(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, Decimal)


def _plain(value: Any) -> Any:
    return value.us if isinstance(value, Moment) else value


def _same_sort(left: Any, right: Any) -> bool:
    return type(left) is type(right) and isinstance(left, Decimal | str | Moment)


def _equal(left: Any, right: Any) -> bool:
    """Two values are equal when they are there; null is what is not there."""
    if left is None or right is None:
        return (left is MISSING) or (right is MISSING)
    if MISSING in (left, right) or isinstance(left, bool) is not isinstance(right, bool):
        return False
    return bool(left == right)


def _calculated(sign: str, left: Any, right: Any) -> Any:
    if isinstance(left, Moment) and isinstance(right, Moment):
        return Moment(left.us + right.us if sign == "+" else left.us - right.us)
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    if not (_is_number(left) and _is_number(right)) or (sign in "/%" and right == 0):
        return MISSING
    with localcontext() as context:
        context.prec = 400
        if sign == "/":
            return (left / right).quantize(Decimal("1e-12"), ROUND_HALF_UP)
        return {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod}[sign](left, right)


# What customers do, drawn from few enough values that rules meet them.

EVENTS = ("Order Completed", "Product Viewed", "주문 완료")
WINDOWS = {"hours(6)": 6 * HOUR_US, "days(1)": DAY_US, "days(30)": 30 * DAY_US, "days(400)": 400 * DAY_US}
TRAITS = ("city", "age", "vip", "tags", "이름", "joined")

AGES = (0, HOUR_US, *WINDOWS.values())
TEXTS = ("Seoul", "서울", "seoul", "", "a", "12", "2026-11-01", "2026-11-18T15:00:00+09:00", "김단골")
NUMBERS = (0, 1, -1, 2, 12, 2.5, 1e-7, 1e20, 3.3)
SCALARS = (*TEXTS, *NUMBERS, True, False, None)


def population(seed: int, size: int = 60) -> list[Person]:
    """Draw customers, many of whom did something at the very edge of a window."""
    draw = Random(seed)

    def happened() -> Happened:
        age = draw.choice(AGES) + draw.randint(-1, 1) if draw.random() < 0.6 else draw.randint(-DAY_US, 500 * DAY_US)
        named = draw.sample(sorted(PROPERTIES), draw.choice((0, 0, 1, 2)))
        return Happened(
            draw.choice(EVENTS), NOW_US - age, tuple((p, Decimal(draw.randint(-5000, 500000)) / 100) for p in named)
        )

    def value() -> Any:
        shape = draw.random()
        if shape < 0.15:
            return draw.choices(SCALARS, k=draw.randint(0, 3))
        if shape < 0.25:
            return {draw.choice(TEXTS): draw.choice(SCALARS) for _ in range(2)}
        return draw.choice(SCALARS)

    def known() -> Known:
        names = draw.sample(TRAITS, draw.randint(0, 4))
        return Known(
            [happened() for _ in range(draw.randint(0, 8))],
            {name: (value(), NOW_US + draw.randint(-1, 1), f"{draw.random()}") for name in names},
        )

    persons = []
    for _ in range(size):
        ids = [UUID(int=draw.getrandbits(128)) for _ in range(draw.choice((1, 1, 2, 3)))]
        persons.append(Person(ids[0], {fragment: known() for fragment in ids}))
    return persons


# Rules, of everything that the language has.

texts, numbers = st.sampled_from(TEXTS), st.sampled_from(NUMBERS)


def _quoted(text: str) -> str:
    return "'" + text + "'"


event_names = st.sampled_from(EVENTS).map(_quoted)
windows = st.sampled_from(sorted(WINDOWS))
plain_traits = st.sampled_from(TRAITS).map(lambda name: f'traits["{name}"]' if not name.isascii() else f"traits.{name}")
traits = plain_traits | st.tuples(plain_traits, st.sampled_from(["[0]", "[1]", ".a", "['서울']"])).map("".join)
durations = st.sampled_from(["days(1)", "hours(6)", "days(30)", "-hours(6)"])
moments: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["now", "first_seen", "last_seen", "timestamp('2026-11-01')"]),
        st.tuples(st.sampled_from(["first", "last"]), event_names).map(lambda t: f"{t[0]}({t[1]})"),
        plain_traits.map(lambda trait: f"timestamp({trait})"),
        st.tuples(moments, st.sampled_from("+-"), durations).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    )
)
lengths = st.one_of(durations, st.tuples(moments, moments).map(lambda t: f"({t[0]} - {t[1]})"))
quantities: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        numbers.filter(lambda n: n >= 0).map(repr),
        event_names.map(lambda name: f"count({name})"),
        st.tuples(event_names, windows).map(lambda t: f"count({t[0]}, {t[1]})"),
        st.tuples(event_names, st.sampled_from(sorted(PROPERTIES)).map(_quoted)).map(lambda t: f"sum({t[0]}, {t[1]})"),
        st.tuples(event_names, windows).map(lambda t: f"sum({t[0]}, 'revenue', {t[1]})"),
        traits.map(lambda trait: f"size({trait})"),
        traits.map(lambda trait: f"double({trait})"),
        st.tuples(quantities, st.sampled_from("+-*/%"), quantities | traits).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(conditions, quantities, quantities).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
        quantities.map(lambda inner: f"-({inner})"),
    )
)
words = st.deferred(
    lambda: st.one_of(
        texts.map(_quoted),
        traits.map(lambda trait: f"{trait}.lowerAscii()"),
        st.tuples(traits, texts.map(_quoted)).map(lambda t: f"({t[0]} + {t[1]})"),
    )
)
relations = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
literals = texts.map(_quoted) | quantities | st.sampled_from(["true", "false"])
conditions: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        traits,
        st.tuples(quantities, relations, quantities | traits).map(" ".join).map(_grouped),
        st.tuples(words | traits, relations, words).map(" ".join).map(_grouped),
        st.tuples(moments, relations, moments).map(" ".join).map(_grouped),
        st.tuples(lengths, relations, lengths).map(" ".join).map(_grouped),
        st.tuples(traits, st.sampled_from(["==", "!="]), literals | traits | st.just("null"))
        .map(" ".join)
        .map(_grouped),
        st.tuples(traits, relations, traits).map(" ".join).map(_grouped),
        st.tuples(traits, st.lists(literals | traits, max_size=3)).map(lambda t: f"({t[0]} in [{', '.join(t[1])}])"),
        st.tuples(literals | traits, traits).map(lambda t: f"({t[0]} in {t[1]})"),
        traits.map(lambda trait: f"has({trait})"),
        st.tuples(traits, st.sampled_from(["contains", "startsWith", "endsWith"]), texts | st.just("e")).map(
            lambda t: f"{t[0]}.{t[1]}('{t[2]}')"
        ),
        st.tuples(traits, st.sampled_from(["^[가-힣]{2,3}$", "^s.*l$", "o|u", r"\d\d", ""])).map(
            lambda t: f"{t[0]}.matches(r'{t[1]}')"
        ),
        conditions.map(lambda inner: f"!{_grouped(inner)}"),
        st.tuples(conditions, st.sampled_from(["&&", "||"]), conditions).map(" ".join).map(_grouped),
        st.tuples(conditions, conditions, conditions).map(lambda t: f"({t[0]} ? !{t[1]} : !{t[2]})"),
        st.tuples(conditions, st.sampled_from(["==", "!="]), conditions).map(" ".join).map(_grouped),
    )
)


def _grouped(inner: str) -> str:
    return f"({inner})"


def _is_shallow(rule: str) -> bool:
    try:
        parse(rule)
    except RuleError:
        return False
    return True


rules_of_one = conditions.filter(_is_shallow)


def _with_references(rules: Sequence[str]) -> dict[str, str]:
    """Name the rules and let each refer to the one before."""
    named: dict[str, str] = {}
    for number, rule in enumerate(rules):
        before = f"segment('s{number - 1}') || " if number % 3 == 2 else ""
        named[f"s{number}"] = f"{before}!segment('s{number - 1}') && {rule}" if number % 3 == 1 else before + rule
    return named


async def remember(tx: Transaction, persons: Sequence[Person]) -> None:
    """Store what customers did, each fragment's events in two batches."""
    for part in (0, 1):
        batch = Behaviour()
        for person in persons:
            for fragment_id, known in person.fragments.items():
                for happened in known.events[part::2]:
                    amounts = [(name, happened.time_us, str(value)) for name, value in happened.amounts]
                    batch.happened(fragment_id.bytes, event_key(happened.name), happened.time_us, amounts)
                for name, (value, time_us, tie) in list(known.traits.items())[part::2]:
                    batch.stated(fragment_id.bytes, {name: value}, time_us, tie)
        await store.add_days(tx, batch.days)
        await store.state_traits(tx, batch.traits)
    pairs = [(fragment, person.profile_id) for person in persons for fragment in person.fragments]
    await tx.execute(
        "INSERT INTO fragment_profiles SELECT *, 1 FROM unnest(CAST(:f AS uuid[]), CAST(:p AS uuid[]))",
        f=[fragment for fragment, _ in pairs],
        p=[profile for _, profile in pairs],
    )


@asynccontextmanager
async def _undone(database: Database) -> AsyncIterator[Transaction]:
    """Open a transaction that leaves the database as it was."""
    async with database.engine.connect() as connection, connection.begin() as transaction:
        yield Transaction(connection)
        await transaction.rollback()


async def judged(
    database: Database, persons: Sequence[Person], rules: Mapping[str, str], now_us: int = NOW_US
) -> tuple[dict[str, set[UUID]], dict[UUID, int]]:
    """Return who each rule holds for, and when each profile is due again; leaves nothing behind."""
    judges = in_order([Judge(name, name, 1, read_rule(rule, properties=PROPERTIES)) for name, rule in rules.items()])
    members: dict[str, set[UUID]] = {name: set() for name in rules}
    due: dict[UUID, int] = {}
    async with _undone(database) as tx:
        await remember(tx, persons)
        statement = judging.asking(judges, set(rules), every_segment=True)
        moment = datetime.fromtimestamp(now_us / 1e6, UTC)
        ids = [person.profile_id for person in persons]
        for change in await judging.settle(tx, statement, ids, moment=moment, now_us=now_us):
            members[change.name].add(change.profile_id)
        due = {row.profile_id: row.due_us for row in await tx.rows("SELECT * FROM due_profiles")}
    return members, due


QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # A failing rule is short enough as it is, and shrinking is slow.
)
seeds = st.integers(0, 2**32)


@QUICK
@given(seeds, st.lists(rules_of_one, min_size=4, max_size=12))
async def test_postgresql_answers_as_the_rule_reads(database: Database, seed: int, rules: list[str]) -> None:
    """Every rule, of everybody, in one statement, equals the rule read event by event."""
    persons, named = population(seed), _with_references(rules)
    members, _ = await judged(database, persons, named)
    syntaxes = {name: parse(rule) for name, rule in named.items()}
    for name, syntax in syntaxes.items():
        expected = {p.profile_id for p in persons if Reader(p, NOW_US, syntaxes).holds(syntax)}
        assert members[name] == expected, named[name]


@QUICK
@given(seeds, st.lists(rules_of_one, min_size=2, max_size=6))
async def test_nothing_changes_before_it_is_due(database: Database, seed: int, rules: list[str]) -> None:
    """Until the moment that was calculated, time alone changes no answer; so nobody need look before."""
    persons, named = population(seed, 30), _with_references(rules)
    _, due = await judged(database, persons, named)
    syntaxes = {name: parse(rule) for name, rule in named.items()}
    for person in persons:
        until = due.get(person.profile_id, NOW_US + 1000 * DAY_US)
        assert until > NOW_US
        later = {NOW_US + 1, NOW_US + HOUR_US, NOW_US + 10 * DAY_US, (NOW_US + until) // 2, until - 1}
        for name, syntax in syntaxes.items():
            before = Reader(person, NOW_US, syntaxes).holds(syntax)
            for moment in (moment for moment in later if NOW_US < moment < until):
                assert Reader(person, moment, syntaxes).holds(syntax) == before, named[name]
