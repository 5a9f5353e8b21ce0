# SPDX-License-Identifier: Apache-2.0
"""Policies, definitions, histories and computed traits, without any engine."""

import functools
import itertools
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from chassis.errors import Invalid
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from svc_profile.domain.announced import announced
from svc_profile.domain.computed import (
    DAY_US,
    MAX_KEYS,
    Aggregate,
    ComputedTrait,
    Condition,
    Occurrence,
    Operator,
    evaluate,
    values_at,
)
from svc_profile.domain.definitions import COMPARABLE, Enforcement, TraitDefinition, TraitSchema, TraitType
from svc_profile.domain.derivation import Derivation, Statement, history
from svc_profile.domain.events import Event, Name, Names, event_key
from svc_profile.domain.fragments import Fragment, learn
from svc_profile.domain.profiles import fold_profile
from svc_profile.domain.traits import MAX_UNION, NO_POLICIES, Policy, Trait, fold_of

KIM = Name(b"k" * 16, "user_id", "kim")
MAIL = Name(b"m" * 16, "email", "kim@example.com")
SOURCES = ("crm", "web", "app")

VALUES = st.sampled_from(
    [None, "", "gold", "silver", "가", 1, 1.0, 2.5, 0.1, 0.2, -7, 10**16, True, [], ["gold", 1, None], {"a": [1.0]}, {}]
)


def definition(policy: Policy, **fields: Any) -> TraitDefinition:
    numeric = policy in (Policy.SUM, Policy.MIN, Policy.MAX)
    return TraitDefinition(
        "x",
        policy=policy,
        type=TraitType.NUMBER if numeric else TraitType.ANY,
        sources=("crm", "app") if policy is Policy.SOURCE_PRIORITY else (),
        **fields,
    )


def schema(*definitions: TraitDefinition) -> TraitSchema:
    return TraitSchema(1, {each.name: each for each in definitions})


def event(number: int, owner: Name, at: int, source: str, traits: dict[str, Any]) -> Event:
    return Event(event_key(source, f"m{number}"), at, "identify", Names((owner,)), source, f"m{number}", traits=traits)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw what a few sources state of one trait, under two names of one customer."""
    stated = draw(
        st.lists(
            st.tuples(st.sampled_from([KIM, MAIL]), st.integers(0, 6), st.sampled_from(SOURCES), VALUES), max_size=12
        )
    )
    return [event(n, owner, at, source, {"x": value, "y": n}) for n, (owner, at, source, value) in enumerate(stated)]


def stored(fragment: Fragment) -> Fragment:
    """What PostgreSQL gives back: through JSON."""
    decoder = msgspec.json.Decoder(dict[str, Trait])
    return msgspec.structs.replace(fragment, traits=decoder.decode(msgspec.json.encode(fragment.traits)))


def told(fragments: dict[bytes, Fragment], decided: TraitSchema) -> dict[str, Any]:
    return fold_profile(KIM.fragment, list(fragments.values()), decided.policies).traits if fragments else {}


@given(histories(), st.sampled_from(Policy), st.data())
def test_a_policy_gives_the_same_value_in_every_order_and_grouping(
    events: list[Event], policy: Policy, data: st.DataObject
) -> None:
    """Batch by batch, out of order, through the store: the fold of all at once."""
    decided = schema(definition(policy))
    known: dict[bytes, Fragment] = {}
    rest = data.draw(st.permutations(events))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        for key, learnt in learn(rest[:size], decided.policies).items():
            if key in known:
                learnt.absorb(stored(known[key]), decided.policies)
            known[key] = learnt
        rest = rest[size:]
    assert told(known, decided) == told(learn(events, decided.policies), decided)


def expected(events: list[Event], policy: Policy) -> Any:
    """Say a policy's value in another way than the fold does."""
    said = [(e.time_us, e.key.hex(), e.traits["x"], e.source) for e in sorted(events, key=lambda e: (e.time_us, e.key))]
    numbers = [s for s in said if isinstance(s[2], int | float) and not isinstance(s[2], bool)]
    match policy:
        case Policy.MOST_RECENT:
            found = said[-1:]
        case Policy.OLDEST:
            found = said[:1]
        case Policy.FIRST_NON_EMPTY:
            found = [s for s in said if s[2] not in (None, "", [], {})][:1]
        case Policy.SOURCE_PRIORITY:
            found = next(
                (of for name in ("crm", "app") if (of := [s for s in said if s[3] == name])),
                [s for s in said if s[3] == "web"],
            )[-1:]
        case Policy.MIN:
            found = [s for s in numbers if s[2] == min(n[2] for n in numbers)][:1]
        case Policy.MAX:
            found = [s for s in numbers if s[2] == max(n[2] for n in numbers)][-1:]
        case Policy.SUM:
            small = [Decimal(str(n[2])) for n in numbers if abs(n[2]) < 10**15]
            return float(sum(small, Decimal(0))) if small else None
        case Policy.UNION:
            values = [v for s in said for v in (s[2] if isinstance(s[2], list) else [s[2]]) if v is not None]
            texts = {msgspec.json.encode(1 if type(v) is float and v == 1 else v) for v in values}
            return {text.replace(b"1.0", b"1") for text in texts} or None
    return found[0][2] if found else None


