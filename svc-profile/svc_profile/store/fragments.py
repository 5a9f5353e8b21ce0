# SPDX-License-Identifier: Apache-2.0
"""Fragments: read, merged and written back under row locks, a batch at a time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.flags import SUPPRESSED
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.traits import NO_POLICIES, Policies, Trait
from svc_profile.store.packed import Packed
from svc_profile.store.sealed import TRAITS, revealed, revealed_fragments, seal_identifier
from svc_profile.store.suppressions import SuppressionStore

# Merging in Python costs half of what merging jsonb in SQL costs: 7 µs and 17 µs of PostgreSQL per fragment.
# Locks are taken in key order: first those of known fragments, then, by inserting, those of new ones. Whoever waits in
# the second step holds nothing that somebody else's first step could be waited for by, so nobody waits in a circle.
_LOCK = """
SELECT fragment_id, first_seen_us, CAST(counts AS text), flags, CAST(ctid AS text) FROM fragments
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY fragment_id FOR NO KEY UPDATE
"""

# What another transaction made in the meantime would be locked out of order, so here nobody waits.
_LOCK_AT_ONCE = f"{_LOCK} SKIP LOCKED"

_REST = """
SELECT fragment_id, CAST(traits AS text) AS traits, CAST(revenue AS text) AS revenue, CAST(groups AS text) AS groups
FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

_NEW = Packed(
    "fragments",
    fragment_id="uuid",
    namespace="text",
    value="text",
    first_seen_us="bigint",
    last_seen_us="bigint",
    first_event_us="bigint?",
    last_event_us="bigint?",
    counts="text",
    traits="text",
    revenue="text",
    groups="text",
)
_INSERT = f"""
INSERT INTO fragments (
    fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    counts, traits, revenue, groups
)
SELECT fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    CAST(counts AS jsonb), CAST(traits AS jsonb), CAST(revenue AS jsonb), CAST(groups AS jsonb)
FROM {_NEW.sql} AS g
ORDER BY fragment_id ON CONFLICT DO NOTHING RETURNING fragment_id
"""  # noqa: S608  no data in it

# Rows that are locked are nowhere else than where they were found, so no index has to be asked for them.
_ADD_UP = """
UPDATE fragments AS f SET
    first_seen_us = least(f.first_seen_us, g.first_seen_us),
    last_seen_us = greatest(f.last_seen_us, g.last_seen_us),
    first_event_us = least(f.first_event_us, g.first_event_us),
    last_event_us = greatest(f.last_event_us, g.last_event_us),
    counts = coalesce(CAST(g.counts AS jsonb), f.counts) {further}
FROM {given} AS g
WHERE f.ctid = CAST(g.place AS tid) AND f.fragment_id = g.fragment_id
"""

_COUNTED = Packed(
    "fragments",
    fragment_id="uuid",
    place="text",
    first_seen_us="bigint",
    last_seen_us="bigint",
    first_event_us="bigint?",
    last_event_us="bigint?",
    counts="text?",
)
_UPDATE_COUNTS = _ADD_UP.format(given=_COUNTED.sql, further="")

_RICHER = Packed(
    "fragments",
    fragment_id="uuid",
    place="text",
    first_seen_us="bigint",
    last_seen_us="bigint",
    first_event_us="bigint?",
    last_event_us="bigint?",
    counts="text?",
    traits="text?",
    revenue="text?",
    groups="text?",
)
_UPDATE_ALL = _ADD_UP.format(
    given=_RICHER.sql,
    further=""",
    traits = coalesce(CAST(g.traits AS jsonb), f.traits),
    revenue = coalesce(CAST(g.revenue AS jsonb), f.revenue),
    groups = coalesce(CAST(g.groups AS jsonb), f.groups)""",
)

# A fragment without a row in fragment_profiles is its own profile.
PROFILE = """
WITH profile AS (
    SELECT coalesce(
        (SELECT profile_id FROM fragment_profiles WHERE fragment_id = :fragment), CAST(:fragment AS uuid)
    ) AS profile_id
), members AS (
    SELECT profile_id AS fragment_id FROM profile
    UNION SELECT m.fragment_id FROM fragment_profiles m JOIN profile USING (profile_id)
)
SELECT (SELECT profile_id FROM profile) AS profile_id,
    fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    CAST(counts AS text) AS counts, CAST(traits AS text) AS traits,
    CAST(revenue AS text) AS revenue, CAST(groups AS text) AS groups {further}
FROM members JOIN fragments USING (fragment_id)
"""
"""All fragments of a customer; `further` is a list of more columns."""

