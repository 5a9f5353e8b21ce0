# SPDX-License-Identifier: Apache-2.0
"""Figures over all customers: key figures by day, and funnels. Identities are resolved here, at query time."""

from datetime import timedelta
from typing import Any

from svc_metrics.domain import DayRange, FunnelQuestion, Kpis
from svc_metrics.store.clickhouse import ClickHouse
from svc_metrics.store.people import MEMBERS, MOVED

_MICROSECONDS = 1_000_000

_PROFILE_ID = "if(moved.profile_id = toUUID('00000000-0000-0000-0000-000000000000'), fragment_id, moved.profile_id)"

_IN_RANGE = """
event_time >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')
AND event_time < fromUnixTimestamp64Micro({to_us:Int64}, 'UTC')
AND toDate(event_time, {time_zone:String}) BETWEEN {first:Date} AND {last:Date}
"""

_KPIS = """
SELECT toDate(event_time, {{time_zone:String}}) AS day,
    grouping(day) AS whole_range,
    uniqExact(customer_id) AS active_customers,
    count() AS event_count,
    uniqExactIf(order_key, order_key != '') AS orders,
    uniqExactIf(customer_id, order_key != '') AS buyers,
    sumIf(revenue, currency = {{currency:String}}) AS net_revenue,
    sumIf(revenue, order_key != '' AND currency = {{currency:String}}) AS gross_revenue,
    uniqExactIf(order_key, order_key != '' AND currency = {{currency:String}}) AS orders_in_currency
FROM (
    SELECT event_time, revenue, currency, order_key, {profile_id} AS customer_id
    FROM events FINAL LEFT ANY JOIN ({moved}) AS moved USING (fragment_id)
    WHERE {in_range}
)
WHERE {is_member}
GROUP BY day WITH ROLLUP
"""

_CURRENCY = """
SELECT currency FROM events FINAL WHERE currency != '' AND {in_range}
GROUP BY currency ORDER BY count() DESC, currency LIMIT 1
"""

# Duplicates change nothing here, so FINAL is not needed: windowFunnel only asks whether an event happened at a time.
#
# windowFunnel alone miscounts steps that repeat and steps that share a moment, even in strict_increase mode: it lets a
# later first step overwrite an earlier one before the second step of the same moment is looked at. So each event
# becomes one row per step that it can be (steps may repeat), and its moment becomes 32 moments in which later steps
# come first. Then no two steps share a moment, and "strictly later" is left to the order. At most 20 steps fit.
_FUNNEL = """
SELECT level, count() AS customers
FROM (
    SELECT customer_id, windowFunnel({{window:UInt64}}, 'strict_increase')(moment, {conditions}) AS level
    FROM (
        SELECT {profile_id} AS customer_id,
            arrayJoin({{positions:Array(Array(UInt8))}}[indexOf({{events:Array(String)}}, counted_name)]) AS step,
            toUInt64(toUnixTimestamp64Micro(event_time) * 32 + 32 - step) AS moment
        FROM events LEFT ANY JOIN ({moved}) AS moved USING (fragment_id)
        WHERE counted_name IN {{events:Array(String)}} AND {in_range}
    )
    WHERE {is_member}
    GROUP BY customer_id
)
GROUP BY level
"""


class FigureStore:
    """Questions about many customers at once."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def kpis(self, days: DayRange, *, currency: str, segment_id: str | None) -> tuple[list[Kpis], Kpis | None]:
        """Return the key figures of the days on which something happened, and those of the whole range."""
        sql = _KPIS.format(profile_id=_PROFILE_ID, moved=MOVED, in_range=_IN_RANGE, is_member=_is_member(segment_id))
        parameters = _range(days) | {"currency": currency, "segment_id": segment_id or ""}
        by_day: list[Kpis] = []
        total = None
        for day, whole_range, *figures in await self._clickhouse.rows(sql, **parameters):
            if whole_range:
                total = Kpis(days.first, *figures)
            else:
                by_day.append(Kpis(day, *figures))
        return by_day, total

    async def most_frequent_currency(self, days: DayRange) -> str | None:
        """Return the currency that most orders and refunds of the range are in, None without any."""
        rows = await self._clickhouse.rows(_CURRENCY.format(in_range=_IN_RANGE), **_range(days))
        return rows[0][0] if rows else None

    async def funnel(self, question: FunnelQuestion, *, segment_id: str | None) -> dict[int, int]:
        """Return how many customers came exactly so many steps far."""
        events = list(dict.fromkeys(question.steps))
        numbered = list(enumerate(question.steps, 1))
        sql = _FUNNEL.format(
            profile_id=_PROFILE_ID,
            moved=MOVED,
            in_range=_IN_RANGE,
            is_member=_is_member(segment_id),
            conditions=", ".join(f"step = {number}" for number, _ in numbered),
        )
        parameters = _range(question.days) | {
            "window": question.window // timedelta(microseconds=1) * 32,
            "events": events,
            "positions": [[number for number, step in numbered if step == event] for event in events],
            "segment_id": segment_id or "",
        }
        return dict(await self._clickhouse.rows(sql, **parameters))


def _is_member(segment_id: str | None) -> str:
    return f"customer_id IN ({MEMBERS})" if segment_id else "true"


def _range(days: DayRange) -> dict[str, Any]:
    start, end = days.around()
    return {
        "from_us": int(start.timestamp()) * _MICROSECONDS,
        "to_us": int(end.timestamp()) * _MICROSECONDS,
        "first": days.first,
        "last": days.last,
        "time_zone": days.time_zone,
    }
