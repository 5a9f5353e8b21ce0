# SPDX-License-Identifier: Apache-2.0
"""Definitions of traits, groups."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    # One document in one row: {"revision": …, "definitions": […], "computed": […]}. Whoever locks it has all of it.
    op.execute(
        """
        CREATE TABLE trait_schema (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            document jsonb NOT NULL
        )
        """
    )
    op.execute("INSERT INTO trait_schema (document) VALUES ('{}')")
    # Drawn while fragments are locked, so that of two announcements about one fragment the later one has the greater.
    op.execute("CREATE SEQUENCE trait_announcements CACHE 1")
    # How far traits have been derived again since a definition was changed.
    op.execute(
        """
        CREATE TABLE trait_derivation (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            running boolean NOT NULL,
            cursor uuid,
            done_count bigint NOT NULL,
            total_count bigint NOT NULL,
            started_time timestamptz,
            finished_time timestamptz
        )
        """
    )
    op.execute("INSERT INTO trait_derivation (running, done_count, total_count) VALUES (false, 0, 0)")
    op.execute(
        """
        CREATE TABLE groups (
            group_id text COLLATE "C" PRIMARY KEY,
            kind text COLLATE "C" NOT NULL,
            first_seen_us bigint NOT NULL,
            last_seen_us bigint NOT NULL,
            traits jsonb NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX groups_of_kind ON groups (kind, group_id)")
    # What events say (first_us, last_us) and what staff decided (member, role, decided_us); either may be missing.
    op.execute(
        """
        CREATE TABLE group_members (
            group_id text COLLATE "C" NOT NULL,
            fragment_id uuid NOT NULL,
            first_us bigint,
            last_us bigint,
            member boolean,
            role text,
            decided_us bigint,
            PRIMARY KEY (group_id, fragment_id)
        )
        """
    )
    op.execute("CREATE INDEX group_members_of_fragment ON group_members (fragment_id)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP SEQUENCE trait_announcements")
    op.execute("DROP TABLE group_members, groups, trait_derivation, trait_schema")