_PROFILE = PROFILE.format(further="")

_LOCK_AFTER = """
SELECT fragment_id, CAST(traits AS text) AS traits FROM fragments
WHERE CAST(:after AS uuid) IS NULL OR fragment_id > CAST(:after AS uuid)
ORDER BY fragment_id LIMIT :most FOR NO KEY UPDATE
"""

_PUT_TRAITS = """
UPDATE fragments AS f SET traits = CAST(g.traits AS jsonb)
FROM unnest(CAST(:fragments AS uuid[]), CAST(:traits AS text[])) AS g (fragment_id, traits)
WHERE f.fragment_id = g.fragment_id
"""

_LOCK_SOME = """
SELECT FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY fragment_id FOR NO KEY UPDATE
"""

_SOME = """
SELECT fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    CAST(counts AS text) AS counts, CAST(traits AS text) AS traits,
    CAST(revenue AS text) AS revenue, CAST(groups AS text) AS groups
FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

NO_FLAGS: Mapping[FragmentKey, int] = MappingProxyType({})

_PROFILES = """
SELECT p.profile_id, f.fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    CAST(counts AS text) AS counts, CAST(traits AS text) AS traits,
    CAST(revenue AS text) AS revenue, CAST(groups AS text) AS groups
FROM unnest(CAST(:profiles AS uuid[])) AS p (profile_id) CROSS JOIN LATERAL (
    SELECT p.profile_id AS fragment_id
    UNION SELECT m.fragment_id FROM fragment_profiles m WHERE m.profile_id = p.profile_id
) AS members JOIN fragments f USING (fragment_id)
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode
_decode_traits = msgspec.json.Decoder(dict[str, Trait]).decode


@dataclass(frozen=True)
class Folded:
    """What a fold changed that matters to identity."""

    new: Mapping[FragmentKey, Fragment]
    """Fragments that did not exist before."""
    earlier: frozenset[FragmentKey]
    """Fragments that existed and turned out to be older than known."""


class RaceError(Exception):
    """Another transaction made one of the fragments in the meantime, and yet another one works on it now."""


class FlaggedError(Exception):
    """Some fragments have flags that the fold was not prepared for; nothing was folded."""

    def __init__(self, flags: Mapping[FragmentKey, int]) -> None:
        super().__init__(f"{len(flags)} fragments are flagged")
        self.flags = flags


