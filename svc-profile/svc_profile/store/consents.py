# SPDX-License-Identifier: Apache-2.0
"""What follows from the ledger: who shares whose answers, what devices repeat, and whose state is to be worked out."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.consent import Join
from svc_profile.domain.derived import base_of
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.flags import REFUSED, VERSION
from svc_profile.domain.profiles import KnownAs
from svc_profile.domain.purposes import State
from svc_profile.domain.reports import Reports, Span
from svc_profile.domain.statements import ReportKey
from svc_profile.domain.traits import Trait
from svc_profile.store.sealed import revealed

# A fragment without a row in fragment_profiles is its own profile. The profile's id is one of its fragments.
_CUSTOMERS = """
SELECT g.profile_id, ARRAY(
    SELECT g.profile_id UNION SELECT m.fragment_id FROM fragment_profiles m WHERE m.profile_id = g.profile_id
) AS fragments
FROM (
    SELECT DISTINCT coalesce(m.profile_id, f.fragment_id) AS profile_id
    FROM unnest(CAST(:fragments AS uuid[])) AS f (fragment_id) LEFT JOIN fragment_profiles m USING (fragment_id)
) AS g
"""

_JOINS = """
SELECT child AS one, parent AS other, claim_time_us AS time_us FROM links
WHERE child = ANY (CAST(:fragments AS uuid[])) AND eligible AND NOT refused
UNION ALL
SELECT m.hub, m.fragment_id, d.decided_time_us FROM decision_members m JOIN identity_decisions d USING (decision_id)
WHERE m.fragment_id = ANY (CAST(:fragments AS uuid[])) AND m.is_active AND m.side < 2
"""

_LOCK = """
SELECT fragment_id FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
ORDER BY fragment_id FOR NO KEY UPDATE
"""

_TRAITS = """
SELECT fragment_id, CAST(
    jsonb_strip_nulls(jsonb_build_object('birthday', traits -> 'birthday', 'age', traits -> 'age')) AS text
) AS traits
FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND traits ?| ARRAY['birthday', 'age']
"""

# Whatever is still flagged may be judged otherwise from now on, so a fold that was prepared before has to start again.
_SET_FLAGS = f"""
UPDATE fragments AS f SET flags = ((f.flags & ~CAST(:mask AS integer)) | g.flags) + {VERSION}
FROM unnest(CAST(:fragments AS uuid[]), CAST(:flags AS integer[])) AS g (fragment_id, flags)
WHERE f.fragment_id = g.fragment_id AND (f.flags & CAST(:mask AS integer) | g.flags) <> 0
RETURNING f.fragment_id, f.flags
"""  # noqa: S608  no data in it

_REFUSE = f"""
UPDATE fragments SET flags = (flags | {REFUSED}) + {VERSION} WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""  # noqa: S608  no data in it

_PUT_STATES = """
WITH given AS (
    SELECT fragment_id, string_to_array(granted, ',') AS granted, string_to_array(refused, ',') AS refused, restricted
    FROM unnest(
        CAST(:fragments AS uuid[]), CAST(:granted AS text[]), CAST(:refused AS text[]), CAST(:restricted AS boolean[])
    ) AS g (fragment_id, granted, refused, restricted)
)
INSERT INTO fragment_consents AS c (fragment_id, granted, refused, restricted, revision)
SELECT g.fragment_id, g.granted, g.refused, g.restricted, :revision
FROM given g LEFT JOIN fragment_consents k USING (fragment_id)
WHERE (g.granted, g.refused, g.restricted)
    IS DISTINCT FROM (coalesce(k.granted, '{}'), coalesce(k.refused, '{}'), coalesce(k.restricted, false))
ORDER BY g.fragment_id
ON CONFLICT (fragment_id) DO UPDATE SET
    granted = excluded.granted, refused = excluded.refused,
    restricted = excluded.restricted, revision = excluded.revision
RETURNING fragment_id
"""

_REPORT = """
INSERT INTO consent_reports AS r (fragment_id, device_id, purpose_id, granted_us, refused_us)
SELECT fragment_id, device_id, purpose_id, {granted}, {refused}
FROM unnest(
    CAST(:fragments AS uuid[]), CAST(:devices AS uuid[]), CAST(:purposes AS text[]),
    CAST(:g1 AS bigint[]), CAST(:g2 AS bigint[]), CAST(:g3 AS bigint[]), CAST(:g4 AS bigint[]),
    CAST(:r1 AS bigint[]), CAST(:r2 AS bigint[]), CAST(:r3 AS bigint[]), CAST(:r4 AS bigint[])
) AS g (fragment_id, device_id, purpose_id, g1, g2, g3, g4, r1, r2, r3, r4)
ORDER BY fragment_id, device_id, purpose_id
ON CONFLICT (fragment_id, device_id, purpose_id) DO UPDATE SET
    granted_us = {joined_granted}, refused_us = {joined_refused}
RETURNING new.fragment_id, new.device_id, new.purpose_id, new.granted_us, new.refused_us,
    old.granted_us AS old_granted_us, old.refused_us AS old_refused_us
"""


