# SPDX-License-Identifier: Apache-2.0
"""Made-up histories, and the figures over them computed in the plainest Python there is."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from chassis.streams import RESOLVED, Delivery
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from svc_metrics.domain import Kpis

PRODUCT_VIEWED, PRODUCT_ADDED, CHECKOUT = "Product Viewed", "상품 담기", "Checkout Started"
COMPLETED, REFUNDED = "Order Completed", "Order Refunded"
NAMES = (PRODUCT_VIEWED, PRODUCT_ADDED, CHECKOUT, COMPLETED, REFUNDED, "page", "it's; DROP TABLE events")


@dataclass(frozen=True)
class Happening:
    """One event with what it should count as, written down apart from the event itself."""

    fragment_id: UUID
    time_us: int
    name: str
    message_id: str
    amount: Decimal | None = None
    currency: str = "KRW"
    order_id: str = ""
    source: str = "key_web"
    properties: Mapping[str, object] = field(default_factory=dict)

    def event(self, profile_id: UUID | None = None, revision: int = 1) -> Event:
        """Return it as it travels on `events.resolved.*`."""
        properties = dict(self.properties)
        if self.amount is not None:
            properties |= {"revenue": float(self.amount), "currency": self.currency, "order_id": self.order_id}
        page = self.name == "page"
        return Event(
            message_id=self.message_id,
            type=EventType.EVENT_TYPE_PAGE if page else EventType.EVENT_TYPE_TRACK,
            source=self.source,
            name="" if page else self.name,
            time_us=self.time_us,
            received_time_us=self.time_us + 1_000_000,
            properties=json.dumps(properties, ensure_ascii=False).encode(),
            context=b'{"library": {"name": "test"}}',
            fragment_id=self.fragment_id.bytes,
            profile_id=(profile_id or self.fragment_id).bytes,
            mapping_revision=revision,
        )

    @property
    def order_key(self) -> str | None:
        """What tells orders apart; None for anything but an order."""
        if self.name != COMPLETED:
            return None
        return f"id {self.order_id}" if self.order_id else f"event {self.message_id}"


def moment(text: str) -> int:
    """Return microseconds since the epoch of an ISO time, UTC when it names no zone."""
    parsed = datetime.fromisoformat(text)
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return (parsed - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def random_history(random: Random, *, count: int, customers: int, first: str, last: str) -> list[Happening]:
    """Make a history with ties in time, repeated orders, refunds, two currencies and a Korean name."""
    fragments = [UUID(int=random.getrandbits(128)) for _ in range(customers)]
    start, end = moment(first), moment(last)
    moments = [random.randrange(start, end) for _ in range(max(2, count // 3))]
    history = []
    for number in range(count):
        name = random.choices(NAMES, (6, 4, 3, 3, 1, 4, 1))[0]
        amount = None
        if name in (COMPLETED, REFUNDED):
            amount = Decimal(random.randrange(0 if name == COMPLETED else 1, 10**7)) / 100
        history.append(
            Happening(
                fragment_id=random.choice(fragments),
                time_us=random.choice(moments) if random.random() < 0.7 else random.randrange(start, end),
                name=name,
                message_id=f"m{number}",
                amount=amount,
                currency=random.choice(("KRW", "KRW", "USD")),
                order_id=random.choice(("", f"o{random.randrange(count // 4 + 1)}")),
                source=random.choice(("key_web", "key_server")),
            )
        )
    return history


def batch_of(events: Iterable[Event], sequence: int = 1, message_id: str | None = None) -> Delivery[EventBatch]:
    """Return events as one delivered message."""
    return Delivery(EventBatch(events=events), message_id or f"id-{sequence}", RESOLVED, sequence, 1)


def expected_kpis(
    history: Iterable[Happening],
    profile_of: Mapping[UUID, UUID],
    *,
    days: Sequence[date],
    zone: str,
    currency: str,
    members: set[UUID] | None = None,
) -> tuple[list[Kpis], Kpis]:
    """Compute the key figures of each day and of all days."""
    by_day: dict[date, list[Happening]] = defaultdict(list)
    for happening in set_of(history):
        local = datetime.fromtimestamp(happening.time_us // 1_000_000, UTC).astimezone(ZoneInfo(zone)).date()
        if local in days and (members is None or _profile(happening, profile_of) in members):
            by_day[local].append(happening)
    everything = [happening for happenings in by_day.values() for happening in happenings]
    return (
        [_kpis(day, by_day[day], profile_of, currency) for day in days],
        _kpis(days[0], everything, profile_of, currency),
    )


def set_of(history: Iterable[Happening]) -> list[Happening]:
    """Leave out repetitions."""
    return list({(h.source, h.message_id): h for h in history}.values())


def _profile(happening: Happening, profile_of: Mapping[UUID, UUID]) -> UUID:
    return profile_of.get(happening.fragment_id, happening.fragment_id)


def _kpis(day: date, happenings: list[Happening], profile_of: Mapping[UUID, UUID], currency: str) -> Kpis:
    orders = [h for h in happenings if h.name == COMPLETED]
    gross = sum((h.amount for h in orders if h.amount and h.currency == currency), Decimal(0))
    refunds = [h for h in happenings if h.name == REFUNDED]
    back = sum((h.amount for h in refunds if h.amount and h.currency == currency), Decimal(0))
    return Kpis(
        date=day,
        active_customers=len({_profile(h, profile_of) for h in happenings}),
        events=len(happenings),
        orders=len({h.order_key for h in orders}),
        buyers=len({_profile(h, profile_of) for h in orders}),
        revenue=gross - back,
        gross_revenue=gross,
        orders_in_currency=len({h.order_key for h in orders if h.currency == currency}),
    )


def expected_levels(
    history: Iterable[Happening], profile_of: Mapping[UUID, UUID], steps: Sequence[str], window_us: int
) -> dict[int, int]:
    """Count how far each customer gets, by trying every chain of events there is."""
    by_profile: dict[UUID, list[tuple[int, str]]] = defaultdict(list)
    for happening in set_of(history):
        if happening.name in steps:
            by_profile[_profile(happening, profile_of)].append((happening.time_us, happening.name))
    levels: dict[int, int] = defaultdict(int)
    for events in by_profile.values():
        levels[_level(events, steps, window_us)] += 1
    return dict(levels)


def _level(events: list[tuple[int, str]], steps: Sequence[str], window_us: int) -> int:
    chains = {(time, time) for time, name in events if name == steps[0]}
    level = 0
    for step in steps[1:]:
        if not chains:
            break
        level += 1
        chains = {
            (start, time)
            for start, last in chains
            for time, name in events
            if name == step and time > last and time - start <= window_us
        }
    return level + 1 if chains else level
