# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-recommend."""

from collections.abc import Sequence
from uuid import UUID

from chassis.database import Transaction
from chassis.privacy import PersonalTable, PersonalTables


def personal_tables() -> PersonalTables:
    """Declare the tables. The notes about changes are taken away by the refresher within a second."""
    return PersonalTables(
        [PersonalTable("interactions")],
        impersonal=("history_changes", "items", "neighbourhoods", "refreshers", "revisions"),
        after=_have_forgotten,
    )


async def _have_forgotten(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Have the refresher let go of what it holds of fragments, and learn anew from what is left."""
    await tx.execute(
        """
        INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, forgotten_fragment_ids)
        VALUES ('{}', '{}', '{}', '{}', CAST(:fragments AS uuid[]))
        """,
        fragments=list(fragments),
    )
