# SPDX-License-Identifier: Apache-2.0
"""What an item may be, and how reasons read."""

import pytest
from chassis.errors import Invalid
from svc_recommend.domain.items import Item, ItemId, check_items
from svc_recommend.domain.reasons import ReasonType


def item(item_id: str = "a", **fields: object) -> Item:
    return Item(**{"item_id": ItemId(item_id), "title": "제주 감귤 5kg", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (item(price=float("inf")), "items[1].price"),
        (item(title="nul\x00"), "items[1].title"),
        (item("nul\x00"), "items[1].item_id"),
        (item(categories=("food", "")), "items[1].categories[1]"),
        (item(categories=("x" * 201,)), "items[1].categories[0]"),
        (item(attributes='{"a":"' + "x" * 16 * 1024 + '"}'), "items[1].attributes"),
        (item(attributes='{"a":"\\u0000"}'), "items[1].attributes"),
        (item("first"), "items[1].item_id"),
    ],
)
def test_a_bad_item_is_named_with_its_field(bad: Item, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_items([item("first"), bad])
    assert [violation.field for violation in caught.value.violations] == [field]


def test_all_bad_items_are_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        check_items([item(), item(), item("b", price=float("nan"))])
    assert [violation.field for violation in caught.value.violations] == ["items[2].price", "items[1].item_id"]


def test_good_items_pass() -> None:
    check_items([item("a"), item("b", categories=("food", "과일"), attributes='{"color":"주황"}')])


@pytest.mark.parametrize(
    ("reason", "text", "text_ko"),
    [
        (ReasonType.VIEWED, "Because you viewed 사과", "사과 상품을 보셔서 추천해요"),
        (ReasonType.BOUGHT, "Because you bought 사과", "사과 상품을 구매하셔서 추천해요"),
        (ReasonType.POPULAR, "Popular these days", "요즘 많은 고객님이 찾는 상품이에요"),
    ],
)
def test_reasons_read_well_in_both_languages(reason: ReasonType, text: str, text_ko: str) -> None:
    assert (reason.text("사과"), reason.text_ko("사과")) == (text, text_ko)


def test_a_title_with_braces_stays_as_it_is() -> None:
    assert ReasonType.VIEWED.text("{title} {0}") == "Because you viewed {title} {0}"
