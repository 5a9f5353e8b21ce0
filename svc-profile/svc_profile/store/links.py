# SPDX-License-Identifier: Apache-2.0
"""Links between fragments, and where each fragment belongs. Both are written under the identity lock only."""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from sqlalchemy import Row

from svc_profile.domain.claims import Claim, Link, Pair
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.evidence import Evidence
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.identity import Component, Member, Placement, Standing
from svc_profile.store.decisions import DecisionStore

# Two halves of one 64-bit key; jobs have the first half 7.
_IDENTITY_LOCK = "SELECT pg_advisory_xact_lock(8, 1)"

_NEWS = """
SELECT g.child, g.parent
FROM unnest(
    CAST(:children AS uuid[]), CAST(:parents AS uuid[]), CAST(:times AS bigint[]), CAST(:keys AS uuid[])
) AS g (child, parent, claim_time_us, event_key)
LEFT JOIN links l ON l.child = g.child AND l.parent = g.parent
WHERE l.child IS NULL OR (g.claim_time_us, g.event_key) < (l.claim_time_us, l.event_key)
"""

# Of parents `eligible IS NOT FALSE` is asked, which is the same for a column without nulls. Where `eligible` is asked,
# the planner may read the whole index of eligible children for each parent: it costs nothing while they are few, and
# the plan is kept when they are many.

# LATERAL with LIMIT asks an index about each fragment; EXISTS may read the whole table into a hash first.
_LINKED = """
SELECT f FROM unnest(CAST(:fragments AS uuid[])) AS g (f) CROSS JOIN LATERAL (
    (SELECT FROM links WHERE child = f AND eligible LIMIT 1)
    UNION ALL (SELECT FROM links WHERE parent = f AND eligible IS NOT FALSE LIMIT 1)
    UNION ALL (SELECT FROM decision_members WHERE fragment_id = f AND is_active LIMIT 1) LIMIT 1
) AS any_link
"""

_OF_CHILDREN = """
SELECT l.* FROM links l WHERE l.child = ANY (CAST(:children AS uuid[])) AND l.eligible
UNION
SELECT l.* FROM unnest(CAST(:pair_children AS uuid[]), CAST(:pair_parents AS uuid[])) AS g (child, parent)
JOIN links l ON l.child = g.child AND l.parent = g.parent
"""

_STANDINGS = """
SELECT f.fragment_id, f.first_seen_us, f.namespace, p.fragment_id AS profile_id,
    p.first_seen_us AS profile_first_seen_us, k.f IS NOT NULL AS is_held
FROM unnest(CAST(:fragments AS uuid[])) AS g (fragment_id)
JOIN fragments f USING (fragment_id)
LEFT JOIN fragment_profiles m USING (fragment_id)
JOIN fragments p ON p.fragment_id = coalesce(m.profile_id, f.fragment_id)
LEFT JOIN LATERAL (
    (SELECT f.fragment_id FROM links WHERE parent = f.fragment_id AND eligible IS NOT FALSE LIMIT 1)
    UNION ALL (SELECT f.fragment_id FROM decision_members d WHERE d.fragment_id = f.fragment_id AND is_active LIMIT 1)
    LIMIT 1
) AS k (f) ON true
"""

# LATERAL makes every step four look-ups by index, however large the tables are.
_REACHED = """
WITH RECURSIVE reached (fragment_id) AS (
    SELECT unnest(CAST(:seeds AS uuid[]))
    UNION
    SELECT step.fragment_id FROM reached r CROSS JOIN LATERAL (
        SELECT parent FROM links WHERE child = r.fragment_id AND eligible
        UNION ALL
        SELECT child FROM links WHERE parent = r.fragment_id AND eligible IS NOT FALSE
        UNION ALL
        SELECT hub FROM decision_members WHERE fragment_id = r.fragment_id AND is_active
        UNION ALL
        SELECT fragment_id FROM decision_members WHERE hub = r.fragment_id AND is_active
    ) AS step (fragment_id)
)
SELECT f.fragment_id, f.first_seen_us, f.namespace, coalesce(m.profile_id, f.fragment_id) AS profile_id
FROM reached r JOIN fragments f USING (fragment_id) LEFT JOIN fragment_profiles m USING (fragment_id)
"""

_AMONG = "SELECT * FROM links WHERE child = ANY (CAST(:fragments AS uuid[])) AND eligible"

