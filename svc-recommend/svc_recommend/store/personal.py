# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-recommend."""

from collections.abc import Sequence
from uuid import UUID

from chassis.database import Transaction
from chassis.errors import Unavailable
from chassis.privacy import PersonalTable, PersonalTables


def personal_tables() -> PersonalTables:
    """Declare the tables. The notes about changes are taken away by the refresher within a second."""
    return PersonalTables(
        [PersonalTable("interactions")],
        impersonal=("history_changes", "items", "neighbourhoods", "refreshers", "revisions"),
        before=_wait_for_refresher,
        after=_have_forgotten,
    )


async def _wait_for_refresher(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """An erasure is not over before the refresher has let go: asked once more, it is answered only then."""
    waiting = await tx.value(
        "SELECT EXISTS (SELECT FROM history_changes WHERE forgotten_fragment_ids && CAST(:fragments AS uuid[]))",
        fragments=list(fragments),
    )
    if waiting:
        raise Unavailable("the refresher has yet to let go of a customer")


async def _have_forgotten(tx: Transaction, fragments: Sequence[UUID]) -> None:
    """Have the refresher let go of what it holds of fragments, and learn anew from what is left."""
    await tx.execute(
        """
        INSERT INTO history_changes (fragment_ids, item_ids, weights, last_times_us, forgotten_fragment_ids)
        VALUES ('{}', '{}', '{}', '{}', CAST(:fragments AS uuid[]))
        """,
        fragments=list(fragments),
    )
