# SPDX-License-Identifier: Apache-2.0
"""Add up the times and counts of fragments where they lie, in one statement.

That is all that most events of known customers teach, and nothing of their rows has to come to Python and go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import Fragment
from svc_profile.store.packed import Kind, Packed

SEEN: Mapping[str, Kind] = {
    "fragment_id": "uuid",
    "first_seen_us": "bigint",
    "last_seen_us": "bigint",
    "first_event_us": "bigint?",
    "last_event_us": "bigint?",
}
"""The columns of when a fragment was seen."""

_COUNTED = Packed("counted", **SEEN, flags="bigint", name="text?", count="bigint", more="text?")

# What is small holds a few hundred names at most, however it is compressed: with so many more, there are not too many.
_SMALL_BYTES = 1_000
_MOST_NAMES = 1_000

# MERGE with an action for what is not matched must go from one given fragment to the next, so it locks in their order.
# An UPDATE that was planned while the table was small goes through all of the table instead (see also `plans`).
_COUNT_UP = f"""
WITH counted AS (
    MERGE INTO fragments AS f USING {_COUNTED.sql} AS g ON f.fragment_id = g.fragment_id
    WHEN MATCHED AND f.flags = g.flags THEN UPDATE SET
        first_seen_us = least(f.first_seen_us, g.first_seen_us),
        last_seen_us = greatest(f.last_seen_us, g.last_seen_us),
        first_event_us = least(f.first_event_us, g.first_event_us),
        last_event_us = greatest(f.last_event_us, g.last_event_us),
        counts = CASE
            WHEN g.name IS NULL OR pg_column_size(f.counts) > {_SMALL_BYTES} THEN f.counts
            WHEN g.more IS NULL THEN f.counts
                || jsonb_build_object(g.name, coalesce(CAST(f.counts ->> g.name AS bigint), 0) + g.count)
            ELSE f.counts || (
                SELECT jsonb_object_agg(key, coalesce(CAST(f.counts ->> key AS bigint), 0) + CAST(value AS bigint))
                FROM jsonb_each_text(CAST(g.more AS jsonb))
            )
        END
    WHEN NOT MATCHED AND g.count < 0 THEN INSERT DEFAULT VALUES
    RETURNING f.fragment_id, old.first_seen_us > new.first_seen_us AS is_earlier,
        pg_column_size(old.counts) > {_SMALL_BYTES} AS is_crowded
)
SELECT CASE WHEN count(*) < :given THEN coalesce(array_agg(fragment_id), '{{}}') END,
    array_agg(fragment_id) FILTER (WHERE is_earlier), array_agg(fragment_id) FILTER (WHERE is_crowded)
FROM counted
"""  # noqa: S608  no data in it

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Counted:
    """What became of fragments that were to be added up."""

    found: Set[FragmentKey]
    """Those that exist and have the expected flags: they are locked, and their times are added up."""
    earlier: Set[FragmentKey]
    """Of those, the ones that turned out to be older than known."""
    crowded: Set[FragmentKey]
    """Of those, the ones to which no counts were added, because there may be too many names."""


async def count_up(tx: Transaction, fragments: Sequence[Fragment], flags: Mapping[FragmentKey, int]) -> Counted:
    """Add the times and counts of some fragments to those that exist, which are locked in the order given.

    Where a fragment has other flags than `flags` says (0 when it says nothing), it is left alone.
    """
    if not fragments:
        return Counted(frozenset(), frozenset(), frozenset())
    keys = [fragment.name.fragment for fragment in fragments]
    given = _COUNTED.parameters(
        **seen(fragments),
        flags=[flags.get(key, 0) for key in keys] if flags else [0] * len(keys),
        **_counts(fragments),
    )
    rows: Sequence[Any] = await tx.rows(_COUNT_UP, given=len(keys), **given)
    fewer, earlier, full = rows[0]
    found = frozenset(keys) if fewer is None else _keys(fewer)
    return Counted(found, _keys(earlier), _crowded(fragments, _keys(full)) & found)


def _crowded(fragments: Iterable[Fragment], full: Set[FragmentKey]) -> set[FragmentKey]:
    """Return those that have more to count than can be added where they lie."""
    return {
        fragment.name.fragment
        for fragment in fragments
        if len(fragment.counts) > _MOST_NAMES or (full and fragment.counts and fragment.name.fragment in full)
    }


def _keys(fragments: Iterable[Any] | None) -> frozenset[FragmentKey]:
    return frozenset(fragment.bytes for fragment in fragments or ())


def _counts(fragments: Sequence[Fragment]) -> dict[str, list[int | bytes | None]]:
    """Spread counts over columns: nearly all are of one name."""
    firsts = [
        next(iter(each.counts.items())) if 0 < len(each.counts) <= _MOST_NAMES else (None, 0) for each in fragments
    ]
    return {
        "name": [None if name is None else name.encode() for name, _ in firsts],
        "count": [count for _, count in firsts],
        "more": [_encode(fragment.counts) if len(fragment.counts) > 1 else None for fragment in fragments],
    }


def seen(fragments: Sequence[Fragment]) -> dict[str, list[int | bytes | None]]:
    """Spread when fragments were seen over columns."""
    return {
        "fragment_id": [fragment.name.fragment for fragment in fragments],
        "first_seen_us": [fragment.first_seen_us for fragment in fragments],
        "last_seen_us": [fragment.last_seen_us for fragment in fragments],
        "first_event_us": [fragment.first_event_us for fragment in fragments],
        "last_event_us": [fragment.last_event_us for fragment in fragments],
    }
