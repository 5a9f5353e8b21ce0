# SPDX-License-Identifier: Apache-2.0
"""Revisions: how processes that keep rows in memory find out what changed."""

from collections.abc import Mapping
from dataclasses import dataclass

from chassis.database import Transaction


@dataclass(frozen=True, order=True)
class Position:
    """How far a table was read, by revision and then by item."""

    revision: int = 0
    item_id: str = ""


async def next_revision(tx: Transaction, name: str) -> int:
    """Count a table's revision up; whoever does so next waits until this transaction ends."""
    revision: int = await tx.value(
        "UPDATE revisions SET revision = revision + 1 WHERE name = :name RETURNING revision", name=name
    )
    return revision


async def current_revisions(tx: Transaction) -> Mapping[str, int]:
    """Return the revision of each table."""
    return {row.name: row.revision for row in await tx.rows("SELECT name, revision FROM revisions")}