class FragmentStore:
    """Keeps what was learnt under each identifier."""

    def __init__(self, tx: Transaction, policies: Policies = NO_POLICIES) -> None:
        self._tx = tx
        self._policies = policies

    async def fold(self, learnt: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int] = NO_FLAGS) -> Folded:
        """Add what a batch of events taught to what is known.

        Raises `FlaggedError` when a fragment has other flags than those that the fold was prepared for.
        """
        if not learnt:
            return Folded({}, frozenset())
        while True:
            try:
                # Going back to the savepoint lets go of the locks, so that they can be taken in order again.
                async with self._tx.connection.begin_nested():
                    return await self._fold(learnt, flags)
            except RaceError:
                continue

    async def _fold(self, learnt: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int]) -> Folded:
        keys = sorted(learnt)
        rows: Sequence[Any] = await self._tx.rows(_LOCK, fragments=[UUID(key) for key in keys])
        known = {row[0].bytes: row for row in rows}
        new = {key: learnt[key] for key in keys if key not in known}
        _check_flags(known, flags, await self._suppressed(new, flags))
        # Before anything is added up: what is learnt must still be whole when the race is lost.
        if raced := await self._insert(list(new.values())):
            rows = await self._tx.rows(_LOCK_AT_ONCE, fragments=[UUID(key) for key in raced])
            if len(rows) < len(raced):
                raise RaceError
            others = {row[0].bytes: row for row in rows}
            _check_flags(others, flags, {})
            known |= others
            new = {key: fragment for key, fragment in new.items() if key not in others}
        earlier = frozenset(key for key, row in known.items() if learnt[key].first_seen_us < row[1])
        for key, row in known.items():
            if learnt[key].counts:
                learnt[key].take_counts(_decode_counts(row[2]))
        await self._update([learnt[key] for key in known], [row[4] for row in known.values()])
        return Folded(new, earlier)

    async def _suppressed(
        self, new: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int]
    ) -> dict[FragmentKey, int]:
        """Only what is new can be an erased customer's, because nothing of one is left."""
        suppressed = await SuppressionStore(self._tx).suppressed(new)
        return {key: SUPPRESSED for key in suppressed if not flags.get(key, 0) & SUPPRESSED}

    async def _insert(self, fragments: Sequence[Fragment]) -> set[FragmentKey]:
        """Make fragments; returns those that another transaction made in the meantime."""
        if not fragments:
            return set()
        inserted = await self._tx.rows(
            _INSERT,
            **_NEW.parameters(
                **_seen(fragments),
                namespace=[fragment.name.namespace.encode() for fragment in fragments],
                value=[_sealed_value(self._tx, fragment.name).encode() for fragment in fragments],
                counts=[_encode(fragment.counts) for fragment in fragments],
                **self._rest(fragments, b"{}", b"[]"),
            ),
        )
        if len(inserted) == len(fragments):
            return set()
        return {fragment.name.fragment for fragment in fragments} - {row[0].bytes for row in inserted}

    async def _update(self, fragments: Sequence[Fragment], places: Sequence[str]) -> None:
        """Write to rows that are locked, each by the place at which it was found."""
        # Few events carry traits, money or groups, so these columns are read and written for those alone.
        counted: list[tuple[Fragment, str]] = []
        richer: list[tuple[Fragment, str]] = []
        for fragment, place in zip(fragments, places, strict=True):
            is_richer = fragment.traits or fragment.revenue or fragment.groups
            (richer if is_richer else counted).append((fragment, place))
        if counted:
            await self._tx.execute(_UPDATE_COUNTS, **_COUNTED.parameters(**_placed(counted)))
        if richer:
            more = [fragment for fragment, _ in richer]
            await self._add_rest(more)
            await self._tx.execute(_UPDATE_ALL, **_RICHER.parameters(**_placed(richer), **self._rest(more, None, None)))

    async def _add_rest(self, fragments: Sequence[Fragment]) -> None:
        by_key = {fragment.name.fragment: fragment for fragment in fragments}
        rows = await self._tx.rows(_REST, fragments=[UUID(key) for key in by_key])
        for row in await revealed(self._tx, rows, {}, {"traits": "fragment_id"}):
            fragment = by_key[row.fragment_id.bytes]
            fragment.take_traits(_read_traits(row.traits), self._policies)
            fragment.take_revenue(_read_revenue(row.revenue))
            fragment.take_groups(_decode(row.groups))

    async def profile(self, fragment: FragmentKey) -> tuple[FragmentKey, list[Fragment]] | None:
        """Return the profile of a fragment and all fragments of it, None when nobody was ever known by it."""
        rows = await self._tx.rows(_PROFILE, fragment=UUID(fragment))
        if not rows:
            return None
        return rows[0].profile_id.bytes, [read_fragment(row) for row in await revealed_fragments(self._tx, rows)]

    async def existing(self, fragments: Collection[FragmentKey]) -> set[FragmentKey]:
        """Return those fragments that somebody was ever known by."""
        rows = await self._tx.rows(
            "SELECT fragment_id FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))",
            fragments=[UUID(fragment) for fragment in fragments],
        )
        return {row.fragment_id.bytes for row in rows}

    async def lock(self, fragments: Collection[FragmentKey]) -> None:
        """Lock some fragments in key order, until the end of the transaction; before the identity lock."""
        await self._tx.execute(_LOCK_SOME, fragments=[UUID(fragment) for fragment in fragments])

    async def some(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, Fragment]:
        """Return what was learnt under some identifiers."""
        if not fragments:
            return {}
        rows = await self._tx.rows(_SOME, fragments=[UUID(fragment) for fragment in fragments])
        return {row.fragment_id.bytes: read_fragment(row) for row in await revealed_fragments(self._tx, rows)}

    async def traits(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, dict[str, Trait]]:
        """Return the traits of some fragments."""
        rows = await self._tx.rows(
            "SELECT fragment_id, CAST(traits AS text) AS traits FROM fragments"
            " WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))",
            fragments=[UUID(fragment) for fragment in fragments],
        )
        rows = await revealed(self._tx, rows, {}, {"traits": "fragment_id"})
        return {row.fragment_id.bytes: _read_traits(row.traits) for row in rows}

    async def lock_after(self, after: FragmentKey | None, *, most: int) -> dict[FragmentKey, dict[str, Trait]]:
        """Lock the next fragments in the order of their keys; return their traits."""
        rows = await self._tx.rows(_LOCK_AFTER, after=UUID(after) if after else None, most=most)
        rows = await revealed(self._tx, rows, {}, {"traits": "fragment_id"})
        return {row.fragment_id.bytes: _read_traits(row.traits) for row in rows}

    async def put_traits(self, traits: Mapping[FragmentKey, dict[str, Trait]]) -> None:
        """Replace the traits of fragments that are locked."""
        if traits:
            await self._tx.execute(
                _PUT_TRAITS,
                fragments=[UUID(fragment) for fragment in traits],
                traits=[self._tx.sealer.seal_values(TRAITS, key, _encode(of).decode()) for key, of in traits.items()],
            )

    async def profiles(self, profiles: Collection[FragmentKey]) -> dict[FragmentKey, list[Fragment]]:
        """Return all fragments of some profiles; one that does not exist is left out."""
        found: dict[FragmentKey, list[Fragment]] = {}
        rows = await self._tx.rows(_PROFILES, profiles=[UUID(profile) for profile in profiles])
        for row in await revealed_fragments(self._tx, rows):
            found.setdefault(row.profile_id.bytes, []).append(read_fragment(row))
        return found

    def _rest(
        self, fragments: Sequence[Fragment], no_values: bytes | None, no_names: bytes | None
    ) -> dict[str, list[bytes | None]]:
        """Spread what few fragments have over columns; an empty part is null where that leaves the stored one alone."""
        seal = self._tx.sealer.seal_values
        return {
            "traits": [
                seal(TRAITS, each.name.fragment, _encode(each.traits).decode()).encode() if each.traits else no_values
                for each in fragments
            ],
            "revenue": [_encode(each.revenue) if each.revenue else no_values for each in fragments],
            "groups": [_encode(sorted(each.groups)) if each.groups else no_names for each in fragments],
        }


