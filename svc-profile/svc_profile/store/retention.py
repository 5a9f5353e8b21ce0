# SPDX-License-Identifier: Apache-2.0
"""Rules of retention, and the events whose time is over."""

import os
from collections.abc import Collection, Sequence
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row, opened
from chassis.retention import CONCERNED, Due

from svc_profile.domain.fates import Fate
from svc_profile.domain.retention import DueEvent, Rule
from svc_profile.store.sealed import EVENTS

_PUT = """
INSERT INTO retention_rules (rule_id, event, purpose_id, days, action, updated_us)
VALUES (:rule_id, :event, :purpose_id, :days, :action, :updated_us)
ON CONFLICT (rule_id) DO UPDATE SET
    event = excluded.event, purpose_id = excluded.purpose_id, days = excluded.days, action = excluded.action,
    updated_us = excluded.updated_us
"""

# From name to name in the index, so that a billion events of twenty names cost twenty steps.
_NAMES = """
WITH RECURSIVE kept AS (
    (
        SELECT hashtextextended(name, 0) AS hash, name, time_us FROM events WHERE fragment_id IS NOT NULL
        ORDER BY hashtextextended(name, 0), time_us LIMIT 1
    )
    UNION ALL
    SELECT n.* FROM kept CROSS JOIN LATERAL (
        SELECT hashtextextended(name, 0) AS hash, name, time_us FROM events
        WHERE fragment_id IS NOT NULL AND hashtextextended(name, 0) > kept.hash
        ORDER BY hashtextextended(name, 0), time_us LIMIT 1
    ) AS n
)
SELECT name FROM kept WHERE time_us < :before_us AND name <> ALL (CAST(:but AS text[]))
"""

_DUE = f"""
FROM unnest(CAST(:names AS text[])) AS g (n) CROSS JOIN LATERAL (
    SELECT event_key FROM events
    WHERE fragment_id IS NOT NULL AND hashtextextended(name, 0) = hashtextextended(g.n, 0) AND name = g.n
        AND time_us < :before_us AND {CONCERNED.format(fragment="events.fragment_id")}
    ORDER BY time_us LIMIT :most
) AS due
"""  # noqa: S608  no data in it

# Who is at one of them now has it; its turn comes the next time.
_TAKE = f"""
SELECT event_key, fragment_id, time_us, received_time_us, name, payload FROM events
WHERE event_key = ANY (ARRAY(SELECT due.event_key {_DUE} LIMIT :most)) AND fragment_id IS NOT NULL
FOR UPDATE SKIP LOCKED
"""  # noqa: S608

_COUNT = f"SELECT count(*) {_DUE.replace('ORDER BY time_us LIMIT :most', '')}"

_EXPIRE = f"""
UPDATE events SET payload = NULL, fragment_id = NULL, fate = {int(Fate.EXPIRED)}
WHERE event_key = ANY (CAST(:keys AS uuid[]))
"""  # noqa: S608

_KEEP_ANONYMOUS = f"""
INSERT INTO events (event_key, batch_id, fragment_id, time_us, received_time_us, name, payload, fate)
SELECT event_key, gen_random_uuid(), NULL, time_us, received_time_us, name, payload, {int(Fate.ANONYMISED)}
FROM unnest(
    CAST(:keys AS uuid[]), CAST(:times AS bigint[]), CAST(:received AS bigint[]), CAST(:names AS text[]),
    CAST(:payloads AS bytea[])
) AS g (event_key, time_us, received_time_us, name, payload)
"""  # noqa: S608


class RetentionRuleStore:
    """Keeps the rules."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def lock(self) -> None:
        """Be the only one who changes rules until the end of the transaction."""
        await self._tx.execute("SELECT pg_advisory_xact_lock(10, hashtext('retention_rules'))")

    async def all(self) -> list[Rule]:
        """Return all rules by event, purpose and action."""
        sql = 'SELECT * FROM retention_rules ORDER BY event COLLATE "C", purpose_id COLLATE "C", action'
        return [_read(row) for row in await self._tx.rows(sql)]

    async def find(self, rule_id: str) -> Rule | None:
        """Return a rule, None when there is none."""
        row = await self._tx.row("SELECT * FROM retention_rules WHERE rule_id = :rule_id", rule_id=rule_id)
        return _read(row) if row else None

    async def find_same(self, rule: Rule) -> Rule | None:
        """Return another rule about the same."""
        row = await self._tx.row(
            """
            SELECT * FROM retention_rules
            WHERE event = :event AND purpose_id = :purpose_id AND action = :action AND rule_id <> :rule_id
            """,
            event=rule.event,
            purpose_id=rule.purpose_id,
            action=rule.action,
            rule_id=rule.rule_id,
        )
        return _read(row) if row else None

    async def put(self, rule: Rule) -> None:
        """Write a rule."""
        await self._tx.execute(
            _PUT,
            rule_id=rule.rule_id,
            event=rule.event,
            purpose_id=rule.purpose_id,
            days=rule.days,
            action=rule.action,
            updated_us=rule.updated_us,
        )

    async def delete(self, rule_id: str) -> bool:
        """Remove a rule; false when there is none."""
        return bool(await self._tx.execute("DELETE FROM retention_rules WHERE rule_id = :rule_id", rule_id=rule_id))

    async def next_revision(self) -> int:
        """Return a number that is higher than all before."""
        return int(await self._tx.value("SELECT nextval('retention_revisions')"))


class DueEventStore:
    """Finds events whose time is over, and lets go of them."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def count(self, due: Due) -> int:
        """Return how many events a rule is about now."""
        return int(await self._tx.value(_COUNT, **await self._given(due)))

    async def take(self, due: Due, most: int) -> list[DueEvent]:
        """Return some of the events a rule is about now, locked."""
        rows = await self._tx.rows(_TAKE, **await self._given(due), most=most)
        payloads = await opened(self._tx, [Row(EVENTS, row.event_key.bytes, row.payload) for row in rows])
        return [
            DueEvent(
                row.event_key.bytes,
                row.fragment_id.bytes,
                row.time_us,
                row.received_time_us,
                row.name,
                payload or b"",
            )
            for row, payload in zip(rows, payloads, strict=True)
        ]

    async def expire(self, event_keys: Collection[bytes]) -> None:
        """Keep no more of events than their keys, for as long as a repetition may come."""
        await self._tx.execute(_EXPIRE, keys=[UUID(key) for key in event_keys])

    async def keep_anonymous(self, events: Sequence[DueEvent]) -> None:
        """Keep events that are nobody's, under keys that tell nothing."""
        keys, seal = [os.urandom(16) for _ in events], self._tx.sealer.seal
        await self._tx.execute(
            _KEEP_ANONYMOUS,
            keys=[UUID(key) for key in keys],
            times=[event.time_us for event in events],
            received=[event.received_time_us for event in events],
            names=[event.name for event in events],
            payloads=[seal(EVENTS, key, event.payload) for key, event in zip(keys, events, strict=True)],
        )

    async def _given(self, due: Due) -> dict[str, Any]:
        names = due.names or [
            row.name for row in await self._tx.rows(_NAMES, before_us=due.before_us, but=list(due.but))
        ]
        return {"names": list(names), "before_us": due.before_us, "purpose": due.rule.purpose_id}


def _read(row: Any) -> Rule:
    return Rule(row.rule_id, row.event, row.purpose_id, row.days, row.action, row.updated_us)