@given(histories(), st.sampled_from(Policy))
def test_a_policy_means_what_its_name_says(events: list[Event], policy: Policy) -> None:
    decided = schema(definition(policy))
    value = told(learn(events, decided.policies), decided).get("x")
    if policy is Policy.UNION and value is not None:
        assert {msgspec.json.encode(element) for element in value} == expected(events, policy)
    elif policy is Policy.SUM and value is not None:
        assert math.isclose(value, expected(events, policy), abs_tol=1e-9)
    else:
        assert value == expected(events, policy)


@given(histories(), st.sampled_from(Policy), st.sampled_from(Policy), st.integers(0, 12))
def test_a_policy_that_changes_is_as_if_it_had_always_been_there(
    events: list[Event], before: Policy, after: Policy, cut: int
) -> None:
    """Whatever the state was mixed of in the meantime, deriving it again ends where the new policy alone ends."""
    old, new = schema(definition(before)), schema(definition(after))
    known = learn(events[:cut], old.policies)
    for key, learnt in learn(events[cut:], new.policies).items():
        if key in known:
            learnt.absorb(known[key], new.policies)
        known[key] = learnt
    derivation = Derivation(new)
    derivation.add(Statement(e.owner.fragment, e.time_us, e.key, e.source, e.message_id, e.traits) for e in events)
    for key, fragment in known.items():
        fragment.traits = derivation.traits(key, fragment.traits)
    assert told(known, new) == told(learn(events, new.policies), new)


SELECTING = [policy for policy in Policy if policy not in (Policy.SUM, Policy.UNION)]


@settings(max_examples=500)
@given(
    st.sampled_from(SELECTING),
    st.sampled_from([TraitType.NUMBER, TraitType.STRING, TraitType.TIME]),
    st.data(),
)
def test_what_is_announced_needs_no_policy_to_be_put_together(
    policy: Policy, kind: TraitType, data: st.DataObject
) -> None:
    """The state with the greatest order and tie is the one that the policy picks."""
    values: dict[TraitType, st.SearchStrategy[Any]] = {
        TraitType.NUMBER: st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5)),
        TraitType.STRING: st.text(max_size=3),
        TraitType.TIME: st.sampled_from(["2026-01-31", "2026-01-31T09:00:00+09:00", "1960-05-01", "2026-02-01"]),
    }
    sources = SOURCES if policy is Policy.SOURCE_PRIORITY else ()
    decided = schema(TraitDefinition("x", policy=policy, type=kind, sources=sources, enforcement=Enforcement.REJECT))
    fold = fold_of(policy, sources, comparable=COMPARABLE[kind])
    states = []
    for number in range(data.draw(st.integers(2, 4))):
        at, source = data.draw(st.integers(-3, 3)), data.draw(st.sampled_from([*SOURCES, "other"]))
        state = fold.state(data.draw(values[kind]), at, event_key("", str(number)).hex(), source)
        states += [state] if state is not None else []
    assume(states)
    told = [announced({"x": state}, decided)["x"] for state in states]
    winner = functools.reduce(fold.join, states)
    greatest = max((state for state in told if state is not None), key=lambda state: state[1:])
    assert (greatest[0], type(greatest[0])) == (winner.value, type(winner.value))
    assert -(2**63) <= greatest[1] < 2**63


def test_a_trait_without_a_state_is_announced_as_none() -> None:
    """So that what the events state of it does not count there."""
    decided = schema(definition(Policy.SUM), TraitDefinition("y"))
    assert announced({"y": Trait(1, 2, "aa")}, decided) == {"x": None}
    assert announced({"x": Trait("0.300000", 2, "aa")}, decided) == {"x": [0.3, 2, "aa", "SUM"]}


