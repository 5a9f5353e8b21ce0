# SPDX-License-Identifier: Apache-2.0
"""Feedback, with what was understood of it."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.execute(
        """
        CREATE TABLE feedback (
            feedback_id text PRIMARY KEY,
            request_id text UNIQUE,
            fragment_id uuid,
            kind smallint NOT NULL,
            rating smallint,
            text text NOT NULL,
            item_id text NOT NULL,
            language text NOT NULL,
            sentiment smallint NOT NULL,
            sentiment_details jsonb,
            source text NOT NULL,
            feedback_time timestamptz NOT NULL,
            received_time timestamptz NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX feedback_newest ON feedback (feedback_time DESC, feedback_id DESC)")
    op.execute("CREATE INDEX feedback_of_fragment ON feedback (fragment_id, feedback_time DESC)")
    op.execute("CREATE INDEX feedback_of_item ON feedback (item_id, feedback_time DESC) WHERE item_id <> ''")


def downgrade() -> None:
    """Drop the table."""
    op.execute("DROP TABLE feedback")
