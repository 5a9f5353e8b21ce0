# SPDX-License-Identifier: Apache-2.0
"""Fragments, links, rejected events."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    # Where fragments belong is in the chassis's table fragment_profiles, written under the identity lock only. A
    # fragment without a row there is a customer by itself. Room in the pages keeps updates inside them (HOT).
    op.execute(
        """
        CREATE TABLE fragments (
            fragment_id uuid PRIMARY KEY,
            namespace text NOT NULL,
            value text NOT NULL,
            first_seen_us bigint NOT NULL,
            last_seen_us bigint NOT NULL,
            first_event_us bigint,
            last_event_us bigint,
            counts jsonb NOT NULL DEFAULT '{}',
            traits jsonb NOT NULL DEFAULT '{}',
            revenue jsonb NOT NULL DEFAULT '{}',
            groups jsonb NOT NULL DEFAULT '[]'
        ) WITH (fillfactor = 70)
        """
    )
    op.execute(
        """
        CREATE TABLE links (
            child uuid NOT NULL,
            parent uuid NOT NULL,
            child_namespace text NOT NULL,
            parent_namespace text NOT NULL,
            rule text NOT NULL,
            claim_time_us bigint NOT NULL,
            event_key uuid NOT NULL,
            rank smallint NOT NULL,
            source text NOT NULL,
            message_id text NOT NULL,
            eligible boolean NOT NULL,
            refused boolean NOT NULL,
            PRIMARY KEY (parent, child)
        )
        """
    )
    # A kiosk has thousands of claims, of which one per kind counts.
    op.execute("CREATE INDEX links_eligible ON links (child) WHERE eligible")
    op.execute("CREATE INDEX links_refused ON links (claim_time_us DESC, child, parent) WHERE refused")
    op.execute("CREATE SEQUENCE mapping_revisions")
    op.execute(
        """
        CREATE TABLE rejected_events (
            rejected_event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message_id text NOT NULL,
            source text NOT NULL,
            reason text NOT NULL,
            detail text NOT NULL,
            position integer NOT NULL,
            received_time_us bigint NOT NULL,
            body bytea NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX rejected_events_newest ON rejected_events (received_time_us DESC, rejected_event_id DESC)")
    op.execute("CREATE INDEX rejected_events_message_id ON rejected_events (message_id)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE fragments, links, rejected_events")
    op.execute("DROP SEQUENCE mapping_revisions")
