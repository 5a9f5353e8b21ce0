# SPDX-License-Identifier: Apache-2.0
"""Decisions of people about identity."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE identity_decisions (
            decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL,
            actor text NOT NULL,
            reason text NOT NULL,
            decided_time_us bigint NOT NULL,
            revoked_time_us bigint,
            revoked_by text,
            revoked_reason text
        )
        """
    )
    # Each side of a decision has a hub, so that from any of its fragments all others are two steps away.
    op.execute(
        """
        CREATE TABLE decision_members (
            decision_id bigint NOT NULL REFERENCES identity_decisions,
            fragment_id uuid NOT NULL,
            side smallint NOT NULL,
            hub uuid NOT NULL,
            is_active boolean NOT NULL DEFAULT true,
            PRIMARY KEY (decision_id, fragment_id)
        )
        """
    )
    op.execute("CREATE INDEX decision_members_fragment ON decision_members (fragment_id, is_active)")
    op.execute("CREATE INDEX decision_members_hub ON decision_members (hub) WHERE is_active")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE decision_members, identity_decisions")
