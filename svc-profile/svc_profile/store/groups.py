# SPDX-License-Identifier: Apache-2.0
"""Groups and which fragments belong to them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption import Sealer
from chassis.encryption.vault import opened_values

from svc_profile.domain.customer_groups import Belonging, Group, LearntGroups, Member, MemberKey, Membership, Ruling
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.traits import Trait
from svc_profile.store.sealed import GROUP_TRAITS, row_of

# Rows come in the order of their keys, so that two replicas never wait for each other in a circle.
_INSERT = """
INSERT INTO groups (group_id, kind, first_seen_us, last_seen_us, traits)
SELECT group_id, kind, first_us, last_us, CAST(traits AS jsonb)
FROM unnest(
    CAST(:ids AS text[]), CAST(:kinds AS text[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]),
    CAST(:traits AS text[])
) AS g (group_id, kind, first_us, last_us, traits)
ORDER BY group_id COLLATE "C" ON CONFLICT DO NOTHING RETURNING group_id
"""

_LOCK = """
SELECT group_id, first_seen_us, last_seen_us, CAST(traits AS text) AS traits FROM groups
WHERE group_id = ANY (CAST(:ids AS text[])) ORDER BY group_id FOR NO KEY UPDATE
"""

_UPDATE = """
UPDATE groups AS o SET kind = g.kind, first_seen_us = g.first_us, last_seen_us = g.last_us,
    traits = CAST(g.traits AS jsonb)
FROM unnest(
    CAST(:ids AS text[]), CAST(:kinds AS text[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]),
    CAST(:traits AS text[])
) AS g (group_id, kind, first_us, last_us, traits)
WHERE o.group_id = g.group_id
"""

_JOIN = """
INSERT INTO group_members AS m (group_id, fragment_id, first_us, last_us)
SELECT group_id, fragment_id, first_us, last_us
FROM unnest(
    CAST(:ids AS text[]), CAST(:fragments AS uuid[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])
) AS g (group_id, fragment_id, first_us, last_us)
ORDER BY group_id COLLATE "C", fragment_id
ON CONFLICT (group_id, fragment_id) DO UPDATE SET
    first_us = least(m.first_us, excluded.first_us), last_us = greatest(m.last_us, excluded.last_us)
WHERE m.first_us IS NULL OR m.first_us > excluded.first_us OR m.last_us < excluded.last_us
"""

_RULE = """
INSERT INTO group_members AS m (group_id, fragment_id, role, member, decided_us)
SELECT group_id, fragment_id, role, member, decided_us
FROM unnest(
    CAST(:ids AS text[]), CAST(:fragments AS uuid[]), CAST(:roles AS text[]), CAST(:members AS boolean[]),
    CAST(:decided AS bigint[])
) AS g (group_id, fragment_id, role, member, decided_us)
ORDER BY group_id COLLATE "C", fragment_id
ON CONFLICT (group_id, fragment_id) DO UPDATE SET
    role = excluded.role, member = excluded.member, decided_us = excluded.decided_us
WHERE m.decided_us IS NULL OR m.decided_us <= excluded.decided_us
"""

_LEAVE = "DELETE FROM group_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND decided_us IS NULL"

_LEAVE_RULED = """
UPDATE group_members SET first_us = NULL, last_us = NULL WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

# What staff decided holds until a later event says otherwise.
_IS_MEMBER = "(m.decided_us IS NULL OR m.member OR m.last_us > m.decided_us)"

_PAGE = """
SELECT group_id, first_seen_us, last_seen_us, CAST(traits AS text) AS traits FROM groups
WHERE group_id > :after AND (:kind = '' OR kind = :kind) ORDER BY group_id LIMIT :most
"""

_MEMBERS = f"""
SELECT coalesce(p.profile_id, m.fragment_id) AS profile_id,
    (array_agg(m.role ORDER BY m.decided_us DESC NULLS LAST))[1] AS role,
    min(coalesce(m.first_us, m.decided_us)) AS first_us, max(greatest(m.last_us, m.decided_us)) AS last_us
FROM group_members m LEFT JOIN fragment_profiles p USING (fragment_id)
WHERE m.group_id = :group_id AND {_IS_MEMBER}
    AND (CAST(:after AS uuid) IS NULL OR coalesce(p.profile_id, m.fragment_id) > CAST(:after AS uuid))
GROUP BY 1 ORDER BY 1 LIMIT :most
"""  # noqa: S608  no data in it

_COUNT = f"""
SELECT count(DISTINCT coalesce(p.profile_id, m.fragment_id))
FROM group_members m LEFT JOIN fragment_profiles p USING (fragment_id) WHERE m.group_id = :group_id AND {_IS_MEMBER}
"""  # noqa: S608  no data in it

_OF_FRAGMENTS = f"""
SELECT o.group_id, o.first_seen_us, o.last_seen_us, CAST(o.traits AS text) AS traits, b.role, b.first_us, b.last_us
FROM (
    SELECT m.group_id, (array_agg(m.role ORDER BY m.decided_us DESC NULLS LAST))[1] AS role,
        min(coalesce(m.first_us, m.decided_us)) AS first_us, max(greatest(m.last_us, m.decided_us)) AS last_us
    FROM group_members m WHERE m.fragment_id = ANY (CAST(:fragments AS uuid[])) AND {_IS_MEMBER} GROUP BY m.group_id
) b JOIN groups o USING (group_id)
WHERE o.group_id > :after ORDER BY o.group_id LIMIT :most
"""  # noqa: S608  no data in it

