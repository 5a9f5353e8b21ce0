# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-segmentation."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from chassis.database import Transaction
from chassis.privacy import PersonalTable, PersonalTables
from chassis.privacy.tables import by_profile

from svc_segmentation.store.locks import hold_evaluation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def personal_tables() -> PersonalTables:
    """Declare the tables. Behaviour is kept by fragment, memberships by customer."""
    return PersonalTables(
        [
            PersonalTable("changed_fragments", exported=False),
            by_profile("due_profiles", exported=False),
            PersonalTable("event_days", left_out=("event_key", "older_amounts"), present=_readable_day),
            PersonalTable("fragment_traits", left_out=("decided_traits", "decided_revision"), present=_readable_traits),
            by_profile("memberships", on_rebuild=False, left_out=("revision",)),
            by_profile("membership_history", on_rebuild=False, left_out=("revision",)),
        ],
        impersonal=("segments", "rule_set"),
        before=_hold_evaluation,
        after=_have_evaluated,
    )


async def _hold_evaluation(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Nobody may work out memberships from what is just being removed."""
    await hold_evaluation(tx)


async def _have_evaluated(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Have customers evaluated who lost a fragment's data and keep others; of an erased one nothing is left to find."""
    await tx.execute(
        """
        INSERT INTO changed_fragments
        SELECT fragment_id FROM fragment_profiles WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
        """,
        fragments=list(fragments),
    )


def _readable_day(row: dict[str, Any]) -> Mapping[str, Any]:
    day = (_EPOCH + timedelta(days=row.pop("day"))).date().isoformat()
    times = [(_EPOCH + timedelta(microseconds=us)).isoformat() for us in row.pop("times_us")]
    return {"day": day, "times": times, **row}


def _readable_traits(row: dict[str, Any]) -> Mapping[str, Any]:
    return {"fragment_id": row["fragment_id"], **{name: stated[0] for name, stated in row["traits"].items()}}