def _check_flags(
    known: Mapping[FragmentKey, Any], flags: Mapping[FragmentKey, int], surprising: dict[FragmentKey, int]
) -> None:
    """Raise `FlaggedError` when there are flags that the fold was not prepared for."""
    surprising |= {key: row[3] for key, row in known.items() if row[3] != flags.get(key, 0)}
    if surprising:
        raise FlaggedError(surprising)


def _sealed_value(tx: Transaction, name: Name) -> str:
    return seal_identifier(tx, name.fragment, name.namespace, name.value)


def _seen(fragments: Sequence[Fragment]) -> dict[str, list[Any]]:
    return {
        "fragment_id": [fragment.name.fragment for fragment in fragments],
        "first_seen_us": [fragment.first_seen_us for fragment in fragments],
        "last_seen_us": [fragment.last_seen_us for fragment in fragments],
        "first_event_us": [fragment.first_event_us for fragment in fragments],
        "last_event_us": [fragment.last_event_us for fragment in fragments],
    }


def _placed(found: Sequence[tuple[Fragment, str]]) -> dict[str, list[Any]]:
    fragments = [fragment for fragment, _ in found]
    return _seen(fragments) | {
        "place": [place.encode() for _, place in found],
        "counts": [_encode(fragment.counts) if fragment.counts else None for fragment in fragments],
    }


def read_fragment(row: Any) -> Fragment:
    """Read a row with all columns of a fragment."""
    return Fragment(
        name=Name(row.fragment_id.bytes, row.namespace, row.value),
        first_seen_us=row.first_seen_us,
        last_seen_us=row.last_seen_us,
        first_event_us=row.first_event_us,
        last_event_us=row.last_event_us,
        counts=_decode(row.counts),
        traits=_read_traits(row.traits),
        revenue=_read_revenue(row.revenue),
        groups=set(_decode(row.groups)),
    )


def _read_traits(text: str) -> dict[str, Trait]:
    return _decode_traits(text)


def _read_revenue(text: str) -> dict[str, Decimal]:
    return {currency: Decimal(value) for currency, value in _decode(text).items()}