_decode_traits = msgspec.json.Decoder(dict[str, Trait]).decode


class GroupStore:
    """Keeps groups and their members."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def learn(self, learnt: LearntGroups) -> None:
        """Add what a batch of events taught."""
        if learnt.groups:
            await self.absorb(learnt.groups)
            await self._join(learnt.members)

    async def absorb(self, groups: Mapping[str, Group]) -> None:
        """Add to what is known of some groups."""
        inserted = await self._tx.rows(_INSERT, **_columns(self._tx.sealer, [groups[key] for key in sorted(groups)]))
        known = groups.keys() - {row.group_id for row in inserted}
        if not known:
            return
        changed = []
        for group in await self._read(await self._tx.rows(_LOCK, ids=sorted(known))):
            group.absorb(groups[group.group_id])
            changed.append(group)
        await self._tx.execute(_UPDATE, **_columns(self._tx.sealer, changed))

    async def _join(self, members: Mapping[MemberKey, Belonging]) -> None:
        await self._tx.execute(
            _JOIN,
            ids=[group_id for group_id, _ in members],
            fragments=[UUID(fragment) for _, fragment in members],
            firsts=[belonging.first_us for belonging in members.values()],
            lasts=[belonging.last_us for belonging in members.values()],
        )

    async def leave(self, fragments: Collection[FragmentKey]) -> None:
        """Take back what events said of some fragments' groups; what staff decided stays."""
        given = [UUID(fragment) for fragment in fragments]
        await self._tx.execute(_LEAVE, fragments=given)
        await self._tx.execute(_LEAVE_RULED, fragments=given)

    async def rule(self, rulings: Sequence[Ruling]) -> None:
        """Keep what staff decided."""
        await self._tx.execute(
            _RULE,
            ids=[ruling.group_id for ruling in rulings],
            fragments=[UUID(ruling.fragment) for ruling in rulings],
            roles=[ruling.role for ruling in rulings],
            members=[ruling.member for ruling in rulings],
            decided=[ruling.decided_us for ruling in rulings],
        )

    async def find(self, group_id: str) -> Group | None:
        """Return a group, None when there is none."""
        rows = await self._tx.rows(
            "SELECT group_id, first_seen_us, last_seen_us, CAST(traits AS text) AS traits FROM groups"
            " WHERE group_id = :group_id",
            group_id=group_id,
        )
        return next(iter(await self._read(rows)), None)

    async def page(self, *, kind: str, after: str, most: int) -> list[Group]:
        """Return groups by id; of one kind when it is named."""
        return await self._read(await self._tx.rows(_PAGE, kind=kind, after=after, most=most))

    async def members(self, group_id: str, *, after: FragmentKey | None, most: int) -> list[Member]:
        """Return the customers in a group, by profile id."""
        rows = await self._tx.rows(_MEMBERS, group_id=group_id, after=UUID(after) if after else None, most=most)
        return [Member(row.profile_id.bytes, row.role or "", row.first_us, row.last_us) for row in rows]

    async def member_count(self, group_id: str) -> int:
        """Count the customers in a group."""
        return int(await self._tx.value(_COUNT, group_id=group_id))

    async def fragments_in(self, group_id: str, fragments: Collection[FragmentKey]) -> list[FragmentKey]:
        """Return those of some fragments by which a customer belongs to a group."""
        rows = await self._tx.rows(
            f"SELECT m.fragment_id FROM group_members m WHERE m.group_id = :group_id AND {_IS_MEMBER}"  # noqa: S608
            " AND m.fragment_id = ANY (CAST(:fragments AS uuid[]))",
            group_id=group_id,
            fragments=[UUID(fragment) for fragment in fragments],
        )
        return [row.fragment_id.bytes for row in rows]

    async def of_fragments(self, fragments: Collection[FragmentKey], *, after: str, most: int) -> list[Membership]:
        """Return the groups that a customer belongs to, by id."""
        rows = await self._tx.rows(
            _OF_FRAGMENTS, fragments=[UUID(fragment) for fragment in fragments], after=after, most=most
        )
        return [
            Membership(group, row.role or "", row.first_us, row.last_us)
            for row, group in zip(rows, await self._read(rows), strict=True)
        ]

    async def _read(self, rows: Sequence[Any]) -> list[Group]:
        sealed = [(GROUP_TRAITS, row_of(row.group_id), row.traits) for row in rows]
        return [
            Group(row.group_id, row.first_seen_us, row.last_seen_us, _decode_traits(traits))
            for row, traits in zip(rows, await opened_values(self._tx, sealed), strict=True)
        ]


def _columns(sealer: Sealer, groups: Sequence[Group]) -> dict[str, Any]:
    return {
        "ids": [group.group_id for group in groups],
        "kinds": [group.kind for group in groups],
        "firsts": [group.first_seen_us for group in groups],
        "lasts": [group.last_seen_us for group in groups],
        "traits": [
            sealer.seal_values(GROUP_TRAITS, row_of(group.group_id), msgspec.json.encode(group.traits).decode())
            for group in groups
        ],
    }
