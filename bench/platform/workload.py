# SPDX-License-Identifier: Apache-2.0
"""Requests like those of a shop's Segment clients, prepared so that sending one costs next to nothing."""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from bench.platform.running import WRITE_KEY

BATCH_EVENTS = 100
CUSTOMERS = 20_000
ITEMS = 500
TEMPLATES = 400
CITIES = ("Seoul", "Busan", "Incheon", "Daegu", "Jeju")
BATCH_MARK = b"@@@@@@@@@@"
TIME_MARK = b"~~~~~~~~~~~~~~~~~~~~~~~~"
EVENTS_OF_A_VISIT = (
    ("page", "Home", 20),
    ("track", "Product Viewed", 50),
    ("track", "Product Added", 14),
    ("track", "Checkout Started", 6),
    ("track", "Order Completed", 4),
    ("identify", "", 6),
)


class Template:
    """A request with gaps, cut at the gaps once."""

    def __init__(self, request: bytes) -> None:
        self._pieces = re.split(b"(%s|%s)" % (BATCH_MARK, TIME_MARK), request)
        self._batch_gaps = [at for at, piece in enumerate(self._pieces) if piece == BATCH_MARK]
        self._time_gaps = [at for at, piece in enumerate(self._pieces) if piece == TIME_MARK]

    def filled(self, batch: bytes, moment: bytes) -> bytes:
        """Fill the gaps; both texts are as long as their marks."""
        for at in self._batch_gaps:
            self._pieces[at] = batch
        for at in self._time_gaps:
            self._pieces[at] = moment
        return b"".join(self._pieces)


class Workload:
    """Batches of 100 events over a fixed population; every request has new message ids and the time of sending."""

    def __init__(self, seed: int = 1, customers: int = CUSTOMERS, prefix: str = "load") -> None:
        self._chance = random.Random(seed)
        self._customers = customers
        self._prefix = prefix
        self._number = 0
        self.counts: Counter[str] = Counter()
        """Events of one round through all templates, by name."""
        self._templates = [self._template(number) for number in range(TEMPLATES)]

    @property
    def sent(self) -> int:
        """Batches that were handed out."""
        return self._number

    @property
    def mean_bytes(self) -> float:
        """Mean size of a request's body per event."""
        return sum(len(self.request(number)) for number in range(TEMPLATES)) / TEMPLATES / BATCH_EVENTS

    def next_request(self) -> bytes:
        """Return a whole HTTP request that was not sent before."""
        return self.request(self._take_number())

    def request(self, number: int) -> bytes:
        """Return the request of a number; the same number gives the same message ids."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
        return self._templates[number % TEMPLATES].filled(b"%010d" % number, now)

    def _take_number(self) -> int:
        self._number += 1
        return self._number - 1

    def _template(self, number: int) -> Template:
        events = [self._event(number * BATCH_EVENTS + position) for position in range(BATCH_EVENTS)]
        body = {"batch": events, "sentAt": TIME_MARK.decode(), "writeKey": WRITE_KEY}
        return Template(http_post("/v1/batch", json.dumps(body, ensure_ascii=False).encode()))

    def _event(self, number: int) -> dict[str, Any]:
        chance = self._chance
        kind, name, _ = chance.choices(EVENTS_OF_A_VISIT, [weight for _, _, weight in EVENTS_OF_A_VISIT])[0]
        # Neighbouring events belong to one visit of one customer; half of all customers are known.
        customer = number // 5 * 7919 % self._customers
        is_known = customer % 2 == 0
        if kind == "identify" and not is_known:
            kind, name = "page", "Home"
        self.counts[name if kind == "track" else kind] += 1
        event: dict[str, Any] = {
            "integrations": {},
            "anonymousId": f"{self._prefix}-device-{customer}",
            "timestamp": TIME_MARK.decode(),
            "context": {"library": {"name": "analytics-python", "version": "2.4.0"}, "locale": "ko-KR"},
            "userId": f"{self._prefix}-{customer}" if is_known else None,
            "type": kind,
            "messageId": f"{self._prefix}-{BATCH_MARK.decode()}-{number % BATCH_EVENTS:02d}",
        }
        return event | self._content(kind, name, customer)

    def _content(self, kind: str, name: str, customer: int) -> dict[str, Any]:
        if kind == "identify":
            email = f"{self._prefix}.{customer}@example.com"
            return {"traits": {"email": email, "city": CITIES[customer % len(CITIES)], "name": "김서연"}}
        if kind == "page":
            return {"name": name, "category": None, "properties": {"path": "/", "url": "https://shop.example.com/"}}
        return {"event": name, "properties": self._properties(name)}

    def _properties(self, name: str) -> dict[str, Any]:
        products = [self._product() for _ in range(1 if name.startswith("Product") else 2)]
        if name.startswith("Product"):
            return products[0]
        total = sum(product["price"] * product["quantity"] for product in products)
        order_id = f"{BATCH_MARK.decode()}-{self._chance.randrange(10**6)}"
        return {"order_id": order_id, "revenue": total, "total": total, "currency": "KRW", "products": products}

    def _product(self) -> dict[str, Any]:
        number = min(int(self._chance.expovariate(5 / ITEMS)), ITEMS - 1)
        return {
            "product_id": f"sku-{number}",
            "name": "제주 감귤 5kg",
            "category": "과일",
            "price": 1000 * (number % 90 + 1),
            "quantity": 1,
        }


def catalogue() -> list[dict[str, Any]]:
    """The items that the events are about."""
    return [
        {"itemId": f"sku-{n}", "title": f"제주 감귤 {n}호", "categories": ["식품"], "price": 1000, "currency": "KRW"}
        for n in range(ITEMS)
    ]


SEGMENTS = (
    ("loyal-in-seoul", "traits.city == 'Seoul' && count('Order Completed', days(30)) >= 2"),
    ("cart-left-behind", "count('Product Added', days(3)) >= 1 && count('Order Completed', days(3)) == 0"),
    ("big-spenders", "sum('Order Completed', 'revenue', days(30)) >= 500000"),
)
"""Segments that live while events flow."""


def http_post(path: str, body: bytes, key: str = WRITE_KEY) -> bytes:
    """Write an HTTP request by hand."""
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def http_get(path: str, key: str) -> bytes:
    """Write an HTTP request by hand."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
