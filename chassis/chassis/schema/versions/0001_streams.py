# SPDX-License-Identifier: Apache-2.0
"""Tables that every service has: inbox, outbox, and where each fragment belongs."""

from alembic import op

revision = "chassis_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE inbox (
            consumer text NOT NULL,
            message_id text NOT NULL,
            handled_time timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (consumer, message_id)
        )
        """
    )
    op.execute("CREATE INDEX inbox_handled_time ON inbox USING brin (handled_time)")
    op.execute(
        """
        CREATE TABLE outbox (
            outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            subject text NOT NULL,
            type text NOT NULL,
            payload bytea NOT NULL,
            headers text NOT NULL,
            created_time timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE fragment_profiles (
            fragment_id uuid PRIMARY KEY,
            profile_id uuid NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX fragment_profiles_profile_id ON fragment_profiles (profile_id)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE inbox, outbox, fragment_profiles")
