# SPDX-License-Identifier: Apache-2.0
"""Which traits svc-profile said are personal."""

from alembic import op

revision = "chassis_0005"
down_revision = "chassis_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE heard_personal_traits (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            names text[] NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute("INSERT INTO heard_personal_traits (names, revision) VALUES ('{}', 0)")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE heard_personal_traits")
