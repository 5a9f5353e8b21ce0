# SPDX-License-Identifier: Apache-2.0
"""Neighbourhoods that follow changes are those that come out when everything is worked out at once."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from svc_recommend.domain.histories import Changes
from svc_recommend.domain.interests import DAY_US
from svc_recommend.domain.items import ItemId
from svc_recommend.domain.model import Model
from svc_recommend.domain.neighbours import Neighbourhood, Parameters

EXACT = Parameters(tolerance=0.0)
EPOCH_US = 1_577_836_800_000_000
START_US = 1_790_000_000_000_000

Sums = dict[tuple[bytes, str], tuple[int, int]]
"""Weight and last time by fragment and item."""


def fragment(number: int) -> bytes:
    return random.Random(number).randbytes(16)


def changes(rows: Sequence[tuple[bytes, str, int, int]]) -> Changes:
    fragments, items, weights, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Changes(fragments, [ItemId(item) for item in items], weights, times)


def run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def drained(model: Model, known: dict[str, Neighbourhood], at_once: int = 1000) -> dict[str, Neighbourhood]:
    while model.due_count:
        known |= {each.item_id: each for each in model.refresh(at_once)}
    return {item: each for item, each in known.items() if each.popularity is not None}


def worked_out(sums: Sums, customer_of: Mapping[bytes, bytes], parameters: Parameters) -> dict[str, Neighbourhood]:
    """The definition, word for word, with nothing but dictionaries."""
    by_fragment: dict[bytes, dict[str, tuple[int, int]]] = {}
    for (owner, item), row in sums.items():
        by_fragment.setdefault(owner, {})[item] = row
    histories: dict[bytes, dict[str, tuple[int, int]]] = {}
    for owner, rows in by_fragment.items():
        history = histories.setdefault(customer_of.get(owner, owner), {})
        for item, (weight, time_us) in latest(rows, parameters.most_items).items():
            known = history.get(item, (0, time_us))
            history[item] = (known[0] + weight, max(known[1], time_us))
    interest: dict[bytes, dict[str, float]] = {}
    for customer, history in histories.items():
        liked = {item: row for item, row in latest(history, parameters.most_items).items() if row[0] > 0}
        for item, (weight, time_us) in liked.items():
            decay = 2 ** ((time_us - EPOCH_US) / DAY_US / parameters.half_life_days / 2)
            interest.setdefault(customer, {})[item] = math.log(1 + weight / 1000) * decay / len(liked) ** 0.25
    return neighbourhoods(interest, parameters)


def latest(rows: Mapping[str, tuple[int, int]], most: int) -> dict[str, tuple[int, int]]:
    def order(item: str) -> tuple[int, int]:
        return -rows[item][1], int.from_bytes(blake2b(item.encode(), digest_size=8).digest(), signed=True)

    return {item: rows[item] for item in sorted(rows, key=order)[:most]}


def neighbourhoods(interest: Mapping[bytes, Mapping[str, float]], parameters: Parameters) -> dict[str, Neighbourhood]:
    squares: dict[str, float] = {}
    dots: dict[tuple[str, str], list[float]] = {}
    for row in interest.values():
        for item, value in row.items():
            squares[item] = squares.get(item, 0) + value * value
        for one, other in combinations(sorted(row), 2):
            dots.setdefault((one, other), []).append(row[one] * row[other])
    close: dict[str, list[tuple[float, ItemId, int]]] = {item: [] for item in squares}
    for (one, other), products in dots.items():
        cosine = sum(products) / math.sqrt(squares[one]) / math.sqrt(squares[other])
        similarity = round(min(cosine, 1) * len(products) / (len(products) + parameters.shrinkage), 6)
        close[one].append((-similarity, ItemId(other), len(products)))
        close[other].append((-similarity, ItemId(one), len(products)))
    found = {}
    for item, near in close.items():
        closest = sorted(near)[: parameters.most_neighbours]
        found[item] = Neighbourhood(
            ItemId(item),
            math.log2(squares[item]),
            [other for _, other, _ in closest],
            [-negative for negative, _, _ in closest],
            [count for *_, count in closest],
        )
    return found


def assert_same(found: Mapping[str, Neighbourhood], expected: Mapping[str, Neighbourhood]) -> None:
    assert found.keys() == expected.keys()
    for item, neighbourhood in expected.items():
        assert found[item].popularity == pytest.approx(neighbourhood.popularity, abs=2e-6)
        assert counts(found[item]) == counts(neighbourhood)
        assert similarities(found[item]) == pytest.approx(similarities(neighbourhood), abs=2e-6)


def counts(neighbourhood: Neighbourhood) -> dict[str, int]:
    return dict(zip(neighbourhood.neighbour_ids, neighbourhood.customer_counts, strict=True))


def similarities(neighbourhood: Neighbourhood) -> dict[str, float]:
    return dict(zip(neighbourhood.neighbour_ids, neighbourhood.similarities, strict=True))


ACTS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("abcdefg"), st.sampled_from([1000, 3000, -2000]), st.integers(0, 6)),
    min_size=1,
    max_size=40,
)
MOVES = st.dictionaries(st.integers(0, 5), st.integers(0, 5), max_size=4)


def followed(
    acts: Sequence[tuple[int, str, int, int]], moves: Mapping[int, int], parameters: Parameters, chance: random.Random
) -> tuple[dict[str, Neighbourhood], Sums, dict[bytes, bytes]]:
    """Let a model follow acts and moves in batches of any size, refreshed now and then."""
    model, known, sums = Model(parameters, 10**6), dict[str, Neighbourhood](), Sums()
    waiting: list[object] = [*acts, *({who: whom} for who, whom in moves.items())]
    chance.shuffle(waiting)
    customer_of: dict[bytes, bytes] = {}
    while waiting:
        batch, waiting = waiting[: (count := chance.randint(1, 9))], waiting[count:]
        rows = []
        for each in batch:
            if isinstance(each, dict):
                placed = {fragment(who): fragment(whom) for who, whom in each.items()}
                customer_of |= placed
                run(model.place(placed))
            elif isinstance(each, tuple):
                key = fragment(each[0]), each[1]
                weight, time_us = sums.get(key, (0, 0))
                sums[key] = weight + each[2], max(time_us, START_US + each[3] * DAY_US)
                rows.append((*key, *sums[key]))
        if rows:
            run(model.put(changes(rows)))
        if chance.random() < 0.4:
            known |= {each.item_id: each for each in model.refresh(chance.randint(1, 3))}
    return drained(model, known, chance.randint(1, 8)), sums, customer_of


@settings(max_examples=80, deadline=None)
@given(ACTS, MOVES, st.sampled_from([2, 3, 100]), st.integers(0, 2**32))
def test_following_changes_is_working_everything_out(
    acts: list[tuple[int, str, int, int]], moves: dict[int, int], most_items: int, seed: int
) -> None:
    """Whatever the order and the batching, and wherever it was refreshed in between."""
    parameters = replace(EXACT, most_items=most_items)
    found, sums, customer_of = followed(acts, moves, parameters, random.Random(seed))
    assert_same(found, worked_out(sums, customer_of, parameters))


@settings(max_examples=25, deadline=None)
@given(ACTS, MOVES, st.integers(0, 2**32), st.integers(0, 2**32))
def test_two_orders_end_in_the_same_neighbourhoods(
    acts: list[tuple[int, str, int, int]], moves: dict[int, int], one: int, other: int
) -> None:
    """Down to the order of equally close neighbours."""
    first, *_ = followed(acts, moves, EXACT, random.Random(one))
    second, *_ = followed(acts, moves, EXACT, random.Random(other))
    assert first == second


def test_a_long_history_counts_with_its_latest_items_only() -> None:
    parameters = replace(EXACT, most_items=3)
    model = Model(parameters, 10**6)
    rows = [(fragment(1), f"item-{number}", 1000, START_US + number) for number in range(8)]
    run(model.put(changes(rows)))
    assert drained(model, {}).keys() == {"item-5", "item-6", "item-7"}


def test_decades_apart_is_no_overflow() -> None:
    model = Model(replace(EXACT, half_life_days=14), 10**6)
    long_ago, now = START_US - 20 * 365 * DAY_US, START_US + 5 * 365 * DAY_US
    run(model.put(changes([(fragment(n), item, 1000, long_ago) for n in range(3) for item in "ab"])))
    run(model.put(changes([(fragment(n), item, 1000, now) for n in range(3, 6) for item in "cd"])))
    found = drained(model, {})
    assert {item: list(each.neighbour_ids) for item, each in found.items()} == {
        "a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]
    }  # fmt: skip


def test_many_customers_of_an_item_are_judged_by_those_with_most_interest() -> None:
    """The count of customers who dealt with both is scaled up from them."""
    parameters = replace(EXACT, most_customers=50)
    model = Model(parameters, 10**6)
    rows = [(fragment(n), item, 1000, START_US) for n in range(400) for item in ("hot", f"with-{n % 2}")]
    run(model.put(changes(rows)))
    found = drained(model, {})
    with_hot = counts(found["hot"])
    assert sum(with_hot.values()) == pytest.approx(400, abs=2)
    assert with_hot["with-0"] == pytest.approx(200, abs=80)


def test_too_many_customers_are_judged_by_a_sample() -> None:
    """Half of them, or a quarter, by chance, and the same ones in every process."""
    model = Model(EXACT, most_fragments=300)
    rows = [(fragment(n), item, 1000, START_US) for n in range(1000) for item in ("hot", f"with-{n % 2}")]
    for start in range(0, len(rows), 100):
        run(model.put(changes(rows[start : start + 100])))
    assert model.share == 0.25
    found = drained(model, {})
    with_hot = counts(found["hot"])
    assert sum(with_hot.values()) == pytest.approx(1000, abs=200)


def test_an_item_that_everybody_gave_back_has_no_neighbours() -> None:
    model = Model(EXACT, 10**6)
    run(model.put(changes([(fragment(1), "a", 1000, START_US), (fragment(1), "b", 1000, START_US)])))
    assert drained(model, {})["a"].neighbour_ids
    run(model.put(changes([(fragment(1), "b", 0, START_US)])))
    found = {each.item_id: each for each in model.refresh(10)}
    assert [list(found[ItemId(item)].neighbour_ids) for item in "ab"] == [[], []]
    assert found[ItemId("b")].popularity is None


def test_what_changed_most_comes_first_and_nobody_waits_for_ever() -> None:
    model = Model(EXACT, 10**6)
    run(model.put(changes([(fragment(n), f"i{n % 50}", 1000, START_US + n) for n in range(500)])))
    drained(model, {})
    run(model.put(changes([(fragment(n), "i1", 2000, START_US + n) for n in range(500, 510)])))
    run(model.put(changes([(fragment(511), item, 1000, START_US) for item in ("new", "i2", "i3", "i4")])))
    first = [each.item_id for each in model.refresh(2)]
    assert "new" in first
    waited = {each.item_id for _ in range(50) for each in model.refresh(2)}
    assert {"i1", "i2", "i3", "i4"} <= waited | set(first)
