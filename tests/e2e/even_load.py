# SPDX-License-Identifier: Apache-2.0
"""A load in which every customer does the same, so that one question tells whether anything was lost or doubled."""

import json
from collections import Counter
from datetime import UTC, datetime

from bench.platform.running import WRITE_KEY
from bench.platform.workload import BATCH_EVENTS, http_post

ROUND = ("identify", *["Product Viewed"] * 5, *["Product Added"] * 2, "Order Completed", "page")
"""What a customer does in one round, event by event."""
REVENUE = 1_000


class EvenLoad:
    """Batches over a few hundred customers; each batch takes a hundred of them one event further."""

    def __init__(self, cohort: str, customers: int) -> None:
        assert customers % BATCH_EVENTS == 0
        self.cohort = cohort
        self.customers = customers
        self.sent = 0

    def next_request(self) -> bytes:
        """Return the next batch as a whole HTTP request."""
        body = {"batch": self._events(self.sent), "writeKey": WRITE_KEY, "sentAt": datetime.now(UTC).isoformat()}
        self.sent += 1
        return http_post("/v1/batch", json.dumps(body).encode())

    def whole_rounds(self, events: int) -> int:
        """Round a number of events up to what gives every customer the same."""
        round_events = self.customers * len(ROUND)
        return -(-events // round_events) * round_events

    def expected(self) -> dict[str, int]:
        """Event counts of each customer when every batch has been counted once."""
        steps = self.sent * BATCH_EVENTS // self.customers
        return dict(Counter(ROUND[step % len(ROUND)] for step in range(steps)))

    def customer(self, number: int) -> str:
        """The user id of a customer."""
        return f"{self.cohort}-{number}"

    def _events(self, batch: int) -> list[dict[str, object]]:
        step, begin = divmod(batch * BATCH_EVENTS, self.customers)
        return [self._event(number, step) for number in range(begin, begin + BATCH_EVENTS)]

    def _event(self, number: int, step: int) -> dict[str, object]:
        name = ROUND[step % len(ROUND)]
        event: dict[str, object] = {
            "messageId": f"{self.cohort}-{number}-{step}",
            "userId": self.customer(number),
            "anonymousId": f"device-{self.cohort}-{number}",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if name == "identify":
            return event | {"type": "identify", "traits": {"cohort": self.cohort, "number": number}}
        if name == "page":
            return event | {"type": "page", "name": "Home"}
        item = {"product_id": f"{self.cohort}-{number % 50}", "price": REVENUE, "quantity": 1}
        properties: dict[str, object] = item
        if name == "Order Completed":
            order_id = f"order-{number}-{step}"
            properties = {"order_id": order_id, "revenue": REVENUE, "currency": "KRW", "products": [item]}
        return event | {"type": "track", "event": name, "properties": properties}
