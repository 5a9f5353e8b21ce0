# SPDX-License-Identifier: Apache-2.0
"""What other services said about customers: segments and stages by profile, feedback by fragment."""

from collections.abc import Collection, Sequence

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.heard import Feedback, Membership, MembershipChange, StageChange, Standing

# Rows go in in key order, so that two replicas never wait for each other in a circle.
_CHANGE_MEMBERSHIPS = """
INSERT INTO segment_memberships AS m (
    profile_id, segment_id, member, revision, change_time_us, rule_version
)
SELECT DISTINCT ON (profile_id, segment_id) profile_id, segment_id, member, revision, change_time_us, rule_version
FROM unnest(
    CAST(:profiles AS uuid[]), CAST(:segments AS text[]), CAST(:members AS boolean[]), CAST(:revisions AS bigint[]),
    CAST(:times AS bigint[]), CAST(:rule_versions AS integer[])
) AS g (profile_id, segment_id, member, revision, change_time_us, rule_version)
ORDER BY profile_id, segment_id, revision DESC
ON CONFLICT (profile_id, segment_id) DO UPDATE SET
    member = excluded.member, revision = excluded.revision, change_time_us = excluded.change_time_us,
    rule_version = excluded.rule_version
WHERE m.revision < excluded.revision
"""

# A segment that is only known from a membership has the name of that moment until somebody says it properly.
_NAME_SEGMENTS = """
INSERT INTO heard_segments AS s (segment_id, name, saved_time_us, deleted)
SELECT DISTINCT ON (segment_id) segment_id, name, saved_time_us, deleted
FROM unnest(
    CAST(:segments AS text[]), CAST(:names AS text[]), CAST(:times AS bigint[]), CAST(:deleted AS boolean[])
) AS g (segment_id, name, saved_time_us, deleted)
ORDER BY segment_id, deleted DESC, saved_time_us DESC
ON CONFLICT (segment_id) DO UPDATE SET
    name = excluded.name, saved_time_us = excluded.saved_time_us, deleted = excluded.deleted
WHERE NOT s.deleted AND (excluded.deleted OR s.saved_time_us < excluded.saved_time_us)
"""

_FORGET_MEMBERSHIPS = "DELETE FROM segment_memberships WHERE segment_id = ANY (CAST(:segments AS text[]))"

_MEMBERSHIPS_OF = """
SELECT m.profile_id, m.segment_id, s.name, m.change_time_us, m.rule_version
FROM segment_memberships m JOIN heard_segments s USING (segment_id)
WHERE m.profile_id = ANY (CAST(:profiles AS uuid[])) AND m.member AND NOT s.deleted ORDER BY s.name, m.segment_id
"""

_CHANGE_STAGES = """
INSERT INTO profile_stages AS s (
    profile_id, track, stage, previous_stage, rule_version, revision, change_time_us, evidence
)
SELECT DISTINCT ON (profile_id, track)
    profile_id, track, stage, previous_stage, rule_version, revision, change_time_us, evidence
FROM unnest(
    CAST(:profiles AS uuid[]), CAST(:tracks AS text[]), CAST(:stages AS text[]), CAST(:previous AS text[]),
    CAST(:rule_versions AS integer[]), CAST(:revisions AS bigint[]), CAST(:times AS bigint[]), CAST(:evidence AS text[])
) AS g (profile_id, track, stage, previous_stage, rule_version, revision, change_time_us, evidence)
ORDER BY profile_id, track, revision DESC
ON CONFLICT (profile_id, track) DO UPDATE SET
    stage = excluded.stage, previous_stage = excluded.previous_stage, rule_version = excluded.rule_version,
    revision = excluded.revision, change_time_us = excluded.change_time_us, evidence = excluded.evidence
WHERE s.revision < excluded.revision
"""

_PUT_FEEDBACK = """
INSERT INTO heard_feedback (
    feedback_id, fragment_id, kind, rating, sentiment, sentiment_probability, item_id, language, feedback_time_us
)
SELECT * FROM unnest(
    CAST(:feedback_ids AS text[]), CAST(:fragments AS uuid[]), CAST(:kinds AS smallint[]), CAST(:ratings AS smallint[]),
    CAST(:sentiments AS smallint[]), CAST(:probabilities AS double precision[]), CAST(:item_ids AS text[]),
    CAST(:languages AS text[]), CAST(:times AS bigint[])
)
ON CONFLICT DO NOTHING
"""

# Both in one round trip; a part that is not wanted costs nothing.
_STANDING = """
SELECT true AS is_segment, m.segment_id AS id, s.name, '' AS previous, m.change_time_us, m.rule_version, m.revision,
    '' AS evidence
FROM segment_memberships m JOIN heard_segments s USING (segment_id)
WHERE :segments AND m.profile_id = :profile AND m.member AND NOT s.deleted
UNION ALL
SELECT false, track, stage, previous_stage, change_time_us, rule_version, revision, evidence
FROM profile_stages WHERE :stages AND profile_id = :profile AND stage <> ''
"""

_FEEDBACK = """
SELECT * FROM heard_feedback
WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
    AND (CAST(:before_us AS bigint) IS NULL
        OR (feedback_time_us, feedback_id) < (CAST(:before_us AS bigint), CAST(:before_id AS text)))
ORDER BY feedback_time_us DESC, feedback_id DESC LIMIT :most
"""


