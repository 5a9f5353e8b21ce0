# SPDX-License-Identifier: Apache-2.0
"""The rule language: what is a rule, what is none, where the mistake is, and what can change the answer."""

import json
import re
from pathlib import Path

import pytest
from celpy.celparser import CELParseError, CELParser
from hypothesis import given, settings
from hypothesis import strategies as st
from svc_segmentation.domain import expressions as ex
from svc_segmentation.domain.behaviour import event_key
from svc_segmentation.domain.checker import MAX_ARITHMETIC
from svc_segmentation.domain.expressions import Kind
from svc_segmentation.domain.functions import DAY_US, FUNCTIONS, read_time_us
from svc_segmentation.domain.parser import parse
from svc_segmentation.domain.rules import MOST_OF_STATEMENT, Rule, read_rule
from svc_segmentation.domain.segments import Judge, RuleSet, find_circle, in_order
from svc_segmentation.domain.syntax import RuleError, explain
from svc_segmentation.domain.timing import Expiry, Turn
from svc_segmentation.store.rule_sql import _WRITERS, RuleSql

PROPERTIES = frozenset({"revenue", "value"})

GOOD = (
    "true",
    "traits.subscribed",
    "traits.city == 'Seoul' && count('Order Completed', days(30)) >= 2",
    'traits["이름"].startsWith("김") // a comment',
    "!(traits.city == 'Seoul' || traits.city == 'Busan') && !has(traits.email)",
    "traits.address.city in ['서울', 'Seoul',] || 'vip' in traits.tags || traits.tags[0] == 'vip'",
    "sum('Order Completed', 'revenue', days(90)) / count('Order Completed', days(90)) > 50000.5",
    "last('Product Viewed') > now - days(7)",
    "now - last('Product Viewed') < duration('36h30m') && now - first_seen > weeks(2)",
    "count('Visited', days(1) + hours(12)) % 2 == 1u && size(traits.name) > 0x10",
    "timestamp(traits.renewal) < now + days(30) && timestamp('2026-01-31') < last_seen",
    "segment('vip') != in_segment(\"new\") && (traits.age > 30 ? traits.vip : false)",
    "traits.city != null && traits.name.lowerAscii().matches(r'^\\w+$') && double(traits.score) > -1",
    "traits.a == traits.b && traits.a < traits.b && traits.a + 'x' != traits.b + 1 + 'y'".replace(" + 1 +", " +"),
)

