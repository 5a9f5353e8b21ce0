# SPDX-License-Identifier: Apache-2.0
"""What is chosen for one customer."""

import pytest
from svc_recommend.domain.items import Item, ItemId
from svc_recommend.domain.neighbours import Neighbourhood
from svc_recommend.domain.ranking import Deed, Slate, Taste, recommend, similar
from svc_recommend.domain.reasons import ReasonType
from svc_recommend.domain.shelf import Shelf

DAY_US = 86_400_000_000
PLAIN = Taste(popularity_power=0.0, source_share=1.0)


def item(item_id: str, *categories: str, hidden: bool = False) -> Item:
    return Item(ItemId(item_id), f"Item {item_id}", categories, hidden=hidden)


def near(item_id: str, popularity: float | None = 0.0, **similarities: float) -> Neighbourhood:
    ids = [ItemId(other) for other in similarities]
    return Neighbourhood(ItemId(item_id), popularity, ids, list(similarities.values()), [3] * len(ids))


def did(item_id: str, weight: int = 1000, day: int = 0, *, bought: bool = False) -> Deed:
    return Deed(ItemId(item_id), weight, day * DAY_US, bought)


def shelf_with(items: list[Item], *neighbourhoods: Neighbourhood) -> Shelf:
    shelf = Shelf()
    shelf.put_items(items)
    shelf.put_neighbourhoods(neighbourhoods)
    shelf.arrange()
    return shelf


def ids(slate: Slate) -> list[str]:
    return [each.item.item_id for each in slate.recommendations]


@pytest.fixture
def shelf() -> Shelf:
    """Items a to f; a leads to b and c, d leads to c and e."""
    return shelf_with(
        [item(each, "vowel" if each in "ae" else "consonant", "letter") for each in "abcdef"],
        near("a", 5.0, b=0.9, c=0.5),
        near("d", 4.0, c=0.6, e=0.3),
        near("b", 3.0),
        near("c", 2.0),
        near("e", 1.0),
        near("f", None),
    )


def test_a_customer_nobody_knows_gets_what_is_popular(shelf: Shelf) -> None:
    slate = recommend(shelf, [], 4, "", PLAIN)
    assert ids(slate) == ["a", "d", "b", "c"]
    assert {each.reason for each in slate.recommendations} == {ReasonType.POPULAR}
    assert not slate.personalized


def test_an_empty_shelf_gives_an_empty_answer() -> None:
    slate = recommend(Shelf(), [did("a")], 10, "", PLAIN)
    assert slate == Slate((), personalized=False)
    assert ids(recommend(Shelf(), [did("a")], 10, "food", PLAIN)) == []


def test_what_the_customer_dealt_with_is_left_out(shelf: Shelf) -> None:
    slate = recommend(shelf, [did("a"), did("b", weight=-2000)], 10, "", PLAIN)
    assert ids(slate) == ["c", "d", "e"]
    assert slate.personalized


def test_what_sources_say_adds_up_and_the_loudest_is_the_reason(shelf: Shelf) -> None:
    slate = recommend(shelf, [did("a"), did("d", bought=True)], 10, "", PLAIN)
    assert [
        (each.item.item_id, each.reason, each.source and each.source.item_id) for each in slate.recommendations
    ] == [
        ("c", ReasonType.BOUGHT, "d"),
        ("b", ReasonType.VIEWED, "a"),
        ("e", ReasonType.BOUGHT, "d"),
    ]


def test_scores_never_rise(shelf: Shelf) -> None:
    for share in (0.2, 0.5, 1.0):
        for deeds in ([], [did("a")], [did("a"), did("d")], [did("c"), did("f")]):
            slate = recommend(shelf, deeds, 6, "", Taste(source_share=share))
            scores = [each.score for each in slate.recommendations]
            assert scores == sorted(scores, reverse=True)
            assert all(score > 0 for score in scores)
            assert len(set(ids(slate))) == len(scores)


def test_an_older_interaction_says_less(shelf: Shelf) -> None:
    fresh = recommend(shelf, [did("a", day=100), did("d", day=0)], 1, "", PLAIN)
    assert ids(fresh) == ["b"]
    assert ids(recommend(shelf, [did("a", day=0), did("d", day=100)], 1, "", PLAIN)) == ["c"]


def test_a_heavier_interaction_says_more(shelf: Shelf) -> None:
    assert ids(recommend(shelf, [did("a"), did("d", 100_000)], 4, "", PLAIN)) == ["c", "e", "b"]


def test_what_the_customer_took_back_leads_to_nothing(shelf: Shelf) -> None:
    slate = recommend(shelf, [did("a", weight=0)], 10, "", PLAIN)
    assert {each.reason for each in slate.recommendations} == {ReasonType.POPULAR}
    assert "a" not in ids(slate)
    assert slate.personalized


