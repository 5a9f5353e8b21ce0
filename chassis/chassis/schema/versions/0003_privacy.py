# SPDX-License-Identifier: Apache-2.0
"""Fragments that were forgotten, so that events of them that are still on their way are dropped."""

from alembic import op

revision = "chassis_0003"
down_revision = "chassis_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE forgotten_fragments (
            fragment_id uuid PRIMARY KEY,
            forgotten_time timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute("CREATE INDEX forgotten_fragments_time ON forgotten_fragments (forgotten_time)")
    # Grows by one with every change, so that each process knows when to read them again.
    op.execute(
        """
        CREATE TABLE forgotten_revision (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            revision bigint NOT NULL
        )
        """
    )
    op.execute("INSERT INTO forgotten_revision (revision) VALUES (0)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE forgotten_revision, forgotten_fragments")