def test_a_value_whose_event_is_no_longer_kept_goes_on() -> None:
    """Retention forgets events; what is known of the customer by them stays."""
    derivation = Derivation(schema(definition(Policy.UNION)))
    known = {"x": Trait("gold", 5, "aa"), "y": Trait(1, 6, "bb")}
    assert derivation.traits(KIM.fragment, known) == {"x": Trait(["gold"], 5, "aa"), "y": Trait(1, 6, "bb")}


def test_elements_of_a_union_go_on_when_only_the_latest_event_is_kept() -> None:
    """Those that kept events say follow the definition as those events do; of the others each is judged by itself."""
    known = {"x": Trait(["a", "b", "c", "d"], 5, "bb")}
    kept = Statement(KIM.fragment, 5, bytes.fromhex("bb"), "", "m", {"x": ["c", "d"]})
    for decided, expected in (
        (definition(Policy.UNION), ["a", "b", "c", "d"]),
        (refusing(TraitType.STRING_LIST, "a", "c", "d"), ["a", "c", "d"]),
        (refusing(TraitType.STRING_LIST, "a", "c"), ["a"]),
        (refusing(TraitType.STRING, "a"), ["a"]),
    ):
        derivation = Derivation(schema(decided))
        derivation.add([kept])
        assert derivation.traits(KIM.fragment, known)["x"].value == expected


def refusing(kind: TraitType, *allowed: str) -> TraitDefinition:
    """Define a union of some values."""
    return TraitDefinition("x", policy=Policy.UNION, type=kind, allowed_values=allowed, enforcement=Enforcement.REJECT)


def test_a_union_is_bounded_in_whatever_order_it_grows() -> None:
    fold = fold_of(Policy.UNION)
    states = [fold.state(f"v{n:04d}", n, f"{n:x}", "") for n in range(MAX_UNION + 20)]
    for order in (states, states[::-1]):
        whole = order[0]
        for state in order[1:]:
            assert whole is not None
            assert state is not None
            whole = fold.join(whole, state)
        assert whole is not None
        assert whole.value == [f"v{n:04d}" for n in range(MAX_UNION)]


def test_sums_are_exact() -> None:
    fold = fold_of(Policy.SUM)
    summands = [fold.state(0.1, n, f"{n}", "") for n in range(10)]
    total = summands[0]
    for summand in summands[1:]:
        assert total is not None
        assert summand is not None
        total = fold.join(total, summand)
    assert total is not None
    assert fold.answer(total) == 1


@pytest.mark.parametrize(
    ("fields", "value", "rule"),
    [
        ({"type": TraitType.STRING}, 3, "must be a text"),
        ({"type": TraitType.NUMBER}, "3", "must be a number"),
        ({"type": TraitType.NUMBER}, True, "must be a number"),
        ({"type": TraitType.INTEGER}, 2.5, "must be a whole number"),
        ({"type": TraitType.INTEGER}, 2.0, None),
        ({"type": TraitType.BOOLEAN}, 1, "must be true or false"),
        ({"type": TraitType.TIME}, "soon", "must be an ISO 8601 date or time"),
        ({"type": TraitType.TIME}, "2026-11-26T09:00:00+09:00", None),
        ({"type": TraitType.TIME}, "2026-11-26", None),
        ({"type": TraitType.STRING_LIST}, ["a", 1], "must be a list of texts"),
        ({"type": TraitType.OBJECT}, [], "must be an object"),
        ({"type": TraitType.STRING, "allowed_values": ("gold", "silver")}, "tin", "must be one of gold, silver"),
        ({"type": TraitType.STRING_LIST, "allowed_values": ("gold",)}, ["gold"], None),
        ({"type": TraitType.STRING, "pattern": "[A-Z]{2}"}, "KRW", "must match [A-Z]{2}"),
        ({"type": TraitType.STRING, "pattern": "[A-Z]{2}|x"}, "KR", None),
        ({"type": TraitType.NUMBER, "minimum": 0.0}, -1, "must be at least 0"),
        ({"type": TraitType.NUMBER, "maximum": 150.0}, 151, "must be at most 150"),
        ({"type": TraitType.STRING}, None, None),
    ],
)
def test_a_value_that_breaks_its_definition_is_told_the_rule(
    fields: dict[str, Any], value: Any, rule: str | None
) -> None:
    defined = TraitDefinition("x", **fields)
    defined.check()
    assert defined.broken_rule(value) == rule


