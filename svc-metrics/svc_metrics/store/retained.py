# SPDX-License-Identifier: Apache-2.0
"""Events whose time is over: destroyed, or left to nobody so that every figure of every day stays what it was.

One step is one month, because that is a partition: no step reads or rewrites the others.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from chassis.clock import from_us, to_us
from chassis.database import Transaction
from chassis.retention import CONCERNED, Due

from svc_metrics.store.clickhouse import ClickHouse
from svc_metrics.store.people import MOVED

DAYS_IN = ZoneInfo("Asia/Seoul")
"""Days are whole in this time zone, the one that figures are cut in when nobody says otherwise."""

_DUE = """
NOT anonymous AND event_time < fromUnixTimestamp64Micro({before_us:Int64}, 'UTC')
    AND (empty({names:Array(String)}) OR counted_name IN {names:Array(String)})
    AND counted_name NOT IN {but:Array(String)}
    AND ({purpose:String} = '' OR (fragment_id IN {fragments:Array(UUID)}) = {among:Bool})
"""

_COUNT = f"SELECT count() FROM events FINAL WHERE {_DUE}"  # noqa: S608  no data in it

_OLDEST = f"""
SELECT toYYYYMM(event_time) AS month, count() FROM events FINAL WHERE {_DUE} GROUP BY month ORDER BY month LIMIT 1
"""  # noqa: S608

_DESTROY = f"ALTER TABLE events DELETE WHERE toYYYYMM(event_time) = {{month:UInt32}} AND {_DUE}"

# The salt is gone with the run, and then nobody can tell whose unknown it is. One customer is one unknown on one day,
# and one order is one order, so that figures by day count the same.
_SALT = "(reinterpretAsUInt64(unhex({low:String})), reinterpretAsUInt64(unhex({high:String})))"

_DAY_OF_CUSTOMER = "concat(toString(customer_id), toString(toDate(event_time, {zone:String})))"

_UNKNOWN_EVENT = f"hex(sipHash128Keyed({_SALT}, concat(source, '\\0', message_id)))"

_LEAVE = f"""
INSERT INTO events (
    fragment_id, event_time, received_time, source, message_id, type, name, counted_name, revenue, currency,
    order_key, anonymous
)
SELECT reinterpretAsUUID(sipHash128Keyed({_SALT}, {_DAY_OF_CUSTOMER})),
    event_time, received_time, source, {_UNKNOWN_EVENT}, type, if(type = 'track', name, ''), counted_name, revenue,
    currency, if(order_key = '', '', hex(sipHash128Keyed({_SALT}, order_key))), true
FROM (
    SELECT *, if(moved.profile_id = toUUID('00000000-0000-0000-0000-000000000000'), fragment_id, moved.profile_id)
        AS customer_id
    FROM events FINAL LEFT ANY JOIN ({MOVED}) AS moved USING (fragment_id)
    WHERE toYYYYMM(event_time) = {{month:UInt32}} AND {_DUE}
)
"""  # noqa: S608

# Only what has been left to nobody: an event that came in the meantime has its turn in the next step.
_DESTROY_LEFT = f"""
{_DESTROY} AND {_UNKNOWN_EVENT} IN (
    SELECT message_id FROM events WHERE anonymous AND toYYYYMM(event_time) = {{month:UInt32}}
)
"""  # noqa: S608

# Of a purpose that is granted unless refused, the few who refused; of another one, all who granted it.
_CUSTOMERS = f"""
SELECT (SELECT granted_by_default FROM purpose_defaults WHERE purpose_id = :purpose) AS granted_by_default,
    ARRAY(
        SELECT fragment_id FROM fragment_consents AS k WHERE {CONCERNED.format(fragment="k.fragment_id")}
    ) AS concerned,
    ARRAY(
        SELECT fragment_id FROM fragment_consents AS k WHERE NOT {CONCERNED.format(fragment="k.fragment_id")}
    ) AS others
"""  # noqa: S608


class RetainedColumns:
    """The events of svc-metrics, as retention sees them."""

    table = "events"

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many events a rule would touch."""
        given = await given_for(tx, due)
        return int((await self._clickhouse.rows(_COUNT, **given))[0][0])

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Destroy or anonymise the oldest month of what is due, or the part of it that is."""
        given = await given_for(tx, due)
        oldest = await self._clickhouse.rows(_OLDEST, **given)
        if not oldest:
            return 0
        given["month"], count = oldest[0]
        if due.rule.anonymise:
            await self.leave(given)
            await self._clickhouse.command(_DESTROY_LEFT, **given)
        else:
            await self._clickhouse.command(_DESTROY, **given)
        return int(count)

    async def leave(self, given: Mapping[str, Any]) -> None:
        """Write events of a month once more, as nobody's.

        Broken off after this, it is done again with the same salt, which makes the same rows: they count once.
        """
        await self._clickhouse.command(_LEAVE, **given)


async def given_for(tx: Transaction, due: Due) -> dict[str, Any]:
    """Return what the statements need to know of a rule."""
    given: dict[str, Any] = {
        "before_us": _start_of_day(due.before_us),
        "names": list(due.names),
        "but": [] if due.names else list(due.but),
        "purpose": due.rule.purpose_id,
        "fragments": [],
        "among": True,
        "low": due.salt[:8].hex(),
        "high": due.salt[8:].hex(),
        "zone": str(DAYS_IN),
    }
    if due.rule.purpose_id:
        row = await tx.row(_CUSTOMERS, purpose=due.rule.purpose_id)
        among = row is None or row.granted_by_default is not False
        given |= {"among": among, "fragments": [] if row is None else row.concerned if among else row.others}
    return given


def _start_of_day(moment_us: int) -> int:
    """Return when the day of a moment began: a day is anonymised as a whole, or its customers would count twice."""
    local = from_us(moment_us).astimezone(DAYS_IN)
    return to_us(datetime(local.year, local.month, local.day, tzinfo=DAYS_IN))