def _span(prefix: str) -> str:
    return f"CASE WHEN {prefix}1 IS NULL THEN NULL ELSE ARRAY[{prefix}1, {prefix}2, {prefix}3, {prefix}4] END"


def _joined(column: str) -> str:
    parts = ", ".join(
        f"{function}(r.{column}[{place}], excluded.{column}[{place}])"
        for place, function in enumerate(("least", "greatest", "least", "greatest"), 1)
    )
    return f"CASE WHEN r.{column} IS NULL AND excluded.{column} IS NULL THEN NULL ELSE ARRAY[{parts}] END"


_REPORTS = _REPORT.format(
    granted=_span("g"), refused=_span("r"), joined_granted=_joined("granted_us"), joined_refused=_joined("refused_us")
)

_TAKE_DUE = """
DELETE FROM consent_due WHERE due_id = ANY (ARRAY(
    SELECT due_id FROM consent_due ORDER BY due_id LIMIT :most FOR UPDATE SKIP LOCKED
)) RETURNING fragment_id
"""

_PUT_EXPIRIES = """
INSERT INTO consent_expiries AS e (fragment_id, purpose_id, expires_us)
SELECT * FROM unnest(CAST(:fragments AS uuid[]), CAST(:purposes AS text[]), CAST(:expires AS bigint[]))
ORDER BY 1, 2
ON CONFLICT (fragment_id, purpose_id) DO UPDATE SET expires_us = excluded.expires_us, announced = false
WHERE e.expires_us <> excluded.expires_us
"""

# Whoever moves, the profiles that they come to and those that they leave. What was said under one fragment stands
# under all fragments of its customer, so that looking at these is enough.
_RELINKED = """
INSERT INTO consent_due (fragment_id)
SELECT f FROM (
    SELECT unnest(CAST(:fragments AS uuid[])) AS f
    UNION SELECT unnest(CAST(:profiles AS uuid[]))
    UNION SELECT profile_id FROM fragment_profiles WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
) AS g
WHERE EXISTS (SELECT FROM fragment_consents WHERE fragment_id = f)
    OR EXISTS (SELECT FROM consent_ledger WHERE fragment_id = f)
"""

_EXPIRED = """
SELECT DISTINCT fragment_id FROM (
    SELECT fragment_id FROM consent_expiries WHERE expires_us <= :now_us ORDER BY expires_us LIMIT :most
) AS e
"""

_EXPIRING = """
UPDATE consent_expiries SET announced = true
WHERE (fragment_id, purpose_id) IN (
    SELECT fragment_id, purpose_id FROM consent_expiries
    WHERE expires_us > :now_us AND expires_us <= :until_us AND NOT announced ORDER BY expires_us LIMIT :most
)
RETURNING fragment_id, purpose_id, expires_us
"""

_decode_traits = msgspec.json.Decoder(dict[str, Trait]).decode


