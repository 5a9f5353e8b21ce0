# SPDX-License-Identifier: Apache-2.0
"""Ask rules of profiles: of all, to preview one; of some, to bring their memberships up to date."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.database import Transaction

from svc_segmentation.domain.segments import Change, Judge, Preview
from svc_segmentation.store.rule_sql import RuleSql

_EVERYBODY = "scope AS MATERIALIZED (SELECT fragment_id, profile_id FROM fragment_profiles)"

# An id may be a fragment's or a profile's: a profile is named by a fragment, which need not be known here by itself.
_SOME = """ids AS MATERIALIZED (
    SELECT DISTINCT id FROM unnest(CAST(:ids AS uuid[])) AS g (id)
), asked AS MATERIALIZED (
    SELECT profile_id FROM fragment_profiles JOIN ids ON fragment_id = id
    UNION SELECT profile_id FROM fragment_profiles JOIN ids ON profile_id = id
), scope AS MATERIALIZED (
    SELECT fragment_id, profile_id FROM fragment_profiles JOIN asked USING (profile_id)
)"""

_PREVIEW = """
WITH {scope}, {judged}, holding AS MATERIALIZED (SELECT profile_id FROM judged WHERE m{position})
SELECT
    (SELECT count(*) FROM holding) AS holding,
    (SELECT count(DISTINCT profile_id) FROM scope) AS population,
    ARRAY(SELECT profile_id FROM holding ORDER BY profile_id LIMIT :sample_size) AS sample
"""

# A profile that was merged into another one is a fragment of that one now: its memberships end, and where the other one
# enters the same segment, it has been in it since the first of them entered.
_SETTLE = """
WITH {scope}, {judged}, results AS MATERIALIZED (SELECT * FROM judged
), verdicts AS MATERIALIZED (
    SELECT r.profile_id, v.segment_id, v.rule_version
    FROM results r CROSS JOIN LATERAL (VALUES {verdicts}) AS v (segment_id, rule_version, member)
    WHERE v.member
), touched AS MATERIALIZED (
    SELECT fragment_id AS id FROM scope UNION SELECT profile_id FROM scope UNION SELECT id FROM ids
), left_segment AS (
    DELETE FROM memberships m USING touched t
    WHERE m.profile_id = t.id AND m.segment_id = ANY (CAST(:segments AS text[]))
        AND NOT EXISTS (
            SELECT FROM verdicts v WHERE v.segment_id = m.segment_id AND v.profile_id = m.profile_id
        )
    RETURNING m.segment_id, m.profile_id
), entered AS (
    INSERT INTO memberships (segment_id, profile_id, revision, rule_version, entered_time)
    SELECT v.segment_id, v.profile_id, nextval('membership_revision'), v.rule_version,
        coalesce((
            SELECT min(m.entered_time)
            FROM scope s JOIN memberships m ON m.profile_id = s.fragment_id AND m.segment_id = v.segment_id
            WHERE s.profile_id = v.profile_id
        ), :moment)
    FROM verdicts v
    WHERE NOT EXISTS (
        SELECT FROM memberships m WHERE m.segment_id = v.segment_id AND m.profile_id = v.profile_id
    )
    RETURNING segment_id, profile_id, revision
), changes AS (
    SELECT segment_id, profile_id, true AS member, revision FROM entered
    UNION ALL
    SELECT segment_id, profile_id, false, nextval('membership_revision') FROM left_segment
), noted AS (
    INSERT INTO membership_history (segment_id, profile_id, revision, rule_version, member, change_time)
    SELECT c.segment_id, c.profile_id, c.revision, v.rule_version, c.member, :moment
    FROM changes c
    JOIN unnest(CAST(:segments AS text[]), CAST(:versions AS integer[])) AS v (segment_id, rule_version)
        USING (segment_id)
), due AS (
    INSERT INTO due_profiles AS d (profile_id, due_us)
    SELECT profile_id, due_us FROM results WHERE due_us IS NOT NULL
    ON CONFLICT (profile_id) DO UPDATE SET due_us = {due}
    WHERE d.due_us <> {due}
){nothing_due}
SELECT segment_id, profile_id, member, revision FROM changes ORDER BY revision
"""

# When only some segments are asked, what the others wait for stays.
_ALL_DUE = "excluded.due_us"
_SOONER_DUE = "least(d.due_us, excluded.due_us)"
_NOTHING_DUE = """, nothing_due AS (
    DELETE FROM due_profiles d USING touched t
    WHERE d.profile_id = t.id
        AND NOT EXISTS (SELECT FROM results r WHERE r.profile_id = d.profile_id AND r.due_us IS NOT NULL)
)"""


@dataclass(frozen=True)
class Statement:
    """SQL and the parameters that come from rules, made once for many evaluations."""

    sql: str
    parameters: dict[str, Any]
    judges: Sequence[Judge]


async def preview(tx: Transaction, judges: Sequence[Judge], *, sample_size: int, now_us: int) -> Preview:
    """Ask the last of some rules of everybody, without keeping anything."""
    rules = RuleSql()
    judged = rules.judged(judges)
    sql = _PREVIEW.format(scope=_EVERYBODY, judged=judged, position=len(judges) - 1)
    row = await tx.row(sql, **_used(sql, {**rules.parameters, "now_us": now_us, "sample_size": sample_size}))
    assert row is not None
    return Preview(row.holding, row.population, row.sample)


def settling(judges: Sequence[Judge], about: Collection[str], *, every_segment: bool) -> Statement:
    """Return the statement that brings the memberships of `about` up to date; `judges` holds all that they refer to."""
    rules = RuleSql()
    judged = rules.judged(judges)
    settled = [(position, judge) for position, judge in enumerate(judges) if judge.name in about]
    verdicts = ", ".join(
        f"({rules.bind(judge.segment_id, 'text')}, {rules.bind(judge.rule_version, 'integer')}, m{position})"
        for position, judge in settled
    )
    sql = _SETTLE.format(
        scope=_SOME,
        judged=judged,
        verdicts=verdicts or "(CAST(NULL AS text), CAST(NULL AS integer), FALSE)",
        due=_ALL_DUE if every_segment else _SOONER_DUE,
        nothing_due=_NOTHING_DUE if every_segment else "",
    )
    parameters = {
        **rules.parameters,
        "segments": [judge.segment_id for _, judge in settled],
        "versions": [judge.rule_version for _, judge in settled],
    }
    return Statement(sql, parameters, [judge for _, judge in settled])


async def settle(
    tx: Transaction, statement: Statement, ids: Collection[UUID], *, moment: datetime, now_us: int
) -> list[Change]:
    """Evaluate the profiles behind some ids, keep the changes, and return them."""
    by_id = {judge.segment_id: judge for judge in statement.judges}
    parameters = {**statement.parameters, "ids": list(ids), "moment": moment, "now_us": now_us}
    rows = await tx.rows(statement.sql, **_used(statement.sql, parameters))
    return [
        Change(
            segment_id=row.segment_id,
            name=by_id[row.segment_id].name,
            rule_version=by_id[row.segment_id].rule_version,
            profile_id=row.profile_id,
            member=row.member,
            revision=row.revision,
        )
        for row in rows
    ]


def _used(sql: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Leave out the moment when no rule asks for it."""
    return parameters if ":now_us" in sql else {k: v for k, v in parameters.items() if k != "now_us"}
