# SPDX-License-Identifier: Apache-2.0
"""The rules as this service heard them, and the record of what they did here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dangol.profile.v1.retention_pb2 import RETENTION_ACTION_ANONYMISE, RetentionRulesChanged

from chassis.database import Transaction
from chassis.retention.rules import Due, RetentionRule
from chassis.streams import Subscription

_PUT = """
INSERT INTO heard_retention_rules (rule_id, event, purpose_id, days, anonymise)
SELECT * FROM unnest(
    CAST(:ids AS text[]), CAST(:events AS text[]), CAST(:purposes AS text[]), CAST(:days AS integer[]),
    CAST(:anonymise AS boolean[])
)
"""

# A run that was broken off goes on with its own salt, and never further than the rule reaches now.
_BEGIN = """
INSERT INTO retention_runs AS r (rule_id, table_name, before_us, salt)
VALUES (:rule_id, :table_name, :before_us, :salt)
ON CONFLICT (rule_id, table_name) DO UPDATE SET
    start_time = CASE WHEN r.end_time IS NULL THEN r.start_time ELSE now() END,
    touched_count = CASE WHEN r.end_time IS NULL THEN r.touched_count ELSE 0 END,
    before_us = CASE WHEN r.end_time IS NULL THEN least(r.before_us, excluded.before_us) ELSE excluded.before_us END,
    salt = coalesce(r.salt, excluded.salt),
    end_time = NULL
RETURNING before_us, salt
"""


@dataclass(frozen=True)
class Run:
    """One rule enforced on one table, the last time."""

    rule_id: str
    table: str
    start: datetime
    end: datetime | None
    before_us: int
    touched_count: int
    total_count: int


async def learn_rules(tx: Transaction, messages: Sequence[RetentionRulesChanged]) -> None:
    """Keep the rules of the highest revision."""
    newest = max(messages, key=lambda message: message.revision)
    taken = await tx.execute(
        "UPDATE heard_retention_revision SET revision = :revision WHERE revision < :revision", revision=newest.revision
    )
    if not taken:
        return
    rules = newest.retention_rules
    await tx.execute("DELETE FROM heard_retention_rules")
    await tx.execute(
        _PUT,
        ids=[rule.rule_id for rule in rules],
        events=[rule.event for rule in rules],
        purposes=[rule.purpose_id for rule in rules],
        days=[rule.days for rule in rules],
        anonymise=[rule.action == RETENTION_ACTION_ANONYMISE for rule in rules],
    )
    await tx.execute("DELETE FROM retention_runs WHERE rule_id NOT IN (SELECT rule_id FROM heard_retention_rules)")


async def read_rules(tx: Transaction) -> list[RetentionRule]:
    """Return the rules: what is destroyed first, so that nothing is anonymised for nothing."""
    rows = await tx.rows("SELECT * FROM heard_retention_rules ORDER BY anonymise, rule_id")
    return [RetentionRule(row.rule_id, row.event, row.purpose_id, row.days, row.anonymise) for row in rows]


async def begin(tx: Transaction, due: Due, table: str) -> tuple[int, bytes]:
    """Begin a run or go on with one; returns up to when, and its salt."""
    row = await tx.row(_BEGIN, rule_id=due.rule.rule_id, table_name=table, before_us=due.before_us, salt=os.urandom(16))
    assert row is not None
    return row.before_us, bytes(row.salt)


async def note_progress(tx: Transaction, due: Due, table: str, touched: int) -> None:
    """Note what a step of a run touched; a step that touched nothing was the last, and the salt is gone with it."""
    await tx.execute(
        """
        UPDATE retention_runs SET touched_count = touched_count + :touched, total_count = total_count + :touched,
            end_time = CASE WHEN :done THEN now() END, salt = CASE WHEN :done THEN NULL ELSE salt END
        WHERE rule_id = :rule_id AND table_name = :table_name
        """,
        touched=touched,
        done=not touched,
        rule_id=due.rule.rule_id,
        table_name=table,
    )


async def list_runs(tx: Transaction) -> list[Run]:
    """Return the last run of each rule on each table."""
    return [
        Run(
            row.rule_id,
            row.table_name,
            row.start_time,
            row.end_time,
            row.before_us,
            row.touched_count,
            row.total_count,
        )
        for row in await tx.rows("SELECT * FROM retention_runs ORDER BY table_name, rule_id")
    ]


SUBSCRIPTIONS = (Subscription(RetentionRulesChanged, learn_rules, name="retention-rules"),)
"""What every service with a database hears."""