def test_a_pattern_costs_little_whatever_a_stranger_sends() -> None:
    """One that takes other engines the age of the universe answers."""
    assert TraitDefinition("x", type=TraitType.STRING, pattern="(a+)+b").broken_rule("a" * 100_000)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"policy": Policy.SOURCE_PRIORITY}, "sources"),
        ({"sources": ("crm",)}, "sources"),
        ({"policy": Policy.SUM}, "type"),
        ({"policy": Policy.MIN, "type": TraitType.BOOLEAN}, "type"),
        ({"pattern": "a"}, "pattern"),
        ({"pattern": "(", "type": TraitType.STRING}, "pattern"),
        ({"pattern": "(?=a)", "type": TraitType.STRING}, "pattern"),
        ({"allowed_values": ("a",), "type": TraitType.NUMBER}, "allowed_values"),
        ({"minimum": 2.0, "maximum": 1.0, "type": TraitType.NUMBER}, "maximum"),
        ({"minimum": float("nan"), "type": TraitType.NUMBER}, "minimum"),
        ({"maximum": float("inf"), "type": TraitType.NUMBER}, "maximum"),
    ],
)
def test_a_definition_that_does_not_fit_together_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match=f"trait_definition.{field}"):
        TraitDefinition("x", **fields).check()


@pytest.mark.parametrize("enforcement", [Enforcement.WARN, Enforcement.REJECT])
def test_a_broken_trait_is_recorded_without_its_value(enforcement: Enforcement) -> None:
    """Only REJECT keeps it from being learnt, and nothing else of the event."""
    decided = schema(TraitDefinition("age", type=TraitType.NUMBER, enforcement=enforcement))
    given = event(1, KIM, 5, "web", {"age": "secret", "city": "Seoul"})
    events, records = decided.judge([given])
    assert [(r.reason, r.message_id, r.source) for r in records] == [("TRAIT_INVALID", "m1", "web")]
    assert records[0].detail.startswith("traits.age: must be a number")
    assert "secret" not in records[0].detail
    rejected = enforcement is Enforcement.REJECT
    assert events[0].traits == ({"city": "Seoul"} if rejected else given.traits)


@given(histories(), st.sampled_from(Policy))
def test_a_history_ends_in_the_profile(events: list[Event], policy: Policy) -> None:
    """Whatever the policy, the newest change of a trait leaves the value that the profile tells."""
    decided = schema(definition(policy))
    statements = [Statement(e.owner.fragment, e.time_us, e.key, e.source, e.message_id, e.traits) for e in events]
    changes = history(statements, decided)
    assert changes == history(statements[::-1], decided)
    values: dict[str, Any] = {}
    for change in reversed(changes):
        assert values.get(change.trait) == change.old
        values[change.trait] = change.new
    assert {name: value for name, value in values.items() if value is not None} == told(
        learn(events, decided.policies), decided
    )
    assert [c for c in changes if c.trait == "x"] == history(statements, decided, "x")


def occurrence(at_days: float, name: str = "Order Completed", number: int = 0, **properties: Any) -> Occurrence:
    return Occurrence(round(at_days * DAY_US), event_key("web", f"{number}-{at_days}"), name, properties)


def computed(aggregate: Aggregate, path: str = "", **fields: Any) -> ComputedTrait:
    declared = ComputedTrait("x", aggregate, ("Order Completed",), property_path=path, **fields)
    declared.check()
    return declared


ORDERS = [
    occurrence(1, total=10, category="tea", products=[{"sku": "a", "price": 1.5}, {"sku": "b", "price": 2}]),
    occurrence(3, total=0.1, category="tea", products=[{"sku": "a", "price": 7}]),
    occurrence(6, total=0.2, category="ink", coupon=None),
    occurrence(6.5, total="free", category="ink"),
    occurrence(8, "Order Refunded", total=10),
]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (computed(Aggregate.COUNT), 4),
        (computed(Aggregate.COUNT, "products"), 2),
        (computed(Aggregate.COUNT, "coupon"), 0),
        (computed(Aggregate.COUNT, window_days=5), 2),
        (computed(Aggregate.SUM, "total"), 10.3),
        (computed(Aggregate.SUM, "products.price"), 10.5),
        (computed(Aggregate.MIN, "total"), 0.1),
        (computed(Aggregate.MAX, "total"), 10),
        (computed(Aggregate.FIRST, "category"), "tea"),
        (computed(Aggregate.LAST, "category"), "ink"),
        (computed(Aggregate.FIRST), "1970-01-02T00:00:00Z"),
        (computed(Aggregate.MOST_FREQUENT, "category"), "ink"),
        (computed(Aggregate.MOST_FREQUENT, "products.sku"), "a"),
        (computed(Aggregate.DISTINCT_COUNT, "category"), 2),
        (computed(Aggregate.DAYS_SINCE), 3),
        (computed(Aggregate.AVERAGE_GAP), 5.5 / 3),
        (computed(Aggregate.SUM, "total", key_path="category"), {"tea": 10.1, "ink": 0.2}),
        (computed(Aggregate.COUNT, key_path="products.sku"), {"a": 2, "b": 1}),
        (computed(Aggregate.COUNT, conditions=(Condition("category", Operator.EQUALS, ("tea",)),)), 2),
        (computed(Aggregate.COUNT, conditions=(Condition("total", Operator.IN, (10, 0.1)),)), 2),
        (computed(Aggregate.COUNT, conditions=(Condition("products.sku", Operator.EQUALS, ("b",)),)), 1),
        (computed(Aggregate.COUNT, conditions=(Condition("coupon", Operator.EXISTS),)), 0),
    ],
)
def test_a_computed_trait_means_what_its_name_says(declared: ComputedTrait, value: Any) -> None:
    found = evaluate([declared], ORDERS, 10 * DAY_US)["x"]
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (computed(Aggregate.DISTINCT_COUNT, "total"), 3),
        (computed(Aggregate.MOST_FREQUENT, "total"), 1),
        (computed(Aggregate.COUNT, key_path="total"), {"0": 2, "1": 2, "2": 1}),
    ],
)
def test_equal_numbers_are_one_value_however_they_are_written(declared: ComputedTrait, value: Any) -> None:
    """One client sends 1, another 1.0."""
    orders = [occurrence(day, total=total) for day, total in enumerate([0, -0.0, 2, 1.0, 1])]
    assert evaluate([declared], orders, 10 * DAY_US)["x"] == value


