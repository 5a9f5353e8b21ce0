# SPDX-License-Identifier: Apache-2.0
"""From what customers do to what they are recommended, through the running service."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from chassis.identity import format_profile_id
from chassis.streams import RESOLVED
from chassis.testing import Engines, running
from dangol.events.v1.events_pb2 import Event, EventBatch
from dangol.profile.v1.consent_pb2 import ConsentsChanged
from dangol.recommend.v1 import recommend_pb2 as pb
from svc_recommend.app import build
from svc_recommend.settings import Settings

if TYPE_CHECKING:
    from .conftest import Shop


async def test_nothing_is_recommended_from_an_empty_catalogue(shop: Shop) -> None:
    """Also when customers dealt with items: without a title there is nothing to show."""
    await shop.happen(shop.views("u1", "a", "b"), shop.views("u2", "a"))
    await shop.learn()
    answer = await shop.recommend("u2")
    assert (list(answer.recommendations), answer.personalized) == ([], False)


async def test_items_are_learnt_about_before_the_catalogue_knows_them(shop: Shop) -> None:
    await shop.happen(shop.views("u1", "a", "b"), shop.views("u2", "a"))
    await shop.learn()
    await shop.put("a", "b")
    answer = await shop.recommend("u2")
    assert [each.item_id for each in answer.recommendations] == ["b"]
    assert answer.recommendations[0].reason.source_item_id == "a"


async def test_a_customer_nobody_heard_of_gets_what_is_popular(shop: Shop) -> None:
    await shop.put("a", "b", "c")
    await shop.happen(shop.views("u1", "a"), shop.views("u2", "a", "b"), shop.views("u3", "a", "b", "c"))
    await shop.learn()
    answer = await shop.recommend("stranger")
    assert [each.item_id for each in answer.recommendations] == ["a", "b", "c"]
    assert {each.reason.type for each in answer.recommendations} == {pb.REASON_TYPE_POPULAR}
    assert answer.recommendations[0].reason.text_ko == "요즘 많은 고객님이 찾는 상품이에요"
    assert not answer.personalized
    assert answer.profile_id == format_profile_id(shop.fragment("stranger"))


async def test_what_happened_a_moment_ago_changes_the_answer(shop: Shop) -> None:
    """Without any refresh: what was viewed is gone, and leads to what others viewed with it."""
    await shop.put("a", "b", "c")
    await shop.put("감귤", title="제주 감귤 5kg")
    await shop.happen(shop.views("u1", "감귤", "b"), shop.views("u2", "감귤", "b"), shop.views("u3", "c", "a"))
    await shop.learn()
    assert "감귤" in await shop.recommended("me")
    await shop.happen(shop.event("me", "Product Viewed", "감귤"))
    answer = await shop.recommend("me")
    first = answer.recommendations[0]
    assert (first.item_id, first.reason.type) == ("b", pb.REASON_TYPE_BECAUSE_YOU_VIEWED)
    assert first.reason.source_item_id == "감귤"
    assert first.reason.text == "Because you viewed 제주 감귤 5kg"
    assert first.reason.text_ko == "제주 감귤 5kg 상품을 보셔서 추천해요"
    assert "감귤" not in [each.item_id for each in answer.recommendations]
    assert answer.personalized


async def test_what_was_bought_is_the_reason_when_it_was_bought(shop: Shop) -> None:
    await shop.put("a", "b")
    await shop.happen(shop.views("u1", "a", "b"), [shop.event("me", "Order Completed", "a", "other")])
    await shop.learn()
    reason = (await shop.recommend("me")).recommendations[0].reason
    assert (reason.type, reason.text) == (pb.REASON_TYPE_BECAUSE_YOU_BOUGHT, "Because you bought Item a")
    assert reason.text_ko == "Item a 상품을 구매하셔서 추천해요"


async def test_hidden_deleted_and_other_categories_are_left_out(shop: Shop) -> None:
    await shop.put("a", "b", categories=["food"])
    await shop.put("c", categories=["toys"])
    await shop.put("d", "e", categories=["food"])
    await shop.happen(shop.views("u1", "a", "b", "c", "d", "e"), shop.views("me", "a"))
    await shop.learn()
    assert sorted(await shop.recommended("me")) == ["b", "c", "d", "e"]
    await shop.put("d", categories=["food"], hidden=True)
    await shop.api.DeleteItem(pb.DeleteItemRequest(item_id="e"))
    assert sorted(await shop.recommended("me")) == ["b", "c"]
    assert await shop.recommended("me", category="food") == ["b"]
    assert await shop.recommended("me", size=1, category="toys") == ["c"]


async def test_similar_items_are_those_the_same_customers_deal_with(shop: Shop) -> None:
    await shop.put("a", "b", "c")
    await shop.happen(
        [shop.event(user, "Product Viewed", item, minute=0) for user in ("u1", "u2", "u3") for item in ("a", "b")],
        [shop.event("u4", "Product Viewed", item, minute=0) for item in ("a", "c")],
    )
    await shop.learn()
    # a has 4 customers, b 3, c 1, each with as long a history: cosines sqrt(3/4) and sqrt(1/4), shrunk by n / (n + 2).
    to_b, to_c = (3 / 4) ** 0.5 * 3 / 5, 0.5 / 3
    found = await shop.similar("a")
    assert [(item, count) for item, _, count in found] == [("b", 3), ("c", 1)]
    assert [similarity for _, similarity, _ in found] == pytest.approx([to_b, to_c], abs=1e-5)
    assert await shop.similar("a", size=1) == found[:1]
    assert [item for item, *_ in await shop.similar("c")] == ["a"]


async def test_a_message_that_comes_again_teaches_nothing(shop: Shop) -> None:
    """The inbox knows it, whatever the broker says."""
    batch = EventBatch(events=shop.views("u1", "a", "b", "a"))
    subject = RESOLVED.replace("*", "0")
    await shop.service.deliver(batch, subject=subject, message_ids=["once"])
    before = await shop.kept()
    for number in range(3):
        headers = {"Dangol-Message-Id": "once"}
        await shop.service.bus.publish(
            subject, batch.SerializeToString(), message_id=f"again-{number}", headers=headers
        )
    await shop.service.settled()
    assert await shop.kept() == before
    assert [row[2] for row in before] == [2000, 1000]


async def test_a_merge_joins_histories_and_a_split_parts_them(shop: Shop) -> None:
    """Only the mapping changes; nothing that was learnt is lost."""
    await shop.put("a", "b", "c", "d")
    await shop.happen(shop.views("phone", "a"), shop.views("laptop", "b"), shop.views("u1", "a", "c"))
    await shop.learn()
    apart = await shop.neighbourhoods()
    assert sorted(await shop.recommended("laptop")) == ["a", "c"]
    await shop.move(1, laptop="phone")
    assert await shop.recommended("laptop") == ["c"]
    assert (await shop.recommend("laptop")).profile_id == format_profile_id(shop.fragment("phone"))
    await shop.learn()
    assert "b" in [item for item, *_ in await shop.similar("a")]
    await shop.move(2, laptop="laptop")
    await shop.learn()
    assert await shop.neighbourhoods() == apart
    assert sorted(await shop.recommended("laptop")) == ["a", "c"]


async def test_a_fragment_that_did_nothing_can_move(shop: Shop) -> None:
    """Like somebody who logs in first and looks around later."""
    await shop.put("a", "b")
    await shop.happen(shop.views("phone", "a"), shop.views("u1", "a", "b"))
    await shop.learn()
    await shop.move(1, laptop="phone")
    await shop.learn()
    assert await shop.recommended("laptop") == ["b"]
    await shop.happen(shop.views("laptop", "b"))
    await shop.learn()
    assert [(item, count) for item, _, count in await shop.similar("a")] == [("b", 2)]


async def test_an_event_teaches_who_is_who_and_the_highest_revision_wins(shop: Shop) -> None:
    await shop.put("a", "b")
    late = shop.event("laptop", "Product Viewed", "a")
    late.profile_id, late.mapping_revision = shop.fragment("wrong").bytes, 1
    newer = shop.event("laptop", "Product Viewed", "a")
    newer.profile_id, newer.mapping_revision = shop.fragment("phone").bytes, 2
    await shop.happen(newer)
    await shop.happen(late)
    assert (await shop.recommend("laptop")).profile_id == format_profile_id(shop.fragment("phone"))


async def test_a_clock_that_runs_ahead_does_not_make_an_item_popular_for_years(shop: Shop) -> None:
    await shop.put("a", "b")
    ahead = shop.event("u1", "Product Viewed", "a")
    ahead.time_us += 10 * 365 * 86_400_000_000
    await shop.happen([ahead], shop.views("u2", "b"), shop.views("u3", "b"))
    await shop.learn()
    assert await shop.recommended("stranger") == ["b", "a"]


async def test_events_that_name_no_item_or_nobody_are_passed_over(shop: Shop) -> None:
    nobody = shop.event("u1", "Product Viewed", "a")
    nobody.fragment_id = b""
    broken = shop.event("u1", "Product Viewed", "a")
    broken.properties = b'{"product_id": "a'
    await shop.happen([nobody, broken, shop.event("u1", "Product Viewed"), shop.event("u1", "Cart Viewed", "a")])
    assert await shop.kept() == []


async def test_any_order_and_batching_of_events_ends_the_same(shop: Shop) -> None:
    """Interactions and neighbourhoods, with merges and repeated messages in between."""
    chance = random.Random(11)
    names = ["Product Viewed", "Product Added", "Product Removed", "Order Completed", "Product Rated"]
    events = [
        shop.event(
            f"u{chance.randrange(8)}", chance.choice(names), chance.choice("abcdef"), rating=chance.randint(1, 5)
        )
        for _ in range(120)
    ]
    await _lives_through(shop, [events], learn_between=False)
    kept, neighbourhoods = await shop.kept(), await shop.neighbourhoods()
    assert kept
    assert any(neighbours != "[[], [], []]" for _, _, neighbours in neighbourhoods)
    for number in range(4):
        await shop.forget_everything()
        shuffled = chance.sample(events, len(events))
        size = chance.choice([1, 7, 40])
        batches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        await _lives_through(shop, batches, learn_between=number % 2 == 0)
        assert await shop.kept() == kept
        assert await shop.neighbourhoods() == neighbourhoods


async def _lives_through(shop: Shop, batches: list[list[Event]], *, learn_between: bool) -> None:
    half = len(batches) // 2
    await shop.happen(*batches[:half])
    if learn_between:
        await shop.learn()
    await shop.move(1, u1="u0", u2="u3")
    await shop.happen(*batches[half:])
    await shop.learn()


async def test_a_refresher_that_starts_anew_comes_to_the_same(shop: Shop, engines: Engines) -> None:
    """And when another one has worked in between, it notices and reads everything again."""
    await shop.put("a", "b", "c")
    await shop.happen(shop.views("u1", "a", "b"), shop.views("u2", "b", "c"))
    await shop.learn()
    before = await shop.neighbourhoods()
    name = shop.service.database.name
    async with running(build, Settings, engines, roles=(), postgres_database=name, tolerance=0) as other:
        rival = other.service.jobs[0].run.__self__  # type: ignore[attr-defined]
        await rival.run()
        assert await shop.neighbourhoods() == before
        await shop.happen(shop.views("u3", "a", "c"))
        await rival.run()
    after = await shop.neighbourhoods()
    assert after != before
    await shop.learn()
    assert await shop.neighbourhoods() == after


async def test_a_setting_gives_events_other_weights(engines: Engines) -> None:
    weights = {"Song Played": {"kind": "viewed", "weight": 0.5}, "Product Viewed": {"kind": "viewed", "weight": 0}}
    settings = Settings(event_weights=weights)
    known = settings.weights()
    assert (known["Song Played"].weight, known["Product Viewed"].weight) == (0.5, 0)
    assert known["Order Completed"].weight == 5


@pytest.mark.parametrize("weight", [{"kind": "eaten", "weight": 1}, {"kind": "viewed", "weight": 1e9}, {"weight": 1}])
def test_a_weight_that_makes_no_sense_does_not_start(weight: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Song Played"):
        Settings(event_weights={"Song Played": weight})


async def consent(shop: Shop, revision: int, **refused: bool) -> None:
    """Let svc-profile say who has refused personalisation."""
    for user, refuses in refused.items():
        fragment = shop.fragment(user).bytes
        message = ConsentsChanged(
            profile_id=fragment,
            fragment_ids=[fragment],
            refused_purpose_ids=["personalization"] if refuses else [],
            revision=revision,
        )
        await shop.service.deliver(message)


async def test_who_refuses_personalization_gets_what_is_popular(shop: Shop) -> None:
    """The same as somebody nobody has heard of: no history, no reason about the person, also in the past."""
    await shop.put("a", "b", "c")
    await shop.happen(*(shop.views(user, "a", "b") for user in ("u1", "u2", "u3")), shop.views("ana", "a"))
    await shop.learn()
    assert (await shop.recommend("ana")).recommendations[0].reason.source_item_id == "a"
    await consent(shop, 1, ana=True)
    answer = await shop.recommend("ana")
    assert not answer.personalized
    assert [each.item_id for each in answer.recommendations] == await shop.recommended("stranger")
    assert {each.reason.type for each in answer.recommendations} == {pb.REASON_TYPE_POPULAR}
    assert "a" in [each.item_id for each in answer.recommendations]
    await consent(shop, 2, ana=False)
    assert (await shop.recommend("ana")).personalized


async def test_nothing_is_learnt_from_who_refuses_personalization(shop: Shop) -> None:
    """Neither from what happens then nor from what happened before; a grant brings the earlier history back."""
    await shop.put("a", "b", "c")
    await shop.happen(shop.views("u1", "a", "b"), shop.views("ana", "a", "b"))
    await shop.learn()
    assert [count for _, _, count in await shop.similar("a")] == [2]
    await consent(shop, 1, ana=True)
    await shop.happen(shop.views("ana", "a", "c"))
    await shop.learn()
    assert [(item, count) for item, _, count in await shop.similar("a")] == [("b", 1)]
    async with shop.service.database.transaction() as tx:
        await tx.execute("UPDATE refreshers SET holder = 'somebody else'")
    await shop.learn()
    assert [(item, count) for item, _, count in await shop.similar("a")] == [("b", 1)]
    await consent(shop, 2, ana=False)
    await shop.learn()
    assert [(item, count) for item, _, count in await shop.similar("a")] == [("b", 2)]
