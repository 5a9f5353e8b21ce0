# SPDX-License-Identifier: Apache-2.0
"""The simulated shop: what happens on a day follows from the seed, the customer and the date alone.

So the same day always gives the same events with the same message ids, whatever day the demo runs on, and sending a
day twice changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from demo.actions import Action, Call, Remark
from demo.catalogue import SHOP_URL, Item, make_items
from demo.customers import Customer, make_customers, pick_item
from demo.voices import RATINGS, SCORES, Mood, choose_mood, write_answer, write_review

ZONE = ZoneInfo("Asia/Seoul")
OPENING_SECOND = 7 * 3600
LAST_SECOND = 24 * 3600 - 3600
AGENTS = {
    "mobile": "Mozilla/5.0 (Linux; Android 15; SM-S931N) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36",
    "desktop": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
    "tablet": "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
}
CAMPAIGNS = ("spring-sale", "kakao-channel", "naver-brand-search", "newsletter")


@dataclass(frozen=True, slots=True)
class Shop:
    """Everything that does not change from day to day."""

    seed: int
    items: tuple[Item, ...]
    customers: tuple[Customer, ...]
    shelves: list[list[Item]]

    @classmethod
    def open(cls, seed: int, customer_count: int) -> Shop:
        """Stock the shelves and meet the customers."""
        items = make_items(seed)
        shelves: dict[int, list[Item]] = {}
        for item in items:
            shelves.setdefault(item.shelf, []).append(item)
        return cls(seed, items, make_customers(seed, customer_count), list(shelves.values()))

    def day(self, day: date) -> list[Action | Remark]:
        """Everything that follows from the visits of one day, in the order of time."""
        happenings = [
            happening for customer in self.customers for visit in self.visits(customer, day) for happening in visit
        ]
        return sorted(happenings, key=lambda happening: happening.time)

    def visits(self, customer: Customer, day: date) -> Iterator[list[Action | Remark]]:
        """The visits of one customer on one day."""
        chance = random.Random(f"{self.seed}:{customer.number}:{day.isoformat()}")
        expected = customer.visits_a_day
        number = 0
        while chance.random() < expected:
            yield Visit(self, customer, day, number, chance).happenings()
            number += 1
            expected = customer.visits_a_day / 3


class Visit:
    """One visit: looking around, perhaps logging in, perhaps buying."""

    def __init__(self, shop: Shop, customer: Customer, day: date, number: int, chance: random.Random) -> None:
        self._shop = shop
        self._customer = customer
        self._chance = chance
        self._name = f"{shop.seed}-{customer.number}-{day:%Y%m%d}-{number}"
        second = chance.randrange(OPENING_SECOND, LAST_SECOND)
        self._now = datetime.combine(day, time.min, ZONE) + timedelta(seconds=second)
        self._device = chance.choices(customer.devices, (3, 1))[0]
        self._context = self._make_context()
        self._is_known = False
        self._step = 0
        self._happened: list[Action | Remark] = []

    def happenings(self) -> list[Action | Remark]:
        """Live through the visit."""
        chance = self._chance
        self._page("Home", "/")
        seen = self._look_around(1 + int(chance.expovariate(0.35)))
        logs_in = chance.random() >= self._customer.shyness
        cart = [item for item in seen if chance.random() < 0.36]
        for item in cart:
            self._track("Product Added", {**item.as_product(), "cart_id": f"cart-{self._name}"})
        if logs_in:
            self._log_in()
        if cart and self._is_known and chance.random() >= self._customer.thrift:
            self._buy(cart)
        if self._is_known and chance.random() < 0.02:
            self._answer_survey()
        return self._happened

    def _look_around(self, count: int) -> list[Item]:
        seen: dict[str, Item] = {}
        for _ in range(min(count, 12)):
            item = pick_item(self._chance, self._customer, self._shop.shelves)
            if item.item_id not in seen:
                seen[item.item_id] = item
                self._track("Product Viewed", {**item.as_product(), "url": item.url})
        return list(seen.values())

    def _log_in(self) -> None:
        self._is_known = True
        self._act("identify", None, self._customer.traits())

    def _buy(self, cart: list[Item]) -> None:
        order_id = f"order-{self._name}"
        products = [item.as_product(self._chance.choices((1, 2, 3), (8, 2, 1))[0]) for item in cart]
        total = sum(product["price"] * product["quantity"] for product in products)
        self._track("Checkout Started", {"order_id": order_id, "value": total, "currency": "KRW", "products": products})
        if self._chance.random() < 0.2:
            return
        order = {"order_id": order_id, "revenue": total, "total": total, "currency": "KRW", "products": products}
        self._track("Order Completed", order)
        later = timedelta(days=self._chance.uniform(1, 5))
        mood = choose_mood(self._chance)
        if self._chance.random() < 0.3:
            self._review(cart[0], mood, later)
        if self._chance.random() < (0.3 if mood == "bad" else 0.03):
            self._track("Order Refunded", {"order_id": order_id, "total": total, "currency": "KRW"}, later)

    def _review(self, item: Item, mood: Mood, later: timedelta) -> None:
        self._happened.append(
            Remark(
                request_id=f"demo-review-{self._name}",
                time=self._now + later,
                user_id=self._customer.user_id,
                kind="REVIEW",
                text=write_review(self._chance, mood, item.title),
                rating=self._chance.choice(RATINGS[mood]),
                item_id=item.item_id,
            )
        )

    def _answer_survey(self) -> None:
        mood = choose_mood(self._chance)
        self._happened.append(
            Remark(
                request_id=f"demo-nps-{self._name}",
                time=self._now + timedelta(minutes=5),
                user_id=self._customer.user_id,
                kind="NPS",
                text=write_answer(self._chance, mood),
                rating=self._chance.choice(SCORES[mood]),
            )
        )

    def _page(self, name: str, path: str) -> None:
        self._act("page", name, {"title": name, "path": path, "url": f"{SHOP_URL}{path}"})

    def _track(self, event: str, properties: dict[str, Any], later: timedelta = timedelta()) -> None:
        self._act("track", event, properties, later)

    def _act(self, call: Call, name: str | None, body: dict[str, Any], later: timedelta = timedelta()) -> None:
        self._now += timedelta(milliseconds=self._chance.randrange(2_000, 90_000))
        self._step += 1
        self._happened.append(
            Action(
                call=call,
                message_id=f"demo-{self._name}-{self._step}",
                time=self._now + later,
                anonymous_id=self._device,
                user_id=self._customer.user_id if self._is_known else None,
                name=name,
                body=body,
                context=self._context,
            )
        )

    def _make_context(self) -> dict[str, Any]:
        context: dict[str, Any] = {
            "locale": "ko-KR",
            "timezone": "Asia/Seoul",
            "userAgent": AGENTS[self._device.rpartition("-")[2]],
        }
        if self._chance.random() < 0.25:
            context["campaign"] = {"name": self._chance.choice(CAMPAIGNS), "medium": "cpc"}
        return context
