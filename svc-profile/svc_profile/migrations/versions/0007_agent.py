# SPDX-License-Identifier: Apache-2.0
"""Search, staff interactions, what was heard of segments."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE interactions (
            interaction_id text PRIMARY KEY,
            request_id text UNIQUE,
            fragment_id uuid NOT NULL,
            kind smallint NOT NULL,
            status smallint NOT NULL,
            subject text NOT NULL,
            text text NOT NULL,
            outcome text NOT NULL,
            actor text NOT NULL,
            updated_by text NOT NULL,
            interaction_time_us bigint NOT NULL,
            created_time_us bigint NOT NULL,
            updated_time_us bigint NOT NULL,
            closed_time_us bigint
        )
        """
    )
    op.execute("CREATE INDEX interactions_of_fragment ON interactions (fragment_id, interaction_time_us)")
    op.execute("CREATE INDEX interactions_newest ON interactions (interaction_time_us, interaction_id)")
    # Rows of members and of those who left: the revision of a leaving must outlive an entering that comes late.
    op.execute(
        """
        CREATE TABLE segment_memberships (
            profile_id uuid NOT NULL,
            segment_id text NOT NULL,
            member boolean NOT NULL,
            revision bigint NOT NULL,
            change_time_us bigint NOT NULL,
            rule_version integer NOT NULL,
            PRIMARY KEY (profile_id, segment_id)
        )
        """
    )
    op.execute("CREATE INDEX segment_memberships_of_segment ON segment_memberships (segment_id)")
    op.execute(
        """
        CREATE TABLE heard_segments (
            segment_id text PRIMARY KEY,
            name text NOT NULL,
            saved_time_us bigint NOT NULL,
            deleted boolean NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE profile_stages (
            profile_id uuid NOT NULL,
            track text NOT NULL,
            stage text NOT NULL,
            previous_stage text NOT NULL,
            rule_version integer NOT NULL,
            revision bigint NOT NULL,
            change_time_us bigint NOT NULL,
            evidence text NOT NULL,
            PRIMARY KEY (profile_id, track)
        )
        """
    )
    op.execute(
        """
        CREATE TABLE heard_feedback (
            feedback_id text PRIMARY KEY,
            fragment_id uuid NOT NULL,
            kind smallint NOT NULL,
            rating smallint,
            sentiment smallint NOT NULL,
            sentiment_probability double precision NOT NULL,
            item_id text NOT NULL,
            language text NOT NULL,
            feedback_time_us bigint NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX heard_feedback_of_fragment ON heard_feedback (fragment_id, feedback_time_us)")
    # What waits for its entries is only ever added and taken, so that collecting waits for nobody.
    op.execute(
        """
        CREATE TABLE search_queue (
            queue_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            fragment_id uuid NOT NULL,
            event_key uuid
        )
        """
    )
    op.execute(
        """
        CREATE TABLE search_entries (
            fragment_id uuid NOT NULL,
            kind text NOT NULL,
            text text NOT NULL,
            value text NOT NULL,
            grams integer[] NOT NULL
        )
        """
    )
    # A name of 200 syllables is too long for a key, but not for a hash.
    op.execute("CREATE UNIQUE INDEX search_entries_once ON search_entries (fragment_id, kind, md5(text))")
    op.execute("CREATE INDEX search_entries_grams ON search_entries USING gin (grams)")
    op.execute("CREATE TABLE search_filling (version integer NOT NULL, after_fragment uuid, after_event uuid)")
    op.execute("INSERT INTO search_filling (version) VALUES (0)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute(
        "DROP TABLE interactions, segment_memberships, heard_segments, profile_stages, heard_feedback, "
        "search_queue, search_entries, search_filling"
    )