_PUT = """
INSERT INTO links SELECT * FROM unnest(
    CAST(:children AS uuid[]), CAST(:parents AS uuid[]),
    CAST(:child_namespaces AS text[]), CAST(:parent_namespaces AS text[]), CAST(:rules AS text[]),
    CAST(:times AS bigint[]), CAST(:keys AS uuid[]), CAST(:ranks AS smallint[]),
    CAST(:sources AS text[]), CAST(:message_ids AS text[]), CAST(:eligible AS boolean[]), CAST(:refused AS boolean[])
)
ON CONFLICT (parent, child) DO UPDATE SET
    rule = excluded.rule, claim_time_us = excluded.claim_time_us, event_key = excluded.event_key,
    rank = excluded.rank, source = excluded.source, message_id = excluded.message_id,
    eligible = excluded.eligible, refused = excluded.refused
"""

_PLACE = """
INSERT INTO fragment_profiles AS m (fragment_id, profile_id, revision)
SELECT fragment_id, profile_id, (SELECT nextval('mapping_revisions'))
FROM unnest(CAST(:fragments AS uuid[]), CAST(:profiles AS uuid[])) AS g (fragment_id, profile_id)
ON CONFLICT (fragment_id) DO UPDATE SET profile_id = excluded.profile_id, revision = excluded.revision
RETURNING fragment_id, profile_id, revision
"""

# Every event asks this, and one value on the way there and one on the way back cost less than arrays and rows do.
_PLACEMENTS = """
SELECT string_agg(uuid_send(fragment_id) || uuid_send(profile_id) || int8send(revision), '') FROM fragment_profiles
WHERE fragment_id = ANY (CAST(CAST(:fragments AS text) AS uuid[]))
"""
_PLACEMENT = Struct(">16s16sq")