class HeardStore:
    """Keeps what was heard; the state is the same in whatever order it comes, and however often."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def change_memberships(self, changes: Sequence[MembershipChange]) -> None:
        """Keep the newest of what is known of each segment and profile."""
        if not changes:
            return
        await self._name([(change.segment_id, change.segment_name, 0) for change in changes], deleted=False)
        await self._tx.execute(
            _CHANGE_MEMBERSHIPS,
            profiles=[UUID(change.profile) for change in changes],
            segments=[change.segment_id for change in changes],
            members=[change.member for change in changes],
            revisions=[change.revision for change in changes],
            times=[change.change_time_us for change in changes],
            rule_versions=[change.rule_version for change in changes],
        )

    async def name_segments(self, names: Sequence[tuple[str, str, int]]) -> None:
        """Keep the latest name of each segment: id, name, time of saving."""
        await self._name(names, deleted=False)

    async def forget_segments(self, names: Sequence[tuple[str, str]]) -> None:
        """Know segments as deleted, also for memberships that are heard of later."""
        await self._name([(segment_id, name, 0) for segment_id, name in names], deleted=True)
        await self._tx.execute(_FORGET_MEMBERSHIPS, segments=[segment_id for segment_id, _ in names])

    async def _name(self, names: Sequence[tuple[str, str, int]], *, deleted: bool) -> None:
        await self._tx.execute(
            _NAME_SEGMENTS,
            segments=[segment_id for segment_id, _, _ in names],
            names=[storable_text(name) for _, name, _ in names],
            times=[time_us for _, _, time_us in names],
            deleted=[deleted] * len(names),
        )

    async def change_stages(self, changes: Sequence[StageChange]) -> None:
        """Keep the newest stage of each profile and track."""
        await self._tx.execute(
            _CHANGE_STAGES,
            profiles=[UUID(change.profile) for change in changes],
            tracks=[storable_text(change.track) for change in changes],
            stages=[storable_text(change.new_stage) for change in changes],
            previous=[storable_text(change.old_stage) for change in changes],
            rule_versions=[change.rule_version for change in changes],
            revisions=[change.revision for change in changes],
            times=[change.change_time_us for change in changes],
            evidence=[storable_text(change.evidence) for change in changes],
        )

    async def put_feedback(self, feedback: Sequence[Feedback]) -> None:
        """Keep that customers said something."""
        await self._tx.execute(
            _PUT_FEEDBACK,
            feedback_ids=[each.feedback_id for each in feedback],
            fragments=[UUID(each.fragment) for each in feedback],
            kinds=[each.kind for each in feedback],
            ratings=[each.rating for each in feedback],
            sentiments=[each.sentiment for each in feedback],
            probabilities=[each.sentiment_probability for each in feedback],
            item_ids=[storable_text(each.item_id) for each in feedback],
            languages=[each.language for each in feedback],
            times=[each.feedback_time_us for each in feedback],
        )

    async def memberships_of(self, profiles: Collection[FragmentKey]) -> dict[FragmentKey, list[Membership]]:
        """Return the segments that each of some customers is in, by name."""
        found: dict[FragmentKey, list[Membership]] = {}
        for row in await self._tx.rows(_MEMBERSHIPS_OF, profiles=[UUID(profile) for profile in profiles]):
            membership = Membership(row.segment_id, row.name, row.change_time_us, row.rule_version)
            found.setdefault(row.profile_id.bytes, []).append(membership)
        return found

    async def standing(self, profile: FragmentKey, *, segments: bool, stages: bool) -> Standing:
        """Return the segments that a customer is in, and the stages that it has reached, as far as wanted."""
        rows = await self._tx.rows(_STANDING, profile=UUID(profile), segments=segments, stages=stages)
        return Standing(
            segments=[
                Membership(row.id, row.name, row.change_time_us, row.rule_version)
                for row in sorted(rows, key=lambda row: (row.name, row.id))
                if row.is_segment
            ],
            stages=[
                StageChange(
                    profile=profile,
                    track=row.id,
                    old_stage=row.previous,
                    new_stage=row.name,
                    rule_version=row.rule_version,
                    revision=row.revision,
                    change_time_us=row.change_time_us,
                    evidence=row.evidence,
                )
                for row in sorted(rows, key=lambda row: row.id)
                if not row.is_segment
            ],
        )

    async def feedback(
        self, fragments: Collection[FragmentKey], *, before: tuple[int, str] | None, most: int
    ) -> list[Feedback]:
        """Return what a customer said, newest first, before a position (time, id)."""
        rows = await self._tx.rows(
            _FEEDBACK,
            fragments=[UUID(fragment) for fragment in fragments],
            before_us=before[0] if before else None,
            before_id=before[1] if before else None,
            most=most,
        )
        return [
            Feedback(
                feedback_id=row.feedback_id,
                fragment=row.fragment_id.bytes,
                kind=row.kind,
                rating=row.rating,
                sentiment=row.sentiment,
                sentiment_probability=row.sentiment_probability,
                item_id=row.item_id,
                language=row.language,
                feedback_time_us=row.feedback_time_us,
            )
            for row in rows
        ]