def test_one_source_does_not_fill_the_answer_while_there_is_anything_else() -> None:
    close = {f"n{number}": 0.9 - number / 100 for number in range(6)}
    names = ["a", *close, "p1", "p2"]
    shelf = shelf_with(
        [item(each) for each in names], near("a", 9.0, **close), near("p1", 8.0), near("p2", 7.0), *map(near, close)
    )
    slate = recommend(shelf, [did("a")], 4, "", Taste(popularity_power=0.0, source_share=0.5))
    assert ids(slate) == ["n0", "n1", "p1", "p2"]
    everything = recommend(shelf, [did("a")], 8, "", Taste(popularity_power=0.0, source_share=0.25))
    assert ids(everything) == ["n0", "n1", "p1", "p2", "n2", "n3", "n4", "n5"]


def test_a_popular_item_comes_before_a_rare_one_that_is_as_similar() -> None:
    shelf = shelf_with(
        [item(each) for each in ("a", "rare", "hot")],
        near("a", 1.0, rare=0.51, hot=0.5),
        near("rare", 1.0),
        near("hot", 6.0),
    )
    assert ids(recommend(shelf, [did("a")], 2, "", PLAIN)) == ["rare", "hot"]
    assert ids(recommend(shelf, [did("a")], 2, "", Taste(popularity_power=0.5, source_share=1))) == ["hot", "rare"]


def test_only_items_of_the_category_are_recommended(shelf: Shelf) -> None:
    assert ids(recommend(shelf, [did("d")], 10, "vowel", PLAIN)) == ["e", "a"]
    assert ids(recommend(shelf, [], 10, "consonant", PLAIN)) == ["d", "b", "c"]
    assert ids(recommend(shelf, [], 10, "nothing", PLAIN)) == []


def test_hidden_and_deleted_items_are_not_recommended_but_what_was_learnt_is_used(shelf: Shelf) -> None:
    shelf.put_items([item("b", hidden=True), item("a", hidden=True)])
    shelf.remove_items([ItemId("d")])
    shelf.arrange()
    slate = recommend(shelf, [did("a")], 10, "", PLAIN)
    assert ids(slate) == ["c", "e"]
    assert slate.recommendations[0].source == item("a", hidden=True)
    assert [each.item.item_id for each in similar(shelf, ItemId("a"), 10)] == ["c"]


def test_an_item_that_the_catalogue_does_not_know_leads_to_nothing_until_it_does() -> None:
    shelf = shelf_with([item("b")], near("a", 5.0, b=0.9), near("b", 1.0, a=0.9))
    assert ids(recommend(shelf, [did("b")], 10, "", PLAIN)) == []
    slate = recommend(shelf, [did("a")], 10, "", PLAIN)
    assert [each.reason for each in slate.recommendations] == [ReasonType.POPULAR]
    assert not slate.personalized
    shelf.put_items([item("a")])
    shelf.arrange()
    assert recommend(shelf, [did("a")], 10, "", PLAIN).recommendations[0].reason is ReasonType.VIEWED
    assert ids(recommend(shelf, [did("b")], 10, "", PLAIN)) == ["a"]


def test_equal_scores_are_ordered_by_id() -> None:
    names = ["z", "m", "k", "c", "b"]
    popular = shelf_with([item(each) for each in names], *(near(each, 1.0) for each in names))
    assert ids(recommend(popular, [], 5, "", PLAIN)) == sorted(names)
    close = dict.fromkeys(names, 0.5)
    shelf = shelf_with(
        [item(each) for each in ["s", *names]], near("s", 1.0, **close), *(near(each, 1.0) for each in names)
    )
    assert ids(recommend(shelf, [did("s")], 3, "", PLAIN)) == ["b", "c", "k"]


def test_the_answer_does_not_hang_on_the_order_in_which_things_were_learnt(shelf: Shelf) -> None:
    deeds = [did("a"), did("d"), did("b", 500)]
    assert recommend(shelf, deeds, 6, "", Taste()) == recommend(shelf, deeds[::-1], 6, "", Taste())


def test_a_new_neighbourhood_replaces_the_old_one(shelf: Shelf) -> None:
    shelf.put_neighbourhoods([near("a", 5.0, e=0.7)])
    shelf.arrange()
    assert [each.item.item_id for each in similar(shelf, ItemId("a"), 10)] == ["e"]
    shelf.put_neighbourhoods([near("a", None)])
    shelf.arrange()
    assert similar(shelf, ItemId("a"), 10) == []
    assert "a" not in ids(recommend(shelf, [], 10, "", PLAIN))
