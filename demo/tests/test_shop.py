# SPDX-License-Identifier: Apache-2.0
"""The simulated shop."""

from collections import Counter
from datetime import date, timedelta

from chassis.identifiers import BUILT_IN

from demo.actions import Action, Remark
from demo.customers import make_customers
from demo.expectations import Expectations, is_reached
from demo.shop import ZONE, Shop

FIRST = date(2026, 11, 1)


def days(shop: Shop, count: int, first: date = FIRST) -> list[Action | Remark]:
    """What happens on some days."""
    return [happening for number in range(count) for happening in shop.day(first + timedelta(days=number))]


def actions(shop: Shop, count: int) -> list[Action]:
    """The events of some days."""
    return [happening for happening in days(shop, count) if isinstance(happening, Action)]


def test_the_same_seed_gives_the_same_shop() -> None:
    """Running the demo again sends the same events, which the platform drops as duplicates."""
    assert days(Shop.open(7, 60), 5) == days(Shop.open(7, 60), 5)


def test_another_seed_gives_another_shop() -> None:
    """Two shops on one platform share no customer."""
    one, other = Shop.open(1, 50), Shop.open(2, 50)
    assert {c.user_id for c in one.customers}.isdisjoint(c.user_id for c in other.customers)
    assert {c.email for c in one.customers}.isdisjoint(c.email for c in other.customers)


def test_a_day_does_not_depend_on_the_days_around_it() -> None:
    """Tomorrow's run of the demo repeats today's events under the same ids."""
    shop = Shop.open(1, 80)
    second_day = FIRST + timedelta(days=1)
    assert shop.day(second_day) == [h for h in days(shop, 3) if _visit_day(h) == second_day]


def test_more_customers_leave_the_first_ones_as_they_are() -> None:
    """--customers 500 after --customers 100 adds people and changes nobody."""
    assert make_customers(1, 500)[:100] == make_customers(1, 100)


def test_message_ids_are_unique() -> None:
    """No event is dropped as the duplicate of another."""
    ids = Counter(action.message_id for action in actions(Shop.open(1, 200), 30))
    assert ids.most_common(1)[0][1] == 1
    assert max(map(len, ids)) <= 100


def test_customers_share_no_identifier() -> None:
    """Nobody is merged with somebody else by accident."""
    customers = make_customers(1, 5_000)
    for values in (
        [c.email for c in customers],
        [c.user_id for c in customers],
        [BUILT_IN.normalise("phone", c.phone) for c in customers],
        [device for c in customers for device in c.devices],
    ):
        assert None not in values
        assert len(set(values)) == len(values)


def test_a_visit_begins_unknown_and_logs_in_later() -> None:
    """The platform has to find out whose visit it was."""
    first_of_visit: dict[str, Action] = {}
    for action in actions(Shop.open(1, 200), 20):
        first_of_visit.setdefault(action.message_id.rpartition("-")[0], action)
    assert all(action.user_id is None and action.call == "page" for action in first_of_visit.values())
    assert any(action.call == "identify" and action.user_id for action in actions(Shop.open(1, 200), 20))


def test_orders_add_up() -> None:
    """Revenue is what the products cost."""
    orders = [action.body for action in actions(Shop.open(1, 300), 30) if action.name == "Order Completed"]
    assert orders
    assert all(order["revenue"] == sum(p["price"] * p["quantity"] for p in order["products"]) for order in orders)


def test_every_kind_of_event_and_both_languages_occur() -> None:
    """The demo shows the whole funnel, refunds and feedback."""
    happenings = days(Shop.open(1, 600), 30)
    names = {happening.counted_name for happening in happenings if isinstance(happening, Action)}
    texts = [happening.text for happening in happenings if isinstance(happening, Remark) and happening.text]
    assert names == {
        "page",
        "identify",
        "Product Viewed",
        "Product Added",
        "Checkout Started",
        "Order Completed",
        "Order Refunded",
    }
    assert any(text.isascii() for text in texts)
    assert any(not text.isascii() for text in texts)


def test_tastes_make_items_of_one_shelf_go_together() -> None:
    """Item-to-item recommendations have something to find."""
    shop = Shop.open(1, 400)
    shelf_of = {item.item_id: item.shelf for item in shop.items}
    favourite = total = 0
    owner = {device: customer for customer in shop.customers for device in customer.devices}
    for action in actions(shop, 20):
        if action.name == "Product Viewed" and action.anonymous_id:
            total += 1
            favourite += shelf_of[action.body["product_id"]] in owner[action.anonymous_id].favourites
    assert favourite / total > 0.75


def test_a_profile_is_expected_to_hold_what_its_device_did_before_the_login() -> None:
    """The demo waits for whole customers."""
    expectations = Expectations()
    for action in actions(Shop.open(1, 100), 30):
        expectations.note(action)
    showcase = expectations.showcase()
    assert showcase is not None
    counts = expectations.counts()[showcase]
    assert counts["page"] >= counts["identify"] > 0
    assert is_reached(counts, dict(counts))
    assert not is_reached(counts, {**counts, "page": counts["page"] - 1})


def _visit_day(happening: Action | Remark) -> date:
    """The day in the id; a refund or a review comes later."""
    name = happening.message_id if isinstance(happening, Action) else happening.request_id
    position = 3 if isinstance(happening, Action) else 4
    day = date.fromisoformat(name.split("-")[position])
    assert happening.time.astimezone(ZONE).date() >= day
    return day
