# SPDX-License-Identifier: Apache-2.0
"""Catalogue, interactions, changes of histories, neighbourhoods."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    # Whoever changes rows that others keep in memory counts up here in the same transaction; the row lock makes the
    # order of the revisions the order of the commits, so that nobody who reads by revision misses a row.
    op.execute("CREATE TABLE revisions (name text PRIMARY KEY, revision bigint NOT NULL)")
    op.execute("INSERT INTO revisions (name, revision) VALUES ('items', 0), ('neighbourhoods', 0)")
    # Ids are compared as bytes, which is what Python does and what is fastest.
    op.execute(
        """
        CREATE TABLE items (
            item_id text COLLATE "C" PRIMARY KEY,
            title text NOT NULL,
            categories text[] NOT NULL,
            price double precision NOT NULL,
            currency text NOT NULL,
            url text NOT NULL,
            image_url text NOT NULL,
            hidden boolean NOT NULL,
            attributes jsonb NOT NULL,
            deleted boolean NOT NULL,
            updated_time timestamptz NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX items_categories ON items USING gin (categories)")
    op.execute("CREATE INDEX items_revision ON items (revision, item_id)")
    # No index but the key and room in the pages: updates stay inside their page (HOT).
    op.execute(
        """
        CREATE TABLE interactions (
            fragment_id uuid NOT NULL,
            item_id text COLLATE "C" NOT NULL,
            viewed_weight bigint NOT NULL,
            wanted_weight bigint NOT NULL,
            bought_weight bigint NOT NULL,
            rated_weight bigint NOT NULL,
            first_time_us bigint NOT NULL,
            last_time_us bigint NOT NULL,
            viewed_time_us bigint,
            bought_time_us bigint,
            PRIMARY KEY (fragment_id, item_id)
        ) WITH (fillfactor = 80)
        """
    )
    # Blocks only, for retention: it keeps updates inside their page all the same.
    op.execute(
        "CREATE INDEX interactions_last_time ON interactions USING brin (last_time_us) WITH (autosummarize = on)"
    )
    # One row for each transaction that changed interactions: what changed, as columns, with the sums afterwards.
    op.execute(
        """
        CREATE TABLE history_changes (
            change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            fragment_ids uuid[] NOT NULL,
            item_ids text[] NOT NULL,
            weights bigint[] NOT NULL,
            last_times_us bigint[] NOT NULL,
            moved_fragment_ids uuid[] NOT NULL DEFAULT '{}',
            forgotten_fragment_ids uuid[] NOT NULL DEFAULT '{}'
        )
        """
    )
    op.execute(
        """
        CREATE TABLE neighbourhoods (
            item_id text COLLATE "C" PRIMARY KEY,
            popularity double precision,
            neighbours jsonb NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX neighbourhoods_revision ON neighbourhoods (revision, item_id)")
    # Who works the neighbourhoods out now; whoever finds another name has missed changes and starts anew.
    op.execute("CREATE TABLE refreshers (name text PRIMARY KEY, holder text NOT NULL)")
    op.execute("INSERT INTO refreshers (name, holder) VALUES ('neighbourhoods', '')")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE refreshers, neighbourhoods, history_changes, interactions, items, revisions")
