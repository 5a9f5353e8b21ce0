# SPDX-License-Identifier: Apache-2.0
"""What svc-profile said of retention, and what came of it here."""

from alembic import op

revision = "chassis_0004"
down_revision = "chassis_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE heard_retention_rules (
            rule_id text PRIMARY KEY,
            event text NOT NULL,
            purpose_id text NOT NULL,
            days integer NOT NULL,
            anonymise boolean NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE heard_retention_revision (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            revision bigint NOT NULL
        )
        """
    )
    op.execute("INSERT INTO heard_retention_revision (revision) VALUES (0)")
    # The last run of each rule on each table. The salt lives as long as the run: while it does, and no longer, the same
    # customer is given the same unknown.
    op.execute(
        """
        CREATE TABLE retention_runs (
            rule_id text NOT NULL,
            table_name text NOT NULL,
            start_time timestamptz NOT NULL DEFAULT now(),
            end_time timestamptz,
            before_us bigint NOT NULL,
            touched_count bigint NOT NULL DEFAULT 0,
            total_count bigint NOT NULL DEFAULT 0,
            salt bytea,
            PRIMARY KEY (rule_id, table_name)
        )
        """
    )


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE retention_runs, heard_retention_revision, heard_retention_rules")
