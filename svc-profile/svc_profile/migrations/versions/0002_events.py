# SPDX-License-Identifier: Apache-2.0
"""Every event that was learnt from, by fragment; its key tells repetitions."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    # Without a payload only the key is kept, to recognise repetition: of events that were nobody's, dropped or expired.
    op.execute(
        """
        CREATE TABLE events (
            event_key uuid PRIMARY KEY,
            batch_id uuid NOT NULL,
            fragment_id uuid,
            time_us bigint NOT NULL,
            received_time_us bigint NOT NULL,
            seen_day date NOT NULL DEFAULT current_date,
            name text NOT NULL,
            payload bytea
        )
        """
    )
    op.execute("CREATE INDEX events_of_fragment ON events (fragment_id, time_us)")
    op.execute("CREATE INDEX events_without_payload ON events (seen_day) WHERE payload IS NULL")
    op.execute("ALTER TABLE fragments ADD COLUMN flags integer NOT NULL DEFAULT 0")
    op.execute("CREATE INDEX fragments_flagged ON fragments (fragment_id) WHERE flags <> 0")
    # Which generation of derived fragments holds what an identifier owns and its own fragment cannot.
    op.execute(
        """
        CREATE TABLE derived_fragments (
            base_id uuid NOT NULL,
            parent_id uuid NOT NULL,
            generation integer NOT NULL,
            PRIMARY KEY (base_id, parent_id)
        )
        """
    )
    # Logins on a device after its first: who was there at a time.
    op.execute(
        "CREATE INDEX links_later_users ON links (child, claim_time_us)"
        " WHERE NOT eligible AND parent_namespace = 'user_id'"
    )


def downgrade() -> None:
    """Drop the tables."""
    op.execute("ALTER TABLE fragments DROP COLUMN flags")
    op.execute("DROP INDEX links_later_users")
    op.execute("DROP TABLE events, derived_fragments")
