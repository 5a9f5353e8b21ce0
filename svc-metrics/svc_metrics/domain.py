# SPDX-License-Identifier: Apache-2.0
"""What the figures mean: ranges of days, key figures, funnels, timelines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa
from chassis.errors import Invalid
from chassis.identity import FragmentId, ProfileId

DEFAULT_TIME_ZONE = "Asia/Seoul"
DEFAULT_DAYS = 30
MAX_DAYS = 731
FIRST_DAY = date(1971, 1, 1)
LAST_DAY = date(2148, 12, 31)

DEFAULT_FUNNEL_WINDOW = timedelta(days=7)
MIN_FUNNEL_STEPS = 2
MAX_FUNNEL_STEPS = 20

_EVENT_COLUMNS: dict[str, pa.DataType] = {
    "fragment_id": pa.binary(16),
    "event_time": pa.timestamp("us", "UTC"),
    "received_time": pa.timestamp("us", "UTC"),
    "source": pa.utf8(),
    "message_id": pa.utf8(),
    "type": pa.int8(),
    "name": pa.utf8(),
    "counted_name": pa.utf8(),
    "revenue": pa.decimal128(18, 4),
    "currency": pa.utf8(),
    "order_id": pa.utf8(),
    "order_key": pa.utf8(),
    "properties": pa.binary(),
    "context": pa.binary(),
}

EVENT_SCHEMA = pa.schema(_EVENT_COLUMNS)
"""Events on their way into the store, as columns: one spelling for the wire, the table and the queries."""


@dataclass(frozen=True)
class DayRange:
    """Whole days, from the first to the last, as one time zone cuts them."""

    first: date
    last: date
    time_zone: str

    @classmethod
    def of(cls, start_date: str, end_date: str, time_zone: str, now: datetime) -> "DayRange":
        """Read the caller's texts; empty ones mean the last 30 days in Seoul. Raises `Invalid`."""
        zone = _zone(time_zone or DEFAULT_TIME_ZONE)
        last = _day("end_date", end_date) if end_date else now.astimezone(zone).date()
        first = _day("start_date", start_date) if start_date else last - timedelta(days=DEFAULT_DAYS - 1)
        if first > last:
            raise Invalid.field("start_date", f"must not be after the last day, {last}")
        if (last - first).days >= MAX_DAYS:
            raise Invalid.field("start_date", f"the range has {(last - first).days + 1} days, at most {MAX_DAYS}")
        return cls(first, last, zone.key)

    def days(self) -> list[date]:
        """Every day, oldest first."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def around(self) -> tuple[datetime, datetime]:
        """Two moments with the whole range between them, whatever the zone's clocks did on the days at the ends."""
        midnight = time(tzinfo=UTC)
        return (
            datetime.combine(self.first - timedelta(days=1), midnight),
            datetime.combine(self.last + timedelta(days=2), midnight),
        )


@cache
def _known_zones() -> frozenset[str]:
    # `localtime` is whatever this machine is set to, which says nothing to the caller and nothing to ClickHouse.
    return frozenset(available_timezones() - {"localtime"})


def _zone(name: str) -> ZoneInfo:
    if name not in _known_zones():
        raise Invalid.field("time_zone", "must be an IANA time zone, such as Asia/Seoul")
    return ZoneInfo(name)