@pytest.mark.parametrize("aggregate", [Aggregate.MIN, Aggregate.LAST, Aggregate.DAYS_SINCE, Aggregate.AVERAGE_GAP])
def test_what_never_happened_has_no_value(aggregate: Aggregate) -> None:
    declared = computed(aggregate, "total" if aggregate is Aggregate.MIN else "")
    assert evaluate([declared], [], 0) == {}


def test_a_window_is_exact_to_the_microsecond() -> None:
    declared = computed(Aggregate.COUNT, window_days=1)
    assert evaluate([declared], [occurrence(1)], 2 * DAY_US - 1) == {"x": 1}
    assert evaluate([declared], [occurrence(1)], 2 * DAY_US) == {"x": 0}


def test_of_many_keys_those_with_the_most_events_are_told() -> None:
    many = [occurrence(n, key=f"k{n:03d}") for n in range(MAX_KEYS + 5)] + [occurrence(999, key="k104")]
    keys = evaluate([computed(Aggregate.COUNT, key_path="key")], many, 0)["x"]
    assert len(keys) == MAX_KEYS
    assert keys["k104"] == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"aggregate": Aggregate.SUM},
        {"aggregate": Aggregate.COUNT, "conditions": (Condition("a", Operator.EQUALS),)},
        {"aggregate": Aggregate.COUNT, "conditions": (Condition("a", Operator.EQUALS, (1, 2)),)},
        {"aggregate": Aggregate.COUNT, "conditions": (Condition("a", Operator.EXISTS, (1,)),)},
    ],
)
def test_a_declaration_that_does_not_fit_together_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="computed_trait"):
        ComputedTrait(name="x", event_names=("a",), **fields).check()


OCCURRENCES = st.lists(
    st.builds(
        occurrence,
        st.integers(0, 20).map(lambda quarter: quarter / 4),
        st.sampled_from(["Order Completed", "Page"]),
        number=st.integers(0, 3),
        total=VALUES,
        category=st.sampled_from(["tea", "ink", None, 3, True]),
    ),
    max_size=12,
    unique_by=lambda each: each.key,
)
DECLARED = [
    computed(aggregate, "total", key_path=key, window_days=window)
    for aggregate, key, window in itertools.product(Aggregate, ("", "category"), (0, 3))
]


@given(OCCURRENCES, st.data(), st.sampled_from(DECLARED))
def test_a_computed_trait_depends_on_the_set_of_events_alone(
    occurrences: list[Occurrence], data: st.DataObject, declared: ComputedTrait
) -> None:
    shuffled = data.draw(st.permutations(occurrences))
    assert evaluate([declared], shuffled, 5 * DAY_US) == evaluate([declared], occurrences, 5 * DAY_US)


def test_a_path_leads_through_lists() -> None:
    properties = {"a": {"b": [{"c": 1}, {"c": [2, 3]}, {"d": 4}, 5]}, "x.y": 6}
    assert values_at(properties, "a.b.c") == [1, 2, 3]
    assert values_at(properties, "x.y") == [6]
    assert values_at(properties, "a.z") == []
    assert NO_POLICIES == {}
