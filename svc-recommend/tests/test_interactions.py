# SPDX-License-Identifier: Apache-2.0
"""What is read from events, and how it adds up."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from svc_recommend.domain.interactions import DEFAULT_WEIGHTS, EventWeight, Interactions, Kind, Learner, read_properties
from svc_recommend.domain.items import ItemId

FRAGMENTS = (b"a" * 16, b"b" * 16)


def items(properties: Any) -> list[str]:
    return [item for item, _ in read_properties(json.dumps(properties).encode())]


def learnt(*events: tuple[bytes, str, Any, int]) -> dict[tuple[bytes, str], Interactions]:
    learner = Learner(DEFAULT_WEIGHTS)
    for fragment, name, properties, time_us in events:
        learner.learn(fragment, name, json.dumps(properties).encode(), time_us)
    return {(fragment, str(item)): known for (fragment, item), known in learner.learnt.items()}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"product_id": "p", "sku": "s", "item_id": "i"}, ["p"]),
        ({"sku": "s", "item_id": "i"}, ["s"]),
        ({"item_id": "i"}, ["i"]),
        ({"product_id": None, "sku": " ", "item_id": "i"}, ["i"]),
        ({"product_id": 1001}, ["1001"]),
        ({"product_id": True}, []),
        ({"product_id": 1.5}, []),
        ({"product_id": ["p"]}, []),
        ({"product_id": "  제주-감귤 "}, ["제주-감귤"]),
        ({"product_id": "x" * 201}, []),
        ({"product_id": "nul\x00"}, []),
        ({"products": [{"product_id": "a"}, {"sku": "b"}, {"item_id": "c"}, {"product_id": "a"}]}, ["a", "b", "c"]),
        ({"products": [1, None, "a", {}, {"product_id": 7}]}, ["7"]),
        ({"products": {"product_id": "a"}}, []),
        ({"product_id": "own", "products": [{"product_id": "a"}]}, ["own", "a"]),
        ({}, []),
    ],
)
def test_an_item_is_named_by_the_first_usable_id(properties: Any, expected: list[str]) -> None:
    assert items(properties) == expected


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a":' * 50_000])
def test_properties_that_cannot_be_read_teach_nothing(data: bytes) -> None:
    assert list(read_properties(data)) == []


@pytest.mark.parametrize(
    ("name", "properties", "kind", "weight"),
    [
        ("Product Viewed", {}, Kind.VIEWED, 1000),
        ("Product Clicked", {}, Kind.VIEWED, 1000),
        ("Product Added", {}, Kind.WANTED, 3000),
        ("Product Added to Wishlist", {}, Kind.WANTED, 2000),
        ("Product Removed", {}, Kind.WANTED, -3000),
        ("Order Completed", {}, Kind.BOUGHT, 5000),
        ("Order Refunded", {}, Kind.BOUGHT, -5000),
        ("Product Rated", {"rating": 5}, Kind.RATED, 3000),
        ("Product Rated", {"rating": "4"}, Kind.RATED, 1500),
        ("Product Rated", {"rating": 3}, Kind.RATED, 0),
        ("Product Rated", {"rating": 1}, Kind.RATED, -3000),
        ("Product Rated", {"rating": 100}, Kind.RATED, 3000),
        ("Product Rated", {"rating": "good"}, Kind.RATED, 0),
        ("Product Reviewed", {}, Kind.RATED, 0),
    ],
)
def test_each_event_has_its_weight(name: str, properties: dict[str, Any], kind: Kind, weight: int) -> None:
    known = learnt((FRAGMENTS[0], name, {"product_id": "a", **properties}, 7))[FRAGMENTS[0], "a"]
    assert known.weights[kind] == weight
    assert sum(map(abs, known.weights)) == abs(weight)
    assert (known.first_time_us, known.last_time_us) == (7, 7)


def test_each_product_of_an_order_counts_once() -> None:
    products = [{"product_id": "a", "quantity": 100}, {"product_id": "b"}, {"product_id": "a"}]
    known = learnt((FRAGMENTS[0], "Order Completed", {"products": products}, 7))
    assert {item: row.weights for (_, item), row in known.items()} == {"a": [0, 0, 5000, 0], "b": [0, 0, 5000, 0]}


def test_views_and_purchases_remember_their_last_time() -> None:
    rows = [("Product Viewed", 5), ("Order Completed", 9), ("Product Viewed", 3), ("Order Refunded", 12)]
    known = learnt(*((FRAGMENTS[0], name, {"product_id": "a"}, time) for name, time in rows))[FRAGMENTS[0], "a"]
    assert known == Interactions([2000, 0, 0, 0], 3, 12, viewed_time_us=5, bought_time_us=9)


def test_lists_and_unknown_events_are_not_heeded() -> None:
    learner = Learner(DEFAULT_WEIGHTS)
    assert not learner.heeds("Product List Viewed")
    assert not learner.heeds("Cart Viewed")


def test_a_setting_adds_events_and_switches_others_off() -> None:
    learner = Learner(
        {
            **DEFAULT_WEIGHTS,
            "Song Played": EventWeight(Kind.VIEWED, 0.25),
            "Product Viewed": EventWeight(Kind.VIEWED, 0),
        }
    )
    assert not learner.heeds("Product Viewed")
    learner.learn(FRAGMENTS[0], "Song Played", b'{"item_id":"s"}', 1)
    assert learner.learnt[FRAGMENTS[0], ItemId("s")].weights[Kind.VIEWED] == 250


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(FRAGMENTS),
        st.sampled_from(sorted(DEFAULT_WEIGHTS)),
        st.fixed_dictionaries({"product_id": st.sampled_from(["a", "b"]), "rating": st.integers(0, 6)}),
        st.integers(-5, 5),
    ),
    max_size=12,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(events: list[tuple[bytes, str, Any, int]], chance: random.Random) -> None:
    shuffled = list(events)
    chance.shuffle(shuffled)
    assert learnt(*shuffled) == learnt(*events)