def _day(field: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Invalid.field(field, "must be a day of the calendar, YYYY-MM-DD") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise Invalid.field(field, f"must be from {FIRST_DAY} to {LAST_DAY}")
    return day


@dataclass(frozen=True)
class Kpis:
    """Key figures of one day, or of a whole range from `date` on."""

    date: date
    active_customers: int = 0
    events: int = 0
    orders: int = 0
    buyers: int = 0
    revenue: Decimal = Decimal(0)
    """Order revenue less refunds, in the currency of the answer."""
    gross_revenue: Decimal = Decimal(0)
    """Order revenue alone, in the currency of the answer."""
    orders_in_currency: int = 0

    @property
    def conversion(self) -> float | None:
        """Share of the active customers who bought; None without any."""
        return self.buyers / self.active_customers if self.active_customers else None

    @property
    def average_order_value(self) -> float | None:
        """Mean revenue of the orders in the currency of the answer; None without any."""
        return float(self.gross_revenue / self.orders_in_currency) if self.orders_in_currency else None


@dataclass(frozen=True)
class KpiSeries:
    """Key figures of each day of a range and of the range as a whole."""

    range: DayRange
    currency: str
    days: Sequence[Kpis]
    total: Kpis

    @classmethod
    def of(cls, days: DayRange, currency: str, found: Sequence[Kpis], total: Kpis | None) -> "KpiSeries":
        """Put zeros where nothing happened, so that every day of the range is there."""
        by_day = {kpis.date: kpis for kpis in found}
        every = [by_day.get(day) or Kpis(day) for day in days.days()]
        return cls(days, currency, every, total or Kpis(days.first))


@dataclass(frozen=True)
class FunnelQuestion:
    """Which events in which order, and how long the whole way may take."""

    steps: tuple[str, ...]
    window: timedelta
    days: DayRange

    @classmethod
    def of(cls, steps: Sequence[str], window_seconds: int, days: DayRange) -> "FunnelQuestion":
        """Read the caller's question; raises `Invalid`."""
        if not MIN_FUNNEL_STEPS <= len(steps) <= MAX_FUNNEL_STEPS:
            raise Invalid.field("steps", f"must be {MIN_FUNNEL_STEPS} to {MAX_FUNNEL_STEPS} steps")
        return cls(tuple(steps), timedelta(seconds=window_seconds) or DEFAULT_FUNNEL_WINDOW, days)


@dataclass(frozen=True)
class FunnelStep:
    """Customers who came as far as one step."""

    event: str
    customers: int
    step_conversion: float | None
    """Share of the step before; None for the first step and after an empty one."""
    total_conversion: float | None
    """Share of the first step; None when nobody entered."""


def funnel_of(steps: Sequence[str], customers_by_level: dict[int, int]) -> list[FunnelStep]:
    """Turn "so many customers got exactly this far" into "so many got at least this far", with the shares."""
    reached = [
        sum(customers for level, customers in customers_by_level.items() if level >= position)
        for position in range(1, len(steps) + 1)
    ]
    shares = [None, *(after / before if before else None for before, after in pairwise(reached))]
    return [
        FunnelStep(event, customers, share, customers / reached[0] if reached[0] else None)
        for event, customers, share in zip(steps, reached, shares, strict=True)
    ]


@dataclass(frozen=True)
class Position:
    """Where a page of a timeline ends."""

    event_time_us: int
    event_id: UUID


@dataclass(frozen=True)
class EventRow:
    """One event as it is counted."""

    source: str
    received_time_us: int
    counted_name: str
    revenue: float
    currency: str


@dataclass(frozen=True)
class TimelineEvent:
    """One event of one customer."""

    position: Position
    message_id: str
    type: int
    name: str
    received_time_us: int
    properties: bytes
    """A JSON object as the client sent it; empty when none."""


@dataclass(frozen=True)
class Timeline:
    """A page of what one customer did, newest first."""

    profile_id: ProfileId
    events: Sequence[TimelineEvent]
    more: bool


@dataclass(frozen=True)
class EventName:
    """A name that events are counted under."""

    name: str
    count: int
    first_seen_us: int
    last_seen_us: int


@dataclass(frozen=True)
class Mapping:
    """Where one fragment belongs, as of a revision; the highest revision wins."""

    fragment_id: FragmentId
    profile_id: ProfileId
    revision: int


@dataclass(frozen=True)
class Membership:
    """Whether a profile is in a segment, as of a revision; the highest revision wins."""

    segment_id: str
    segment_name: str
    profile_id: ProfileId
    member: bool
    revision: int
    change_time_us: int


@dataclass(frozen=True)
class BrokenPart:
    """A piece of a table that the engine found damaged when it started, and left out of every answer."""

    table: str
    partition: str
    name: str
    reason: str
