# SPDX-License-Identifier: Apache-2.0
"""Event schemas and the tracking plan."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    # Why only the key of an event is kept. A column that is mostly NULL costs nothing.
    op.execute("ALTER TABLE events ADD COLUMN fate smallint")
    op.execute(
        """
        CREATE TABLE repetitions (
            event_key uuid NOT NULL,
            batch_id uuid NOT NULL,
            received_time_us bigint NOT NULL,
            seen_day date NOT NULL DEFAULT current_date,
            PRIMARY KEY (event_key, batch_id)
        )
        """
    )
    op.execute("CREATE INDEX repetitions_seen_day ON repetitions USING brin (seen_day)")
    op.execute(
        """
        CREATE TABLE event_schemas (
            name text COLLATE "C" PRIMARY KEY,
            schema jsonb NOT NULL,
            enforcement smallint NOT NULL,
            description text NOT NULL,
            version integer NOT NULL,
            created_by text NOT NULL,
            created_us bigint NOT NULL,
            updated_by text NOT NULL,
            updated_us bigint NOT NULL
        )
        """
    )
    # What was ever enforced; a rejected event names the version that rejected it.
    op.execute(
        """
        CREATE TABLE event_schema_versions (
            name text COLLATE "C" NOT NULL,
            version integer NOT NULL,
            schema jsonb NOT NULL,
            enforcement smallint NOT NULL,
            description text NOT NULL,
            created_by text NOT NULL,
            created_us bigint NOT NULL,
            updated_by text NOT NULL,
            updated_us bigint NOT NULL,
            PRIMARY KEY (name, version)
        )
        """
    )
    # Grows by one with every change of any schema, so that each process knows when to read them again.
    op.execute(
        """
        CREATE TABLE event_schema_set (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            revision bigint NOT NULL
        )
        """
    )
    op.execute("INSERT INTO event_schema_set (revision) VALUES (1)")
    op.execute(
        """
        CREATE TABLE tracked_events (
            name text COLLATE "C" NOT NULL,
            source text COLLATE "C" NOT NULL,
            event_count bigint NOT NULL,
            inspected_count bigint NOT NULL,
            first_seen_us bigint NOT NULL,
            last_seen_us bigint NOT NULL,
            PRIMARY KEY (name, source)
        ) WITH (fillfactor = 50)
        """
    )
    # How many inspected events had something at a path, and of which JSON types: in the order null, boolean, integer,
    # number, string, array, object.
    op.execute(
        """
        CREATE TABLE tracked_properties (
            name text COLLATE "C" NOT NULL,
            source text COLLATE "C" NOT NULL,
            path text COLLATE "C" NOT NULL,
            event_count bigint NOT NULL,
            type_counts bigint[] NOT NULL,
            first_seen_us bigint NOT NULL,
            last_seen_us bigint NOT NULL,
            PRIMARY KEY (name, source, path)
        ) WITH (fillfactor = 50)
        """
    )


def downgrade() -> None:
    """Drop the tables."""
    op.execute("ALTER TABLE events DROP COLUMN fate")
    op.execute("DROP TABLE tracked_properties, tracked_events, event_schema_set, event_schema_versions, event_schemas")