_PROFILES_OF = """
SELECT f.fragment_id, coalesce(m.profile_id, f.fragment_id) AS profile_id
FROM fragments f LEFT JOIN fragment_profiles m USING (fragment_id)
WHERE f.fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

# A profile that nothing is linked to has no row.
_SIZE = """
SELECT count(*) FROM (
    SELECT fragment_id FROM fragment_profiles WHERE profile_id = ANY (CAST(:profiles AS uuid[]))
    UNION SELECT * FROM unnest(CAST(:profiles AS uuid[]))
) AS fragments
"""

_AROUND = """
SELECT l.*, coalesce(c.profile_id, l.child) AS child_profile, coalesce(p.profile_id, l.parent) AS parent_profile
FROM (
    SELECT * FROM links WHERE child = ANY (CAST(:fragments AS uuid[]))
    UNION SELECT * FROM links WHERE parent = ANY (CAST(:fragments AS uuid[]))
) AS l
LEFT JOIN fragment_profiles c ON c.fragment_id = l.child
LEFT JOIN fragment_profiles p ON p.fragment_id = l.parent
ORDER BY l.claim_time_us, l.event_key, l.rank, l.child, l.parent
"""


class LinkStore:
    """Keeps the evidence and what follows from it."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def news(self, claims: Mapping[Pair, Claim], new: Container[FragmentKey]) -> dict[Pair, Claim]:
        """Return the claims that are not known yet, or not for so early a time; of `new` fragments none is known."""
        asked = _perhaps_known(claims, new)
        return {pair: claims[pair] for pair in claims.keys() - asked.keys()} | await self._news(asked)

    async def _news(self, claims: Mapping[Pair, Claim]) -> dict[Pair, Claim]:
        if not claims:
            return {}
        rows: Sequence[Any] = await self._tx.rows(
            _NEWS,
            children=[UUID(claim.child) for claim in claims.values()],
            parents=[UUID(claim.parent) for claim in claims.values()],
            times=[claim.time_us for claim in claims.values()],
            keys=[UUID(claim.event_key) for claim in claims.values()],
        )
        return {pair: claims[pair] for pair in ((child.bytes, parent.bytes) for child, parent in rows)}

    async def linked(self, fragments: Collection[FragmentKey]) -> set[FragmentKey]:
        """Return those of some fragments that have a link that counts, or that people decided about."""
        if not fragments:
            return set()
        rows = await self._tx.rows(_LINKED, fragments=[UUID(fragment) for fragment in fragments])
        return {row[0].bytes for row in rows}

    async def lock(self) -> None:
        """Be the only one who changes identities, until the end of the transaction.

        Row locks of fragments come first, and whoever holds this lock never waits for one.
        """
        await self._tx.execute(_IDENTITY_LOCK)

    async def of_children(self, claims: Mapping[Pair, Claim], new: Container[FragmentKey]) -> dict[Pair, Link]:
        """Return the links of the claimed pairs, and every eligible link of their children; `new` ones have none."""
        claims = _perhaps_known(claims, new)
        if not claims:
            return {}
        rows = await self._tx.rows(
            _OF_CHILDREN,
            children=list({child: UUID(child) for child, _ in claims}.values()),
            pair_children=[UUID(child) for child, _ in claims],
            pair_parents=[UUID(parent) for _, parent in claims],
        )
        return _links(rows)

    async def standings(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, Standing]:
        """Return how fragments stand in their customers."""
        if not fragments:
            return {}
        rows = await self._tx.rows(_STANDINGS, fragments=[UUID(fragment) for fragment in fragments])
        return {row.fragment_id.bytes: Standing(_member(row), row.profile_first_seen_us, row.is_held) for row in rows}

    async def component(self, seeds: Collection[FragmentKey]) -> Component:
        """Load everything that eligible links and decisions connect with some fragments."""
        if not seeds:
            return Component({}, {})
        rows = await self._tx.rows(_REACHED, seeds=[UUID(seed) for seed in seeds])
        links = await self._tx.rows(_AMONG, fragments=[row.fragment_id for row in rows])
        members = {row.fragment_id.bytes: _member(row) for row in rows}
        return Component(members, _links(links), await DecisionStore(self._tx).about(members))

    async def put(self, links: Iterable[Link]) -> None:
        """Write links as they are now."""
        given = list(links)
        if not given:
            return
        claims = [link.claim for link in given]
        await self._tx.execute(
            _PUT,
            children=[UUID(claim.child) for claim in claims],
            parents=[UUID(claim.parent) for claim in claims],
            child_namespaces=[claim.child_namespace for claim in claims],
            parent_namespaces=[claim.parent_namespace for claim in claims],
            rules=[claim.rule for claim in claims],
            times=[claim.time_us for claim in claims],
            keys=[UUID(claim.event_key) for claim in claims],
            ranks=[claim.rank for claim in claims],
            sources=[storable_text(claim.source) for claim in claims],
            message_ids=[storable_text(claim.message_id) for claim in claims],
            eligible=[link.eligible for link in given],
            refused=[link.refused for link in given],
        )

    async def place(self, profile_of: Mapping[FragmentKey, FragmentKey]) -> dict[FragmentKey, Placement]:
        """Write where fragments belong now, under a new revision."""
        if not profile_of:
            return {}
        rows: Sequence[Any] = await self._tx.rows(
            _PLACE,
            fragments=[UUID(fragment) for fragment in profile_of],
            profiles=[UUID(profile) for profile in profile_of.values()],
        )
        return {row[0].bytes: Placement(row[1].bytes, row[2]) for row in rows}

    async def placements(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, Placement]:
        """Return where linked fragments belong; one that is not in the answer belongs to itself."""
        asked = ",".join([fragment.hex() for fragment in fragments])
        found = await self._tx.value(_PLACEMENTS, fragments=f"{{{asked}}}")
        return {row[0]: Placement(row[1], row[2]) for row in _PLACEMENT.iter_unpack(found or b"")}

    async def profiles_of(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, FragmentKey]:
        """Return whom each of some fragments belongs to; one that nobody is known by is not in the answer."""
        rows = await self._tx.rows(_PROFILES_OF, fragments=[UUID(fragment) for fragment in fragments])
        return {row.fragment_id.bytes: row.profile_id.bytes for row in rows}

    async def size(self, profiles: Collection[FragmentKey]) -> int:
        """Return how many fragments some profiles have together."""
        return int(await self._tx.value(_SIZE, profiles=[UUID(profile) for profile in profiles]))

    async def around(self, fragments: Collection[FragmentKey]) -> list[Evidence]:
        """Return all links of some fragments, oldest claim first, and who has the two ends of each."""
        rows = await self._tx.rows(_AROUND, fragments=[UUID(fragment) for fragment in fragments])
        links = _links(rows).values()
        return [
            Evidence(link, row.child_profile.bytes, row.parent_profile.bytes)
            for link, row in zip(links, rows, strict=True)
        ]


def _perhaps_known(claims: Mapping[Pair, Claim], new: Container[FragmentKey]) -> dict[Pair, Claim]:
    # A former user id is the exception: it may have been claimed before anybody was seen with it.
    return {pair: claim for pair, claim in claims.items() if claim.child not in new or claim.joins_two_people}


def _member(row: Row[Any]) -> Member:
    return Member(row.first_seen_us, row.namespace, row.profile_id.bytes)


def _links(rows: Sequence[Row[Any]]) -> dict[Pair, Link]:
    links = {}
    for row in rows:
        claim = Claim(
            child=row.child.bytes,
            parent=row.parent.bytes,
            child_namespace=row.child_namespace,
            parent_namespace=row.parent_namespace,
            rule=row.rule,
            time_us=row.claim_time_us,
            event_key=row.event_key.bytes,
            rank=row.rank,
            source=row.source,
            message_id=row.message_id,
        )
        links[claim.pair] = Link(claim, row.eligible, row.refused)
    return links