WRONG = {
    "": (1, 1, "expected a value, found the end of the rule"),
    "traits.city = 'Seoul'": (1, 13, "unexpected '='; write == to compare"),
    "traits.a and traits.b": (1, 10, "expected an operator, found 'and'; write && for and"),
    "not traits.a": (1, 1, "write ! for not"),
    "traits.a &&\n  (traits.b ||\n  )": (3, 3, "expected a value, found ')'"),
    "traits.이름 == '김'": (1, 8, 'write traits["…"] for a trait with any other name'),
    "traits.city == “Seoul”": (1, 16, "write straight quotes"),
    "traits.city == 'Seoul": (1, 16, "the text that begins here has no end"),
    r"traits.city == 'a\d'": (1, 18, "unknown escape"),
    "traits.n == 12abc": (1, 15, "unexpected 'a' in a number"),
    "if (true)": (1, 1, "'if' is a reserved word"),
    "[1, 2]": (1, 1, "a list can only stand after in"),
    "{'a': 1}": (1, 1, "a rule has no maps"),
    "b'x' == b'x'": (1, 1, "a rule has no byte strings"),
    "traits.n == 99999999999999999999": (1, 13, "a whole number is at most"),
    "city == 'Seoul'": (1, 1, "unknown variable 'city'; did you mean traits.city?"),
    "Traits.city == 'x'": (1, 1, "did you mean traits?"),
    "traits == 1": (1, 1, "traits holds all traits; name one"),
    "cuont('x') > 1": (1, 1, "unknown function 'cuont'; did you mean count?"),
    "traits.name.startswith('a')": (1, 13, "did you mean startsWith?"),
    "startsWith(traits.name, 'a')": (1, 1, "write traits.name.startsWith('text')"),
    "now() > last('x')": (1, 1, "write now without ()"),
    "count > 1": (1, 1, "count is a function; write count('event')"),
    "count() > 1": (1, 1, "write count('event') or count('event', days(30))"),
    "count(traits.event) > 1": (1, 7, "the name of the event must be a text in quotes"),
    "count('x', 30) > 1": (1, 12, "the window must be a duration such as days(30), found a number"),
    "count('x', days(0)) > 1": (1, 12, "the window must be longer than 0"),
    "count('x', now - last('x')) > 1": (1, 12, "the window must be the same for every customer"),
    "sum('x', 'weight') > 1": (1, 10, "the property 'weight' is not summed; these are: revenue, value"),
    "1 + 1": (1, 1, "expected a condition, found a number"),
    "count('x')": (1, 1, "expected a condition, found a number"),
    "count('x') && true": (1, 1, "expected a condition, found a number"),
    "traits.a > 1 > 2": (1, 14, "a bool and a number cannot go with >; join two comparisons with &&"),
    "last('x') > days(7)": (1, 11, "a timestamp and a duration cannot go with >"),
    "traits.since > now": (1, 14, "write timestamp(traits.…) to read a time from a trait"),
    "last('x') > '2026-01-01'": (1, 11, 'write timestamp("2026-01-31T00:00:00Z") for a time'),
    "now - last('x') < 7": (1, 17, "write days(…), hours(…) or minutes(…)"),
    "true == 'true'": (1, 6, "a bool and a string cannot go with =="),
    "count('x') in ['a']": (1, 16, "expected a number in the list, found a string"),
    "count('x') == null": (1, 12, "only a trait can be compared with null"),
    "has(now)": (1, 5, "expected a trait, such as traits.city"),
    "traits[0] == 1": (1, 1, "traits have names, not positions"),
    "traits.a[traits.b] == 1": (1, 10, "expected a name in quotes or a position from 0"),
    "count('x').y == 1": (1, 1, "a number has no 'y' inside; only traits have"),
    "timestamp('tomorrow') < now": (1, 11, "a time is written like"),
    "now - now < duration('1 day')": (1, 22, "a duration is written like"),
    "now - last('x') < days(99999)": (1, 24, "a duration is at most 36525 days"),
    "true ? now : last('x')": (1, 1, "? : chooses between conditions, numbers or texts"),
    "(traits.a ? 1 : 'x') == 1": (1, 2, "both must be of one kind"),
    "traits.a.matches(traits.b)": (1, 18, "the pattern must be a text in quotes"),
    "traits.a.matches('(?=x)')": (1, 18, "the pattern cannot be used"),
    "traits.tags.exists(t, t == 'x')": (1, 13, "unknown function 'exists'"),
    "segment('')": (1, 9, "the name of the segment must not be empty"),
    "(" * 41 + "true" + ")" * 41: (1, 41, "nested too deeply"),
    "!" * 41 + "true": (1, 40, "nested too deeply"),
    " || ".join(["true"] * 5000): (1, 39997, "the rule is too long"),
}


@pytest.mark.parametrize("text", GOOD)
def test_a_rule_is_a_condition(text: str) -> None:
    """Everything that the guide shows is a rule, and is written as SQL with nothing of its own in the text."""
    rule = read_rule(text, properties=PROPERTIES)
    assert rule.condition.kind is Kind.BOOL
    referred = [Judge(name, name, 1, read_rule("true")) for name in rule.segments]
    writer = RuleSql()
    sql = writer.judged([*referred, Judge("id", "name", 1, rule)])
    assert not any(word in sql for word in ("Seoul", "서울", "이름", "Order", "vip", "city"))


@pytest.mark.parametrize(("text", "expected"), WRONG.items(), ids=range(len(WRONG)))
def test_a_mistake_has_a_place_and_a_reason(text: str, expected: tuple[int, int, str]) -> None:
    """Line and column count characters from 1."""
    with pytest.raises(RuleError) as caught:
        read_rule(text, properties=PROPERTIES)
    line, column, reason = expected
    message = explain(text, caught.value).splitlines()
    assert message[0].startswith(f"line {line}, column {column}: ")
    assert reason in message[0]
    assert message[-1].endswith("^")


