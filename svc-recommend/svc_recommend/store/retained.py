# SPDX-License-Identifier: Apache-2.0
"""Interactions whose time is over."""

from collections.abc import Mapping
from typing import Any

from chassis.database import Transaction
from chassis.retention import CONCERNED, Due

from svc_recommend.domain.interactions import EventWeight, Kind

# What is known of a customer and an item is due when its last time is. A kind of interaction that some other rule is
# about stays, and with it the row.
_DUE = f"""
last_time_us < :before_us AND (
    (:viewed AND (viewed_weight <> 0 OR viewed_time_us IS NOT NULL)) OR (:wanted AND wanted_weight <> 0)
    OR (:bought AND (bought_weight <> 0 OR bought_time_us IS NOT NULL)) OR (:rated AND rated_weight <> 0)
    OR (:viewed AND :wanted AND :bought AND :rated)
) AND {CONCERNED.format(fragment="interactions.fragment_id")}
"""

# The neighbourhoods are told what histories weigh now; one that weighs nothing is one that never was.
_FORGET = f"""
WITH due AS (
    SELECT fragment_id, item_id FROM interactions WHERE {_DUE}
    ORDER BY fragment_id, item_id LIMIT :most FOR UPDATE SKIP LOCKED
), rest AS (
    SELECT fragment_id, item_id, last_time_us,
        CASE WHEN :viewed THEN 0 ELSE viewed_weight END AS viewed,
        CASE WHEN :wanted THEN 0 ELSE wanted_weight END AS wanted,
        CASE WHEN :bought THEN 0 ELSE bought_weight END AS bought,
        CASE WHEN :rated THEN 0 ELSE rated_weight END AS rated
    FROM interactions JOIN due USING (fragment_id, item_id)
), gone AS (
    DELETE FROM interactions AS i USING rest AS r
    WHERE i.fragment_id = r.fragment_id AND i.item_id = r.item_id
        AND r.viewed = 0 AND r.wanted = 0 AND r.bought = 0 AND r.rated = 0
), changed AS (
    UPDATE interactions AS i SET
        viewed_weight = r.viewed, wanted_weight = r.wanted, bought_weight = r.bought, rated_weight = r.rated,
        viewed_time_us = CASE WHEN :viewed THEN NULL ELSE viewed_time_us END,
        bought_time_us = CASE WHEN :bought THEN NULL ELSE bought_time_us END
    FROM rest AS r
    WHERE i.fragment_id = r.fragment_id AND i.item_id = r.item_id
        AND NOT (r.viewed = 0 AND r.wanted = 0 AND r.bought = 0 AND r.rated = 0)
), noted AS (
    INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, moved_fragment_ids)
    SELECT array_agg(fragment_id), array_agg(item_id), array_agg(viewed + wanted + bought + rated),
        array_agg(last_time_us), '{{}}'
    FROM rest HAVING count(*) > 0
)
SELECT count(*) FROM due
"""  # noqa: S608


class RetainedInteractions:
    """What customers did with items, as retention sees it. To anonymise is to destroy: nothing here is statistics."""

    table = "interactions"

    def __init__(self, weights: Mapping[str, EventWeight]) -> None:
        self._weights = weights

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many interactions a rule would touch."""
        return int(await tx.value(f"SELECT count(*) FROM interactions WHERE {_DUE}", **self._given(due)))  # noqa: S608

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Forget some interactions, and note it for the neighbourhoods."""
        return int(await tx.value(_FORGET, **self._given(due), most=most))

    def _given(self, due: Due) -> dict[str, Any]:
        # The sums do not say which event they came from; a rule about one name is one about its kind.
        named = {self._weights[name].kind for name in due.names or due.but if name in self._weights}
        kinds = named if due.names else set(Kind) - named
        wanted = {kind.name.lower(): kind in kinds for kind in Kind}
        return {**wanted, "before_us": due.before_us, "purpose": due.rule.purpose_id}
