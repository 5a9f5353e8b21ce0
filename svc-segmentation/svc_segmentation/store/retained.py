# SPDX-License-Identifier: Apache-2.0
"""Behaviour whose time is over: days of events, deleted whole once their last moment is past."""

from typing import Any

from chassis.database import Transaction
from chassis.retention import CONCERNED, Due

from svc_segmentation.domain.behaviour import event_key
from svc_segmentation.domain.functions import DAY_US

_DUE = f"""
day < :day AND (cardinality(CAST(:keys AS bigint[])) = 0 OR event_key = ANY (CAST(:keys AS bigint[])))
    AND event_key <> ALL (CAST(:but AS bigint[])) AND {CONCERNED.format(fragment="event_days.fragment_id")}
"""

_FORGET = f"""
WITH gone AS (
    DELETE FROM event_days WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM event_days WHERE {_DUE} LIMIT :most FOR UPDATE SKIP LOCKED
    )) RETURNING fragment_id
), changed AS (
    INSERT INTO changed_fragments SELECT DISTINCT fragment_id FROM gone
)
SELECT count(*) FROM gone
"""  # noqa: S608


class RetainedDays:
    """Days of events. Nothing of them is anybody's statistics, so to anonymise is to destroy."""

    table = "event_days"

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many days a rule would touch."""
        return int(await tx.value(f"SELECT count(*) FROM event_days WHERE {_DUE}", **_given(due)))  # noqa: S608

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Delete some days, and have evaluated whose they were."""
        return int(await tx.value(_FORGET, **_given(due), most=most))


def _given(due: Due) -> dict[str, Any]:
    return {
        "day": due.before_us // DAY_US,
        "keys": [event_key(name) for name in due.names],
        "but": [] if due.names else [event_key(name) for name in due.but],
        "purpose": due.rule.purpose_id,
    }