def test_the_pointer_stands_under_korean_text() -> None:
    """A Korean letter is two columns wide in a terminal; a long line is cut around the place."""
    text = "traits.city == '서울' & true"
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert explain(text, caught.value).splitlines()[1:] == [text, " " * 22 + "^"]
    long = "true && " * 200 + "oops"
    with pytest.raises(RuleError) as caught:
        read_rule(long)
    _, line, pointer = explain(long, caught.value).splitlines()
    assert len(line) < 130
    assert line[len(pointer) - 1 :].startswith("oops")


PIECES = st.sampled_from(
    ["a", "traits", "1", "2.5", "'x'", "true", "null", "(", ")", "[", "]", ",", ".", "!", "-", "+", "*", "==", "<",
     "&&",      "||", "?", ":", "a in", "f(", "b.c"]
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.lists(PIECES, max_size=9).map(" ".join))
def test_another_parser_takes_the_same_texts(text: str) -> None:
    """Whatever we parse, the grammar of cel-python parses too; the other way round except for what no rule needs."""
    ours = theirs = True
    try:
        parse(text)
    except RuleError:
        ours = False
    try:
        CELParser().parse(text)
    except CELParseError:
        theirs = False
    # It cannot read a comma at the end of a list, and lets a name begin with a dot.
    with_leading_dot = any(f"{sign} ." in f" {text}" for sign in ("", *"([,!-+*<:?", "==", "&&", "||", "in", "f("))
    if ", ]" not in text and not with_leading_dot:
        assert ours == theirs


def test_every_kind_of_expression_can_be_written() -> None:
    """Adding one to the language without SQL for it fails here."""
    assert set(_WRITERS) == set(ex.Expression.__args__)


def test_nesting_does_not_double_the_statement() -> None:
    """An operand that is needed twice is written once, however deep it lies."""
    rule = "traits.a"
    for _ in range(12):
        rule = f"(({rule} ? traits.b : traits.c) in traits.d)"
    sql = RuleSql().judged([Judge("id", "name", 1, read_rule(rule))])
    assert len(sql) < 12_000


