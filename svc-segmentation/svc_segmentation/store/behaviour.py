# SPDX-License-Identifier: Apache-2.0
"""Behaviour by fragment: what batches of events add to it."""

from collections.abc import Collection, Mapping

import msgspec
from asyncpg.pgproto.pgproto import UUID as FastUUID
from chassis.database import Transaction

from svc_segmentation.domain.behaviour import KEPT, MAX_TRAITS, Day, DayKey, Stated, sorted_days

_SEPARATOR = ","

# Rows come in the order of their keys, so that two replicas never wait for each other in a circle. An array that would
# grow beyond what is kept apart is cut to its latest entries in the rare branch; what falls out goes into older_amounts.
_ADD_DAYS = """
INSERT INTO event_days AS d (
    fragment_id, event_key, day, count, first_us, last_us, times_us, amount_properties, amount_times_us, amounts
)
SELECT fragment_id, event_key, day, count, first_us, last_us,
    CASE WHEN count = 1 THEN ARRAY[first_us] ELSE CAST(string_to_array(times, ',') AS bigint[]) END,
    string_to_array(properties, ','),
    CAST(string_to_array(amount_times, ',') AS bigint[]),
    CAST(string_to_array(amounts, ',') AS numeric[])
FROM unnest(
    CAST(:fragments AS uuid[]), CAST(:keys AS bigint[]), CAST(:days AS integer[]), CAST(:counts AS integer[]),
    CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]), CAST(:times AS text[]), CAST(:properties AS text[]),
    CAST(:amount_times AS text[]), CAST(:amounts AS text[])
) AS g (fragment_id, event_key, day, count, first_us, last_us, times, properties, amount_times, amounts)
ON CONFLICT (fragment_id, event_key, day) DO UPDATE SET
    count = d.count + excluded.count,
    first_us = least(d.first_us, excluded.first_us),
    last_us = greatest(d.last_us, excluded.last_us),
    times_us = d.times_us || excluded.times_us,
    amount_properties = d.amount_properties || excluded.amount_properties,
    amount_times_us = d.amount_times_us || excluded.amount_times_us,
    amounts = d.amounts || excluded.amounts
RETURNING CASE WHEN greatest(cardinality(times_us), cardinality(amounts)) > :kept THEN ctid END
"""

_CUT = """
WITH full_days AS (
    SELECT ctid AS place, * FROM event_days WHERE ctid = ANY (CAST(:places AS tid[]))
), ranked AS (
    SELECT f.place, u.*, row_number() OVER (
        PARTITION BY f.place ORDER BY u.t DESC, u.p COLLATE "C" DESC, u.a DESC
    ) AS rank
    FROM full_days f, unnest(f.amount_properties, f.amount_times_us, f.amounts) AS u (p, t, a)
), parted AS (
    SELECT place,
        array_agg(p) FILTER (WHERE rank <= :kept) AS properties,
        array_agg(t) FILTER (WHERE rank <= :kept) AS times,
        array_agg(a) FILTER (WHERE rank <= :kept) AS kept_amounts,
        array_agg(p) FILTER (WHERE rank > :kept) AS older_properties,
        array_agg(a) FILTER (WHERE rank > :kept) AS older
    FROM ranked GROUP BY place
)
UPDATE event_days d SET
    times_us = ARRAY(SELECT t FROM unnest(d.times_us) AS u (t) ORDER BY t DESC LIMIT :kept),
    amount_properties = p.properties,
    amount_times_us = p.times,
    amounts = p.kept_amounts,
    older_amounts = CASE
        WHEN p.older IS NULL THEN d.older_amounts ELSE folded_amounts(d.older_amounts, p.older_properties, p.older)
    END
FROM full_days f LEFT JOIN parted p ON p.place = f.place
WHERE d.ctid = f.place
"""

_STATE_TRAITS = """
INSERT INTO fragment_traits AS f (fragment_id, traits)
SELECT fragment_id, first_traits(CAST(traits AS jsonb), :most)
FROM unnest(CAST(:fragments AS uuid[]), CAST(:traits AS text[])) AS g (fragment_id, traits)
ON CONFLICT (fragment_id) DO UPDATE SET
    traits = first_traits(newer_traits(f.traits, excluded.traits), :most)
"""


async def add_days(tx: Transaction, days: Mapping[DayKey, Day]) -> None:
    """Add events to the days that they happened on."""
    if not days:
        return
    ordered = sorted_days(days)
    keys = [key for key, _ in ordered]
    values = [day for _, day in ordered]
    cut = await tx.rows(
        _ADD_DAYS,
        fragments=[FastUUID(key.fragment_id) for key in keys],
        keys=[key.event_key for key in keys],
        days=[key.day for key in keys],
        counts=[len(day.times_us) for day in values],
        firsts=[min(day.times_us) for day in values],
        lasts=[max(day.times_us) for day in values],
        times=[_joined(day.times_us) if len(day.times_us) > 1 else None for day in values],
        properties=[_joined(a.property for a in day.amounts) if day.amounts else None for day in values],
        amount_times=[_joined(a.time_us for a in day.amounts) if day.amounts else None for day in values],
        amounts=[_joined(a.value for a in day.amounts) if day.amounts else None for day in values],
        kept=KEPT,
    )
    full = [row[0] for row in cut if row[0] is not None]
    if full:
        await tx.execute(_CUT, places=full, kept=KEPT)


async def state_traits(tx: Transaction, traits: Mapping[bytes, Mapping[str, Stated]]) -> None:
    """Keep the latest statement of each trait."""
    if not traits:
        return
    fragments = sorted(traits)
    await tx.execute(
        _STATE_TRAITS,
        fragments=[FastUUID(fragment) for fragment in fragments],
        traits=[_traits_json(traits[fragment]) for fragment in fragments],
        most=MAX_TRAITS,
    )


async def mark_changed(tx: Transaction, fragments: Collection[bytes]) -> None:
    """Have the profiles of fragments evaluated soon."""
    if fragments:
        await tx.execute(
            "INSERT INTO changed_fragments SELECT * FROM unnest(CAST(:fragments AS uuid[]))",
            fragments=[FastUUID(fragment) for fragment in fragments],
        )


def _joined(values: object) -> str:
    return _SEPARATOR.join(map(str, values))  # type: ignore[call-overload]


def _traits_json(traits: Mapping[str, Stated]) -> str:
    return msgspec.json.encode({name: (s.value, s.time_us, s.tie) for name, s in traits.items()}).decode()


async def mapping_revisions(tx: Transaction, fragments: Collection[bytes]) -> dict[bytes, int]:
    """Return the revisions of the fragments that are known."""
    rows = await tx.rows(
        "SELECT fragment_id, revision FROM fragment_profiles WHERE fragment_id = ANY (CAST(:ids AS uuid[]))",
        ids=[FastUUID(fragment) for fragment in fragments],
    )
    return {row.fragment_id.bytes: row.revision for row in rows}
