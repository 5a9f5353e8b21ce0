# SPDX-License-Identifier: Apache-2.0
"""The catalogue of purposes."""

from collections.abc import Sequence
from typing import Any

from chassis.clock import to_us
from chassis.database import Transaction

from svc_profile.domain.purposes import Notice, Purpose

_READ = """
SELECT p.*, n.versions, n.locales, n.titles, n.bodies, n.effective_us
FROM purposes p LEFT JOIN LATERAL (
    SELECT array_agg(version ORDER BY version, locale) AS versions,
        array_agg(locale ORDER BY version, locale) AS locales,
        array_agg(title ORDER BY version, locale) AS titles, array_agg(body ORDER BY version, locale) AS bodies,
        array_agg(effective_us ORDER BY version, locale) AS effective_us
    FROM purpose_notices WHERE purpose_id = p.purpose_id
) AS n ON true
WHERE CAST(:purpose_id AS text) = '' OR p.purpose_id = :purpose_id
ORDER BY p.purpose_id COLLATE "C"
"""

_PUT = """
INSERT INTO purposes AS p (
    purpose_id, display_name, kind, legal_basis, granted_by_default, expiry_months, minimum_age, categories, revision
) VALUES (
    :purpose_id, :display_name, :kind, :legal_basis, :granted_by_default, :expiry_months, :minimum_age,
    CAST(:categories AS text[]), nextval('consent_revisions')
)
ON CONFLICT (purpose_id) DO UPDATE SET
    display_name = excluded.display_name, kind = excluded.kind, legal_basis = excluded.legal_basis,
    granted_by_default = excluded.granted_by_default, expiry_months = excluded.expiry_months,
    minimum_age = excluded.minimum_age, categories = excluded.categories, updated_time = now(),
    revision = excluded.revision,
    default_since_us = CASE WHEN p.granted_by_default = excluded.granted_by_default THEN p.default_since_us
        ELSE CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) END
RETURNING revision
"""

_PUT_NOTICES = """
INSERT INTO purpose_notices (purpose_id, version, locale, title, body, effective_us)
SELECT :purpose_id, * FROM unnest(
    CAST(:versions AS integer[]), CAST(:locales AS text[]), CAST(:titles AS text[]), CAST(:bodies AS text[]),
    CAST(:effective AS bigint[])
)
ON CONFLICT (purpose_id, version, locale) DO NOTHING
"""


class PurposeStore:
    """Keeps purposes and their notices."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def all(self) -> list[Purpose]:
        """Return all purposes by id."""
        return [_read(row) for row in await self._tx.rows(_READ, purpose_id="")]

    async def find(self, purpose_id: str) -> Purpose | None:
        """Return a purpose, None when there is none."""
        row = await self._tx.row(_READ, purpose_id=purpose_id) if purpose_id else None
        return None if row is None else _read(row)

    async def lock(self, purpose_id: str) -> None:
        """Be the only one who changes a purpose until the end of the transaction."""
        await self._tx.execute("SELECT pg_advisory_xact_lock(10, hashtext(:id))", id=purpose_id)

    async def put(self, purpose: Purpose) -> int:
        """Write a purpose and the notices that are new; returns its revision."""
        revision = await self._tx.value(
            _PUT,
            purpose_id=purpose.purpose_id,
            display_name=purpose.display_name,
            kind=purpose.kind,
            legal_basis=purpose.legal_basis,
            granted_by_default=purpose.granted_by_default,
            expiry_months=purpose.expiry_months,
            minimum_age=purpose.minimum_age,
            categories=list(purpose.categories),
        )
        await self._put_notices(purpose.purpose_id, purpose.notices)
        return int(revision)

    async def _put_notices(self, purpose_id: str, notices: Sequence[Notice]) -> None:
        if notices:
            await self._tx.execute(
                _PUT_NOTICES,
                purpose_id=purpose_id,
                versions=[notice.version for notice in notices],
                locales=[notice.locale for notice in notices],
                titles=[notice.title for notice in notices],
                bodies=[notice.body for notice in notices],
                effective=[notice.effective_us for notice in notices],
            )


def _read(row: Any) -> Purpose:
    texts = zip(
        row.versions or (), row.locales or (), row.titles or (), row.bodies or (), row.effective_us or (), strict=True
    )
    return Purpose(
        purpose_id=row.purpose_id,
        display_name=row.display_name,
        kind=row.kind,
        legal_basis=row.legal_basis,
        granted_by_default=row.granted_by_default,
        expiry_months=row.expiry_months,
        minimum_age=row.minimum_age,
        categories=tuple(row.categories),
        notices=tuple(Notice(*each) for each in texts),
        updated_us=to_us(row.updated_time),
        default_since_us=row.default_since_us,
    )
