# SPDX-License-Identifier: Apache-2.0
"""How PostgreSQL goes about the statements of a batch."""

from chassis.database import Transaction

# PostgreSQL keeps the plan of a statement for as long as nobody analyses the tables. One that was made while they were
# empty reads them from end to end, or holds all of them beside a loop, which is right for an empty table and ruinous
# for the import that fills it.
BY_INDEX = (
    "set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true), set_config('enable_material', 'off', true)"
)
"""Columns of a statement that looks for no row in particular."""


async def look_up_by_index(tx: Transaction) -> None:
    """Look rows up one by one until the end of the transaction: a batch is small, whatever the tables are."""
    await tx.execute(f"SELECT {BY_INDEX}")
