# SPDX-License-Identifier: Apache-2.0
"""Fragments: what was learnt under each identifier."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.traits import Trait
from svc_profile.store.sealed import TRAITS, revealed, revealed_fragments

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
_decode_traits = msgspec.json.Decoder(dict[str, Trait]).decode


class FragmentStore:
    """Keeps what was learnt under each identifier."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

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
        return {row.fragment_id.bytes: read_traits(row.traits) for row in rows}

    async def lock_after(self, after: FragmentKey | None, *, most: int) -> dict[FragmentKey, dict[str, Trait]]:
        """Lock the next fragments in the order of their keys; return their traits."""
        rows = await self._tx.rows(_LOCK_AFTER, after=UUID(after) if after else None, most=most)
        rows = await revealed(self._tx, rows, {}, {"traits": "fragment_id"})
        return {row.fragment_id.bytes: read_traits(row.traits) for row in rows}

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


def read_fragment(row: Any) -> Fragment:
    """Read a row with all columns of a fragment."""
    return Fragment(
        name=Name(row.fragment_id.bytes, row.namespace, row.value),
        first_seen_us=row.first_seen_us,
        last_seen_us=row.last_seen_us,
        first_event_us=row.first_event_us,
        last_event_us=row.last_event_us,
        counts=_decode(row.counts),
        traits=read_traits(row.traits),
        revenue=read_revenue(row.revenue),
        groups=set(_decode(row.groups)),
    )


def read_traits(text: str) -> dict[str, Trait]:
    return _decode_traits(text)


def read_revenue(text: str) -> dict[str, Decimal]:
    return {currency: Decimal(value) for currency, value in _decode(text).items()}
