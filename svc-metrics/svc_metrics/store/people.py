# SPDX-License-Identifier: Apache-2.0
"""Who is who and who is in what: fragment to profile, profile to segment, as heard from the other services.

Rows are only ever added; the highest revision wins when they are read, so order and repetition do not matter.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

import pyarrow as pa
from chassis.identity import FragmentId, ProfileId

from svc_metrics.domain import Mapping, Membership
from svc_metrics.store.clickhouse import ClickHouse

MOVED = "SELECT fragment_id, profile_id FROM fragment_profiles FINAL WHERE profile_id != fragment_id"
"""Fragments that belong to another profile than their own. A fragment nobody has spoken of is its own profile."""

MEMBERS = """
SELECT profile_id FROM segment_members FINAL WHERE segment_id = {segment_id:String} AND member
"""

_REMEMBERED = 200_000
_NEVER_REVIVED = 2**64 - 1

_PROFILE_OF = "SELECT argMax(profile_id, revision) FROM fragment_profiles WHERE fragment_id = {fragment_id:UUID}"

_PROFILE_OF_MANY = """
SELECT fragment_id, argMax(profile_id, revision)
FROM fragment_profiles
WHERE fragment_id = {profile_id:UUID}
    OR fragment_id IN (SELECT fragment_id FROM fragment_profiles WHERE profile_id = {profile_id:UUID})
GROUP BY fragment_id
"""

_KNOWS = """
SELECT (SELECT count() FROM fragment_profiles WHERE fragment_id = {fragment_id:UUID})
    + (SELECT count() FROM (SELECT 1 FROM events WHERE fragment_id = {fragment_id:UUID} LIMIT 1))
"""

_SEGMENT_ID = """
SELECT segment_id FROM segments FINAL WHERE name = {name:String} AND NOT deleted ORDER BY version DESC LIMIT 1
"""


class PeopleStore:
    """The tables of mappings and memberships."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._written: dict[FragmentId, Mapping] = {}

    async def learn_mappings(self, mappings: Iterable[Mapping]) -> None:
        """Keep mappings; those that were written a moment ago are not written again."""
        fresh = [m for m in mappings if self._written.get(m.fragment_id) != m]
        if not fresh:
            return
        await self._clickhouse.insert(
            "fragment_profiles",
            pa.table(
                {
                    "fragment_id": _uuids(m.fragment_id for m in fresh),
                    "profile_id": _uuids(m.profile_id for m in fresh),
                    "revision": pa.array([m.revision for m in fresh], pa.uint64()),
                }
            ),
        )
        if len(self._written) > _REMEMBERED:
            self._written.clear()
        self._written.update((m.fragment_id, m) for m in fresh)

    def forget(self, fragment_ids: Iterable[UUID]) -> None:
        """Let go of what this process remembers of fragments."""
        for fragment_id in fragment_ids:
            self._written.pop(FragmentId(fragment_id), None)

    async def profile_of(self, fragment_id: FragmentId) -> ProfileId | None:
        """Return the profile that a fragment belongs to, None when nobody has spoken of it."""
        if not (await self._clickhouse.rows(_KNOWS, fragment_id=fragment_id))[0][0]:
            return None
        profile_id: UUID = (await self._clickhouse.rows(_PROFILE_OF, fragment_id=fragment_id))[0][0]
        return ProfileId(profile_id if profile_id.int else fragment_id)

    async def fragments_of(self, profile_id: ProfileId) -> list[FragmentId]:
        """Return the fragments that belong to a profile."""
        rows = await self._clickhouse.rows(_PROFILE_OF_MANY, profile_id=profile_id)
        owner = {FragmentId(profile_id): profile_id, **dict(rows)}
        return [fragment_id for fragment_id, owner_id in owner.items() if owner_id == profile_id]

    async def learn_memberships(self, memberships: Sequence[Membership]) -> None:
        """Keep who is in which segment and what the segments are called."""
        await self._clickhouse.insert(
            "segment_members",
            pa.table(
                {
                    "segment_id": pa.array([m.segment_id for m in memberships], pa.utf8()),
                    "profile_id": _uuids(m.profile_id for m in memberships),
                    "member": pa.array([m.member for m in memberships], pa.bool_()),
                    "revision": pa.array([m.revision for m in memberships], pa.uint64()),
                }
            ),
        )
        latest = {m.segment_id: m for m in sorted(memberships, key=lambda m: m.change_time_us)}
        await self._put_segments(
            [(m.segment_id, m.segment_name, False, max(m.change_time_us, 0)) for m in latest.values()]
        )

    async def name_segments(self, segments: Iterable[tuple[str, str, int]]) -> None:
        """Keep what segments are called: id, name, time of saving; of two names the later one holds."""
        latest = {segment[0]: segment for segment in sorted(segments, key=lambda segment: segment[2])}
        await self._put_segments([(i, name, False, max(time_us, 0)) for i, name, time_us in latest.values()])

    async def forget_segments(self, segments: Iterable[tuple[str, str]]) -> None:
        """Let deleted segments, id and name, be unknown from now on."""
        await self._put_segments([(segment_id, name, True, _NEVER_REVIVED) for segment_id, name in segments])

    async def segment_id(self, name: str) -> str | None:
        """Return the id of the segment with a name, None when there is none."""
        rows = await self._clickhouse.rows(_SEGMENT_ID, name=name)
        return rows[0][0] if rows else None

    async def _put_segments(self, rows: Sequence[tuple[str, str, bool, int]]) -> None:
        ids, names, deleted, versions = zip(*rows, strict=True)
        await self._clickhouse.insert(
            "segments",
            pa.table(
                {
                    "segment_id": pa.array(ids, pa.utf8()),
                    "name": pa.array(names, pa.utf8()),
                    "deleted": pa.array(deleted, pa.bool_()),
                    "version": pa.array(versions, pa.uint64()),
                }
            ),
        )


def _uuids(ids: Iterable[UUID]) -> pa.Array:
    return pa.array([id_.bytes for id_ in ids], pa.binary(16))