class ConsentStore:
    """Reads and writes what follows from the ledger."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def customers(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, list[FragmentKey]]:
        """Return the customers whom some fragments belong to, each with all its fragments."""
        if not fragments:
            return {}
        rows = await self._tx.rows(_CUSTOMERS, fragments=[UUID(each) for each in fragments])
        return {row.profile_id.bytes: [each.bytes for each in row.fragments] for row in rows}

    async def joins(self, fragments: Collection[FragmentKey]) -> list[Join]:
        """Return from when on fragments are known to be one customer."""
        rows = await self._tx.rows(_JOINS, fragments=[UUID(each) for each in fragments])
        return [Join(row.one.bytes, row.other.bytes, row.time_us) for row in rows]

    async def bases(self, fragments: Collection[FragmentKey]) -> set[FragmentKey]:
        """Return the identifiers whose events derived ones of some fragments hold."""
        rows = await self._tx.rows(
            "SELECT value FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND namespace = :derived",
            fragments=[UUID(each) for each in fragments],
            derived=DERIVED,
        )
        return {base_of(row.value) for row in rows}

    async def flags(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, int]:
        """Return the flags of identifiers' own fragments."""
        rows = await self._tx.rows(
            "SELECT fragment_id, flags FROM fragments"
            " WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND namespace <> :derived",
            fragments=[UUID(each) for each in fragments],
            derived=DERIVED,
        )
        return {row.fragment_id.bytes: row.flags for row in rows}

    async def earliest_received(self, fragments: Collection[FragmentKey], since_us: int) -> int | None:
        """Return the earliest event time of what some fragments received from a time on, None when that is nothing."""
        value: int | None = await self._tx.value(
            "SELECT min(time_us) FROM events WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))"
            " AND payload IS NOT NULL AND received_time_us >= :since_us",
            fragments=[UUID(each) for each in fragments],
            since_us=since_us,
        )
        return value

    async def lock(self, fragments: Collection[FragmentKey]) -> set[FragmentKey]:
        """Lock fragments in key order; returns those that exist."""
        rows = await self._tx.rows(_LOCK, fragments=[UUID(each) for each in fragments])
        return {row.fragment_id.bytes for row in rows}

    async def ages(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, dict[str, Trait]]:
        """Return the traits `birthday` and `age` of fragments that have one."""
        if not fragments:
            return {}
        rows = await self._tx.rows(_TRAITS, fragments=[UUID(each) for each in fragments])
        rows = await revealed(self._tx, rows, {}, {"traits": "fragment_id"})
        return {row.fragment_id.bytes: _decode_traits(row.traits) for row in rows}

    async def names(self, fragments: Collection[FragmentKey]) -> dict[FragmentKey, KnownAs]:
        """Return the identifiers that fragments are known by."""
        if not fragments:
            return {}
        rows = await self._tx.rows(
            """
            SELECT fragment_id, namespace, value, first_seen_us, last_seen_us FROM fragments
            WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
            """,
            fragments=[UUID(each) for each in fragments],
        )
        rows = await revealed(self._tx, rows, {"value": "fragment_id"})
        return {row.fragment_id.bytes: _known_as(row) for row in rows}

    async def set_flags(self, flags: Mapping[FragmentKey, int], mask: int) -> dict[FragmentKey, int]:
        """Set the flags under a mask; returns all flags of the fragments that have, or had, one of these."""
        if not flags:
            return {}
        keys = sorted(flags)
        rows = await self._tx.rows(
            _SET_FLAGS, fragments=[UUID(key) for key in keys], flags=[flags[key] for key in keys], mask=mask
        )
        return {row.fragment_id.bytes: row.flags for row in rows}

    async def next_revision(self) -> int:
        """Return a revision that is higher than every one before."""
        return int(await self._tx.value("SELECT nextval('consent_revisions')"))

    async def put_states(self, states: Mapping[FragmentKey, State], revision: int) -> set[FragmentKey]:
        """Write what holds for fragments; returns those for which something else held before."""
        if not states:
            return set()
        keys = sorted(states)
        rows = await self._tx.rows(
            _PUT_STATES,
            fragments=[UUID(key) for key in keys],
            granted=[",".join(states[key].granted) for key in keys],
            refused=[",".join(states[key].refused) for key in keys],
            restricted=[states[key].restricted for key in keys],
            revision=revision,
        )
        return {row.fragment_id.bytes for row in rows}

    async def report(self, reports: Mapping[ReportKey, Reports]) -> dict[ReportKey, tuple[Reports, Reports]]:
        """Add what devices reported; returns what was known of each before and what is known now."""
        if not reports:
            return {}
        keys = sorted(reports)
        rows = await self._tx.rows(
            _REPORTS,
            fragments=[UUID(fragment) for fragment, _, _ in keys],
            devices=[UUID(device) for _, device, _ in keys],
            purposes=[purpose_id for _, _, purpose_id in keys],
            **_columns("g", [reports[key].granted for key in keys]),
            **_columns("r", [reports[key].refused for key in keys]),
        )
        return {
            (row.fragment_id.bytes, row.device_id.bytes, row.purpose_id): (
                _reports(row.old_granted_us, row.old_refused_us),
                _reports(row.granted_us, row.refused_us),
            )
            for row in rows
        }

    async def reported(self, keys: Collection[ReportKey]) -> dict[ReportKey, Reports]:
        """Return what devices reported so far."""
        if not keys:
            return {}
        rows = await self._tx.rows(
            """
            SELECT r.* FROM unnest(
                CAST(:fragments AS uuid[]), CAST(:devices AS uuid[]), CAST(:purposes AS text[])
            ) AS g (fragment_id, device_id, purpose_id)
            JOIN consent_reports r USING (fragment_id, device_id, purpose_id)
            """,
            fragments=[UUID(fragment) for fragment, _, _ in keys],
            devices=[UUID(device) for _, device, _ in keys],
            purposes=[purpose_id for _, _, purpose_id in keys],
        )
        return {
            (row.fragment_id.bytes, row.device_id.bytes, row.purpose_id): _reports(row.granted_us, row.refused_us)
            for row in rows
        }

    async def note_relinked(self, fragments: Collection[FragmentKey], profiles: Collection[FragmentKey]) -> None:
        """Note that links of fragments changed, and profiles that some are about to move to, where anybody of these
        ever said anything."""
        if fragments:
            await self._tx.execute(
                _RELINKED, fragments=[UUID(each) for each in fragments], profiles=[UUID(each) for each in profiles]
            )

    async def refuse(self, fragments: Collection[FragmentKey]) -> None:
        """Flag fragments, whose rows are locked already, as those of somebody who refuses to be analysed."""
        if fragments:
            await self._tx.execute(_REFUSE, fragments=[UUID(each) for each in fragments])

    async def is_granted_by_default(self, purpose_id: str) -> bool:
        """Tell whether a purpose is granted by somebody who said nothing."""
        return bool(
            await self._tx.value("SELECT granted_by_default FROM purposes WHERE purpose_id = :id", id=purpose_id)
        )

    async def note_due(self, fragments: Collection[FragmentKey]) -> None:
        """Note whose state has to be worked out again."""
        if fragments:
            await self._tx.execute(
                "INSERT INTO consent_due (fragment_id) SELECT unnest(CAST(:fragments AS uuid[]))",
                fragments=[UUID(each) for each in fragments],
            )

    async def note_all_due(self, purpose_id: str) -> None:
        """Note that the state of everybody is due who ever said anything about a purpose."""
        await self._tx.execute(
            """
            INSERT INTO consent_due (fragment_id)
            SELECT DISTINCT fragment_id FROM consent_ledger WHERE purpose_id = :purpose_id AND fragment_id IS NOT NULL
            """,
            purpose_id=purpose_id,
        )

    async def take_due(self, most: int) -> set[FragmentKey]:
        """Take fragments whose state has to be worked out; they are gone if the transaction commits."""
        return {row.fragment_id.bytes for row in await self._tx.rows(_TAKE_DUE, most=most)}

    async def put_expiries(
        self, fragments: Collection[FragmentKey], expiries: Mapping[tuple[FragmentKey, str], int]
    ) -> None:
        """Write when the grants of some fragments end, in place of what was written before."""
        await self._tx.execute(
            """
            DELETE FROM consent_expiries e WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND NOT EXISTS (
                SELECT FROM unnest(CAST(:kept AS uuid[]), CAST(:purposes AS text[])) AS k (fragment_id, purpose_id)
                WHERE k.fragment_id = e.fragment_id AND k.purpose_id = e.purpose_id
            )
            """,
            fragments=[UUID(each) for each in fragments],
            kept=[UUID(fragment) for fragment, _ in expiries],
            purposes=[purpose_id for _, purpose_id in expiries],
        )
        if expiries:
            await self._tx.execute(
                _PUT_EXPIRIES,
                fragments=[UUID(fragment) for fragment, _ in expiries],
                purposes=[purpose_id for _, purpose_id in expiries],
                expires=list(expiries.values()),
            )

    async def expired(self, now_us: int, most: int) -> list[FragmentKey]:
        """Return some fragments of which a grant has ended."""
        return [row.fragment_id.bytes for row in await self._tx.rows(_EXPIRED, now_us=now_us, most=most)]

    async def take_expiring(self, now_us: int, until_us: int, most: int) -> list[tuple[FragmentKey, str, int]]:
        """Return some grants that end soon and were not announced yet."""
        rows = await self._tx.rows(_EXPIRING, now_us=now_us, until_us=until_us, most=most)
        return [(row.fragment_id.bytes, row.purpose_id, row.expires_us) for row in rows]


def _columns(prefix: str, spans: Sequence[Span | None]) -> dict[str, list[int | None]]:
    return {
        f"{prefix}1": [span.first_us if span else None for span in spans],
        f"{prefix}2": [span.last_us if span else None for span in spans],
        f"{prefix}3": [span.first_received_us if span else None for span in spans],
        f"{prefix}4": [span.last_received_us if span else None for span in spans],
    }


def _reports(granted: Any, refused: Any) -> Reports:
    return Reports(Span(*granted) if granted else None, Span(*refused) if refused else None)


def _known_as(row: Any) -> KnownAs:
    return KnownAs(row.fragment_id.bytes, row.namespace, row.value, row.first_seen_us, row.last_seen_us)
