# SPDX-License-Identifier: Apache-2.0
"""What customers did with items, by fragment and item."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from asyncpg.pgproto import pgproto
from chassis.database import Transaction
from chassis.identity import FragmentId, ProfileId

from svc_recommend.domain.interactions import Interactions, Kind
from svc_recommend.domain.items import ItemId
from svc_recommend.domain.ranking import Deed

# Rows are locked in key order, so that two replicas never wait for each other in a circle. What the sums are afterwards
# goes into one row of history_changes; its id is taken when all rows are written, so that of two changes of the same
# row the later one has the higher id.
_ADD = """
WITH written AS (
    INSERT INTO interactions AS i (
        fragment_id, item_id, viewed_weight, wanted_weight, bought_weight, rated_weight,
        first_time_us, last_time_us, viewed_time_us, bought_time_us
    )
    SELECT * FROM unnest(
        CAST(:fragments AS uuid[]), CAST(:items AS text[]),
        CAST(:viewed AS bigint[]), CAST(:wanted AS bigint[]), CAST(:bought AS bigint[]), CAST(:rated AS bigint[]),
        CAST(:first AS bigint[]), CAST(:last AS bigint[]),
        CAST(:viewed_time AS bigint[]), CAST(:bought_time AS bigint[])
    )
    ON CONFLICT (fragment_id, item_id) DO UPDATE SET
        viewed_weight = i.viewed_weight + excluded.viewed_weight,
        wanted_weight = i.wanted_weight + excluded.wanted_weight,
        bought_weight = i.bought_weight + excluded.bought_weight,
        rated_weight = i.rated_weight + excluded.rated_weight,
        first_time_us = least(i.first_time_us, excluded.first_time_us),
        last_time_us = greatest(i.last_time_us, excluded.last_time_us),
        viewed_time_us = greatest(i.viewed_time_us, excluded.viewed_time_us),
        bought_time_us = greatest(i.bought_time_us, excluded.bought_time_us)
    RETURNING fragment_id, item_id, viewed_weight + wanted_weight + bought_weight + rated_weight AS weight, last_time_us
)
INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, moved_fragment_ids)
SELECT array_agg(fragment_id), array_agg(item_id), array_agg(weight), array_agg(last_time_us), '{}' FROM written
"""

_MOVED = """
INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, moved_fragment_ids)
VALUES ('{}', '{}', '{}', '{}', CAST(:fragments AS uuid[]))
"""

# For the neighbourhoods, a history that weighs nothing is one that never was.
_CONSENTS = """
INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, moved_fragment_ids)
SELECT array_agg(fragment_id), array_agg(item_id), array_agg(
    CASE WHEN fragment_id = ANY (CAST(:silent AS uuid[])) THEN 0
        ELSE viewed_weight + wanted_weight + bought_weight + rated_weight END
), array_agg(last_time_us), '{}'
FROM interactions WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
HAVING count(*) > 0
"""

# A fragment without a row in fragment_profiles is its own profile. The array keeps the planner on the key, whatever it
# believes about the number of fragments.
_OF_CUSTOMER = """
WITH customer AS (
    SELECT coalesce(
        (SELECT profile_id FROM fragment_profiles WHERE fragment_id = :fragment), CAST(:fragment AS uuid)
    ) AS profile_id
)
SELECT (SELECT profile_id FROM customer) AS profile_id,
    array_agg(item_id) AS item_ids,
    array_agg(viewed_weight + wanted_weight + bought_weight + rated_weight) AS weights,
    array_agg(last_time_us) AS last_times_us,
    array_agg(bought_weight > 0) AS bought
FROM interactions WHERE fragment_id = ANY (ARRAY(
    SELECT profile_id FROM customer
    UNION SELECT m.fragment_id FROM fragment_profiles m JOIN customer USING (profile_id)
))
"""


class InteractionStore:
    """Keeps the summed interactions of each fragment."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, learnt: Mapping[tuple[bytes, ItemId], Interactions]) -> None:
        """Add what a batch of events taught, and note whose histories changed."""
        if not learnt:
            return
        keys = sorted(learnt)
        rows = [learnt[key] for key in keys]
        fragments = {key: pgproto.UUID(key) for key in {fragment for fragment, _ in keys}}
        await self._tx.execute(
            _ADD,
            fragments=[fragments[fragment] for fragment, _ in keys],
            items=[item_id for _, item_id in keys],
            viewed=[row.weights[Kind.VIEWED] for row in rows],
            wanted=[row.weights[Kind.WANTED] for row in rows],
            bought=[row.weights[Kind.BOUGHT] for row in rows],
            rated=[row.weights[Kind.RATED] for row in rows],
            first=[row.first_time_us for row in rows],
            last=[row.last_time_us for row in rows],
            viewed_time=[row.viewed_time_us for row in rows],
            bought_time=[row.bought_time_us for row in rows],
        )

    async def known(self, pairs: Sequence[tuple[bytes, ItemId]]) -> set[tuple[bytes, ItemId]]:
        """Return under which of some pairs of fragment and item something is kept."""
        rows = await self._tx.rows(
            """
            SELECT fragment_id, item_id FROM interactions
            JOIN unnest(CAST(:fragments AS uuid[]), CAST(:items AS text[])) AS g (fragment_id, item_id)
                USING (fragment_id, item_id)
            """,
            fragments=[pgproto.UUID(fragment) for fragment, _ in pairs],
            items=[item_id for _, item_id in pairs],
        )
        return {(row.fragment_id.bytes, ItemId(row.item_id)) for row in rows}

    async def note_moved(self, fragment_ids: Sequence[UUID]) -> None:
        """Note that fragments moved to other customers."""
        if fragment_ids:
            await self._tx.execute(_MOVED, fragments=list(fragment_ids))

    async def note_consents(self, fragment_ids: Collection[UUID], silent: Collection[UUID]) -> None:
        """Note that histories count as they are, or, of the silent ones, not at all."""
        if fragment_ids:
            await self._tx.execute(_CONSENTS, fragments=list(fragment_ids), silent=list(silent))

    async def of_customer(self, fragment_id: FragmentId) -> tuple[ProfileId, list[Deed]]:
        """Return the customer whom a fragment belongs to, and what was done under all its fragments."""
        row = await self._tx.row(_OF_CUSTOMER, fragment=fragment_id)
        if row is None or row.item_ids is None:
            return ProfileId(fragment_id if row is None else row.profile_id), []
        deeds: dict[ItemId, Deed] = {}
        for item_id, weight, time_us, bought in zip(
            row.item_ids, row.weights, row.last_times_us, row.bought, strict=True
        ):
            known = deeds.get(item_id)
            deed = Deed(item_id, weight, time_us, bought)
            deeds[item_id] = deed if known is None else known.joined(deed)
        return ProfileId(row.profile_id), list(deeds.values())