def test_arithmetic_has_an_end() -> None:
    """Nobody can make a number that PostgreSQL could not hold."""
    product = " * ".join(["traits.n"] * 30)
    with pytest.raises(RuleError, match="at most 200 arithmetic operators"):
        read_rule(" && ".join([f"{product} > 1"] * (MAX_ARITHMETIC // 29 + 1)))


def test_a_rule_knows_what_may_change_its_answer() -> None:
    """Events, traits, other segments and moments, so that nothing else has to be looked at."""
    rule = read_rule("count('A', days(1)) > 0 && has(traits.x.y) || segment('s') || last('B') == first('C')")
    assert rule.watch.event_keys == {event_key("A"), event_key("B"), event_key("C")}
    assert (rule.watch.traits, rule.segments) == (frozenset({"x"}), frozenset({"s"}))
    assert not rule.watch.every_event
    assert rule.instants == {Expiry("A", DAY_US)}
    assert read_rule("now - last_seen < days(7)").watch.every_event


@pytest.mark.parametrize(
    ("text", "later"),
    [
        ("last('A') > now - days(7)", {False}),
        ("now - last('A') < days(7)", {False}),
        ("now - last('A') <= days(7)", {True}),
        ("now > timestamp('2026-12-24')", {True}),
        ("now == timestamp('2026-12-24')", {False, True}),
    ],
)
def test_a_comparison_with_now_turns_at_a_known_moment(text: str, later: set[bool]) -> None:
    """At equality, or a microsecond after it."""
    turns = read_rule(text).instants
    assert all(isinstance(turn, Turn) for turn in turns)
    assert {turn.later for turn in turns if isinstance(turn, Turn)} == later


def test_a_comparison_in_which_now_cancels_never_turns() -> None:
    """The difference of two ages does not depend on the time."""
    assert not read_rule("now - last('A') < now - last('B')").instants


def test_segments_come_after_those_they_refer_to() -> None:
    """However they were created; what depends on one is found, and so is what one depends on."""

    def judge(name: str, rule: str) -> Judge:
        return Judge(f"seg_{name}", name, 1, Rule(read_rule(rule).condition))

    judges = in_order([judge("a", "segment('b') && segment('c')"), judge("c", "segment('b')"), judge("b", "true")])
    rules = RuleSet(1, judges)
    assert [each.name for each in judges] == ["b", "c", "a"]
    assert [each.name for each in rules.affected_by({"c"})] == ["c", "a"]
    assert [each.name for each in rules.needed_for({"c"})] == ["b", "c"]
    assert rules.users_of("b") == ["a", "c"] or rules.users_of("b") == ["c", "a"]


def test_a_circle_is_found() -> None:
    """The way round is told; referring to the same segment twice is none."""
    assert find_circle("a", {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": ()}) == ["a", "b", "c", "a"]
    assert find_circle("a", {"a": {"a"}}) == ["a", "a"]
    assert find_circle("a", {"a": {"b", "c"}, "b": {"c"}, "c": ()}) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-02", DAY_US),
        ("1970-01-01T09:00:00+09:00", 0),
        ("1970-01-01 00:00:01.5", 1_500_000),
        ("1969-12-31t23:59:59z", -1_000_000),
        ("2026-02-30", None),
        ("2026-01-01T24:00:00Z", None),
        ("now", None),
        ("２０２６-01-01", None),
    ],
)
def test_a_time_is_read_as_people_send_it(text: str, moment: int | None) -> None:
    """RFC 3339 or a date; UTC unless an offset is given."""
    assert read_time_us(text) == moment


def test_every_function_shows_how_it_is_written() -> None:
    """The usage in the message is itself what the checker takes."""
    for function in FUNCTIONS.values():
        for usage in function.usage.split(" or "):
            written = usage.replace("'pattern'", "'^a'").replace("'property'", "'value'")
            expression = read_rule(f"{written} == {written}", properties=PROPERTIES)
            assert expression.condition.kind is Kind.BOOL


def test_the_rules_of_the_guide_are_rules() -> None:
    """Every example, every rule in a call, and every spelling in the table."""
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "segments.md").read_text(encoding="utf-8")
    examples = guide.split("Examples:")[1].split("```")[1].strip().splitlines()
    rules = [re.split(r" {3,}", line)[0] for line in examples]
    rules += [json.loads(f'"{rule}"') for rule in re.findall(r'"rule": "((?:\\.|[^"])*)"', guide)]
    assert len(rules) == 5
    for rule in rules:
        read_rule(rule, properties=PROPERTIES)
    _, *wrong = re.findall(r"```\nsegment\.rule: (.*)\n(.*)\n(.*)\n```", guide)[0]
    with pytest.raises(RuleError) as caught:
        read_rule(wrong[0])
    assert f"segment.rule: {explain(wrong[0], caught.value)}" in guide


def test_hundreds_of_rules_are_asked_in_more_than_one_statement() -> None:
    """PostgreSQL has an end of columns and parameters; what refers to each other stays together."""
    many = " || ".join(f"count('E{number}', days(7)) > 1" for number in range(90))
    judges = [Judge(f"seg_{n}", f"s{n:02}", 1, read_rule(many.replace("'E", f"'E{n}-"))) for n in range(12)]
    judges.append(Judge("seg_top", "top", 1, read_rule("segment('s00') && segment('s11')")))
    rules = RuleSet(1, in_order(judges))
    groups = rules.groups(rules.judges)
    assert len(groups) > 2
    assert frozenset.union(*groups) == {judge.name for judge in judges}
    assert all(rules.size_of(names).fits(MOST_OF_STATEMENT) for names in groups)
    with pytest.raises(RuleError, match="asks too much"):
        read_rule(" || ".join(f"traits.t{number}" for number in range(201)))
