# SPDX-License-Identifier: Apache-2.0
"""Behaviour by fragment: what batches of events add to it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from asyncpg.pgproto import pgproto
from chassis.database import Transaction

from svc_segmentation.domain.behaviour import KEPT, MAX_TRAITS, Day, DayKey, Decided, Stated
from svc_segmentation.domain.functions import DAY_US

# Rows come in the order of their keys, so that two replicas never wait for each other in a circle.
_ADD_DAYS = f"""
WITH given AS (
    SELECT fragment_id, event_key, first_us, last_us, properties, amount_times, amounts,
        CASE
            WHEN times IS NOT NULL THEN CAST(string_to_array(times, ',') AS bigint[])
            WHEN first_us = last_us THEN ARRAY[first_us]
            ELSE ARRAY[first_us, last_us]
        END AS times_us
    FROM unnest(
        CAST(:fragments AS uuid[]), CAST(:keys AS bigint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]),
        CAST(:times AS text[]), CAST(:properties AS text[]), CAST(:amount_times AS text[]), CAST(:amounts AS text[])
    ) AS g (fragment_id, event_key, first_us, last_us, times, properties, amount_times, amounts)
), added AS (
INSERT INTO event_days AS d (
    fragment_id, event_key, day, count, first_us, last_us, times_us, amount_properties, amount_times_us, amounts
)
SELECT fragment_id, event_key, (first_us - ((first_us % {DAY_US}) + {DAY_US}) % {DAY_US}) / {DAY_US},
    cardinality(times_us), first_us, last_us, times_us,
    string_to_array(properties, ','),
    CAST(string_to_array(amount_times, ',') AS bigint[]),
    CAST(string_to_array(amounts, ',') AS numeric[])
FROM given
ON CONFLICT (fragment_id, event_key, day) DO UPDATE SET
    count = d.count + excluded.count,
    first_us = least(d.first_us, excluded.first_us),
    last_us = greatest(d.last_us, excluded.last_us),
    times_us = d.times_us || excluded.times_us,
    amount_properties = d.amount_properties || excluded.amount_properties,
    amount_times_us = d.amount_times_us || excluded.amount_times_us,
    amounts = d.amounts || excluded.amounts
RETURNING ctid, greatest(cardinality(times_us), cardinality(amounts)) AS kept
)
SELECT ctid FROM added WHERE kept > :kept
"""  # noqa: S608

# Keeps the latest entries of arrays that have grown too long; what falls out goes into a sum.
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

# A customer who was erased in the meantime is not brought back.
_DECIDE_TRAITS = """
INSERT INTO fragment_traits AS f (fragment_id, traits, decided_traits, decided_revision)
SELECT fragment_id, '{}', CAST(traits AS jsonb), revision
FROM unnest(CAST(:fragments AS uuid[]), CAST(:revisions AS bigint[]), CAST(:traits AS text[]))
    AS g (fragment_id, revision, traits)
WHERE NOT EXISTS (SELECT FROM forgotten_fragments t WHERE t.fragment_id = g.fragment_id)
ORDER BY fragment_id
ON CONFLICT (fragment_id) DO UPDATE SET
    decided_traits = excluded.decided_traits, decided_revision = excluded.decided_revision
WHERE f.decided_revision IS NULL OR f.decided_revision < excluded.decided_revision
"""


async def add_days(tx: Transaction, days: Mapping[DayKey, Day]) -> None:
    """Add events to the days that they happened on."""
    if not days:
        return
    full = await tx.rows(_ADD_DAYS, **_columns(days), kept=KEPT)
    if full:
        await tx.execute(_CUT, places=[row.ctid for row in full], kept=KEPT)


def _columns(days: Mapping[DayKey, Day]) -> dict[str, list[Any]]:
    """Lay days out for `unnest`, in as few and as short columns as possible: each element costs on both sides."""
    fragments, keys, firsts, lasts = [], [], [], []
    times: list[str | None] = []
    properties: list[str | None] = []
    amount_times: list[str | None] = []
    amounts: list[str | None] = []
    for key in sorted(days):
        day = days[key]
        happened = day.times_us
        fragments.append(pgproto.UUID(key[0]))
        keys.append(key[1])
        if len(happened) == 1:
            firsts.append(happened[0])
            lasts.append(happened[0])
            times.append(None)
        else:
            first, last = min(happened), max(happened)
            firsts.append(first)
            lasts.append(last)
            # Two events at two moments are said by the moments themselves.
            times.append(_joined(happened) if len(happened) > 2 or first == last else None)
        if day.amounts:
            names, moments, values = zip(*day.amounts, strict=True)
            properties.append(",".join(names))
            amount_times.append(_joined(moments))
            amounts.append(",".join(values))
        else:
            properties.append(None)
            amount_times.append(None)
            amounts.append(None)
    return {
        "fragments": fragments, "keys": keys, "firsts": firsts, "lasts": lasts, "times": times,
        "properties": properties, "amount_times": amount_times, "amounts": amounts,
    }  # fmt: skip


async def state_traits(tx: Transaction, traits: Mapping[bytes, Mapping[str, Stated]]) -> None:
    """Keep the latest statement of each trait."""
    if not traits:
        return
    fragments = sorted(traits)
    await tx.execute(
        _STATE_TRAITS,
        fragments=[pgproto.UUID(fragment) for fragment in fragments],
        traits=[_traits_json(traits[fragment]) for fragment in fragments],
        most=MAX_TRAITS,
    )


async def decide_traits(tx: Transaction, decided: Mapping[bytes, Decided]) -> None:
    """Keep what svc-profile decided about traits, the highest revision of each fragment."""
    if not decided:
        return
    fragments = sorted(decided)
    await tx.execute(
        _DECIDE_TRAITS,
        fragments=[pgproto.UUID(fragment) for fragment in fragments],
        revisions=[decided[fragment].revision for fragment in fragments],
        traits=[msgspec.json.encode(decided[fragment].states).decode() for fragment in fragments],
    )


async def mark_changed(tx: Transaction, fragments: Collection[bytes]) -> None:
    """Have the profiles of fragments evaluated soon."""
    if fragments:
        await tx.execute(
            "INSERT INTO changed_fragments SELECT * FROM unnest(CAST(:fragments AS uuid[]))",
            fragments=[pgproto.UUID(fragment) for fragment in fragments],
        )


def _joined(values: Iterable[object]) -> str:
    return ",".join(map(str, values))


def _traits_json(traits: Mapping[str, Stated]) -> str:
    return msgspec.json.encode({name: (s.value, s.time_us, s.tie) for name, s in traits.items()}).decode()


async def mapping_revisions(tx: Transaction, fragments: Collection[bytes]) -> dict[bytes, int]:
    """Return the revisions of the fragments that are known."""
    rows = await tx.rows(
        "SELECT fragment_id, revision FROM fragment_profiles WHERE fragment_id = ANY (CAST(:ids AS uuid[]))",
        ids=[pgproto.UUID(fragment) for fragment in fragments],
    )
    return {row.fragment_id.bytes: row.revision for row in rows}
