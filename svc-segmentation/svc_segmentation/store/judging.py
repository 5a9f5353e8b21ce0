# SPDX-License-Identifier: Apache-2.0
"""Ask rules of profiles: of all, to preview one; of some, to bring their memberships up to date."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.database import Transaction

from svc_segmentation.domain.segments import Change, Judge, Preview, Previewed
from svc_segmentation.store.rule_sql import RuleSql

_PREVIEW = """
WITH people AS MATERIALIZED (
    SELECT DISTINCT profile_id FROM fragment_profiles
), {judged}, holding AS MATERIALIZED (
    SELECT profile_id FROM judged WHERE m{position}
)
SELECT
    (SELECT count(*) FROM holding) AS holding,
    (SELECT count(*) FROM people) AS population,
    ARRAY(SELECT profile_id FROM holding ORDER BY profile_id LIMIT :sample_size) AS sample
"""

# Where a fragment of the profile is in the segment as a profile of its own, the profile has been in it since.
_FORETELL = """
WITH people AS MATERIALIZED (
    SELECT profile_id FROM unnest(CAST(:ids AS uuid[])) AS g (profile_id)
), {judged}
SELECT j.profile_id, e.segment_id, (
    SELECT min(m.entered_time) FROM (
        SELECT fragment_id FROM fragment_profiles WHERE profile_id = j.profile_id OFFSET 0
    ) AS f
    CROSS JOIN LATERAL (
        SELECT entered_time FROM memberships
        WHERE segment_id = e.segment_id AND profile_id = f.fragment_id OFFSET 0
    ) AS m
) AS entered_time
FROM (SELECT profile_id, {member} AS member FROM judged OFFSET 0) AS j
CROSS JOIN LATERAL unnest(j.member) AS e (segment_id)
"""

# An id may be a fragment's or a profile's: a profile is named by a fragment, which need not be known here by itself.
# A profile that was merged into another one is a fragment of that one now, and its memberships end.
_ASK = """
WITH ids AS MATERIALIZED (
    SELECT DISTINCT id FROM unnest(CAST(:ids AS uuid[])) AS g (id)
), people AS MATERIALIZED (
    SELECT profile_id FROM fragment_profiles JOIN ids ON fragment_id = id
    UNION SELECT profile_id FROM fragment_profiles JOIN ids ON profile_id = id
), {judged}, vanished AS MATERIALIZED (
    SELECT id FROM (
        SELECT id FROM ids
        UNION SELECT f.fragment_id FROM people JOIN fragment_profiles f USING (profile_id)
        WHERE f.fragment_id <> f.profile_id
    ) AS named
    WHERE NOT EXISTS (SELECT FROM fragment_profiles f WHERE f.profile_id = named.id)
)
SELECT j.profile_id, j.member, h.held, j.due_us, d.due_us AS was_due_us
FROM (SELECT profile_id, {member} AS member, due_us FROM judged OFFSET 0) AS j
CROSS JOIN LATERAL ({held}) AS h
LEFT JOIN due_profiles d ON d.profile_id = j.profile_id
WHERE j.member <> h.held OR j.due_us IS DISTINCT FROM d.due_us
UNION ALL
SELECT j.profile_id, CAST('{{}}' AS text[]), h.held, NULL, NULL
FROM (SELECT id AS profile_id FROM vanished) AS j CROSS JOIN LATERAL ({held}) AS h
WHERE h.held <> '{{}}'
"""
_HELD = """SELECT ARRAY(
    SELECT m.segment_id FROM memberships m
    WHERE m.profile_id = j.profile_id AND m.segment_id = ANY (CAST(:segments AS text[]))
    ORDER BY m.segment_id COLLATE "C"
) AS held"""

# Where a profile enters a segment that one of its fragments was in as a profile of its own, it has been in it since.
_APPLY = """
WITH entered AS (
    INSERT INTO memberships (segment_id, profile_id, revision, rule_version, entered_time)
    SELECT e.segment_id, e.profile_id, nextval('membership_revision'), e.rule_version,
        coalesce((
            SELECT min(m.entered_time)
            FROM (
                SELECT fragment_id FROM fragment_profiles
                WHERE profile_id = e.profile_id AND fragment_id <> e.profile_id OFFSET 0
            ) AS f
            CROSS JOIN LATERAL (
                SELECT entered_time FROM memberships
                WHERE segment_id = e.segment_id AND profile_id = f.fragment_id OFFSET 0
            ) AS m
        ), :moment)
    FROM unnest(
        CAST(:entered AS text[]), CAST(:entering AS uuid[]), CAST(:versions AS integer[])
    ) AS e (segment_id, profile_id, rule_version)
    RETURNING segment_id, profile_id, revision
), ended AS (
    DELETE FROM memberships m
    USING unnest(CAST(:left AS text[]), CAST(:leaving AS uuid[])) AS l (segment_id, profile_id)
    WHERE m.segment_id = l.segment_id AND m.profile_id = l.profile_id
    RETURNING m.segment_id, m.profile_id
), changes AS (
    SELECT segment_id, profile_id, true AS member, revision FROM entered
    UNION ALL SELECT segment_id, profile_id, false, nextval('membership_revision') FROM ended
), noted AS (
    INSERT INTO membership_history (segment_id, profile_id, revision, rule_version, member, change_time)
    SELECT c.segment_id, c.profile_id, c.revision, s.rule_version, c.member, :moment
    FROM changes c JOIN segments s USING (segment_id)
)
SELECT segment_id, profile_id, member, revision FROM changes ORDER BY revision
"""

_PUT_DUE = """
INSERT INTO due_profiles AS d (profile_id, due_us)
SELECT * FROM unnest(CAST(:profiles AS uuid[]), CAST(:due AS bigint[]))
ON CONFLICT (profile_id) DO UPDATE SET due_us = excluded.due_us
"""


@dataclass(frozen=True)
class Statement:
    """SQL and the parameters that come from rules, made once for many evaluations."""

    sql: str
    parameters: dict[str, Any]
    judges: Sequence[Judge]
    every_segment: bool
    """Whether all rules are asked; otherwise what the others wait for stays."""


async def preview(tx: Transaction, judges: Sequence[Judge], *, sample_size: int, now_us: int) -> Preview:
    """Ask the last of some rules of everybody, without keeping anything."""
    rules = RuleSql()
    sql = _PREVIEW.format(judged=rules.judged(judges), position=len(judges) - 1)
    parameters = {**rules.parameters, "sample_size": sample_size}
    row = await tx.row(sql, **_with_now(sql, parameters, now_us))
    assert row is not None
    return Preview(row.holding, row.population, row.sample)


def asking(judges: Sequence[Judge], about: Collection[str], *, every_segment: bool) -> Statement:
    """Return the statement that finds whose membership of `about` is not what the rules say.

    `judges` holds all that those refer to.
    """
    return _statement(_ASK, judges, about, every_segment)


def foretelling(judges: Sequence[Judge], about: Collection[str]) -> Statement:
    """Return the statement that finds which of `about` profiles are in, whatever they are members of.

    `judges` holds all that those refer to.
    """
    return _statement(_FORETELL, judges, about, every_segment=False)


def _statement(template: str, judges: Sequence[Judge], about: Collection[str], every_segment: bool) -> Statement:
    rules = RuleSql()
    judged = rules.judged(judges)
    asked = sorted(
        ((judge, f"m{position}") for position, judge in enumerate(judges) if judge.name in about),
        key=lambda each: each[0].segment_id,
    )
    member = ", ".join(f"CASE WHEN {column} THEN {rules.bind(judge.segment_id, 'text')} END" for judge, column in asked)
    sql = template.format(judged=judged, member=f"array_remove(ARRAY[{member}], NULL)", held=_HELD)
    found = [judge for judge, _ in asked]
    segments = {"segments": [judge.segment_id for judge in found]} if ":segments" in sql else {}
    return Statement(sql, {**rules.parameters, **segments}, found, every_segment)


async def foretell(
    tx: Transaction, statement: Statement, profile_ids: Collection[UUID], *, now_us: int
) -> list[tuple[UUID, Previewed]]:
    """Evaluate some profiles, and return of each the segments that it is in."""
    parameters = {**statement.parameters, "ids": list(profile_ids)}
    rows = await tx.rows(statement.sql, **_with_now(statement.sql, parameters, now_us))
    judges = {judge.segment_id: judge for judge in statement.judges}
    return [(row.profile_id, _previewed(judges[row.segment_id], row.entered_time)) for row in rows]


def _previewed(judge: Judge, entered_time: datetime | None) -> Previewed:
    return Previewed(judge.segment_id, judge.name, judge.rule_version, entered_time)


async def settle(
    tx: Transaction, statement: Statement, ids: Collection[UUID], *, moment: datetime, now_us: int
) -> list[Change]:
    """Evaluate the profiles behind some ids, keep the changes, and return them."""
    parameters = {**statement.parameters, "ids": list(ids)}
    rows = await tx.rows(statement.sql, **_with_now(statement.sql, parameters, now_us))
    await _keep_due(tx, [(row.profile_id, row.due_us, row.was_due_us) for row in rows], statement.every_segment)
    entered = [(s, row.profile_id) for row in rows if row.member != row.held for s in row.member if s not in row.held]
    left = [(s, row.profile_id) for row in rows if row.member != row.held for s in row.held if s not in row.member]
    if not entered and not left:
        return []
    judges = {judge.segment_id: judge for judge in statement.judges}
    applied = await tx.rows(
        _APPLY,
        entered=[segment_id for segment_id, _ in entered],
        entering=[profile_id for _, profile_id in entered],
        versions=[judges[segment_id].rule_version for segment_id, _ in entered],
        left=[segment_id for segment_id, _ in left],
        leaving=[profile_id for _, profile_id in left],
        moment=moment,
    )
    return [
        Change(
            segment_id=row.segment_id,
            name=judges[row.segment_id].name,
            rule_version=judges[row.segment_id].rule_version,
            profile_id=row.profile_id,
            member=row.member,
            revision=row.revision,
        )
        for row in applied
    ]


async def _keep_due(
    tx: Transaction, found: Collection[tuple[UUID, int | None, int | None]], every_segment: bool
) -> None:
    """Note when each profile is due next; one that is asked only some rules may have to wait for others."""
    later = {
        profile_id: due
        for profile_id, due, was_due in found
        if due is not None and (was_due is None or due < was_due or (every_segment and due != was_due))
    }
    if later:
        await tx.execute(_PUT_DUE, profiles=list(later), due=list(later.values()))
    never = [profile_id for profile_id, due, was_due in found if due is None and was_due is not None]
    if never and every_segment:
        await tx.execute("DELETE FROM due_profiles WHERE profile_id = ANY (CAST(:profiles AS uuid[]))", profiles=never)


def _with_now(sql: str, parameters: dict[str, Any], now_us: int) -> dict[str, Any]:
    """Add the moment, unless no rule asks for it."""
    return {**parameters, "now_us": now_us} if ":now_us" in sql else parameters
