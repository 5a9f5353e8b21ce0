# SPDX-License-Identifier: Apache-2.0
"""Retention, legal hold and encryption."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _retention()
    _legal_hold()
    _encryption()


def _retention() -> None:
    op.execute(
        """
        CREATE TABLE retention_rules (
            rule_id text PRIMARY KEY,
            event text NOT NULL,
            purpose_id text NOT NULL,
            days integer NOT NULL,
            action smallint NOT NULL,
            updated_us bigint NOT NULL,
            UNIQUE (event, purpose_id, action)
        )
        """
    )
    op.execute("CREATE SEQUENCE retention_revisions")
    # Finds what is past its time without reading what is not; numbers keep it small, and new events go to few pages.
    op.execute(
        "CREATE INDEX events_by_age ON events (hashtextextended(name, 0), time_us) WHERE fragment_id IS NOT NULL"
    )


def _legal_hold() -> None:
    # A schema of its own: stored apart, as the law asks, and for an administrator to grant apart.
    op.execute("CREATE SCHEMA legal_hold")
    op.execute(
        """
        CREATE TABLE legal_hold.records (
            record_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            data_request_id text NOT NULL,
            event text NOT NULL,
            event_time_us bigint NOT NULL,
            law text NOT NULL,
            held_time_us bigint NOT NULL,
            expire_time_us bigint NOT NULL,
            payload bytea NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX records_expiry ON legal_hold.records (expire_time_us)")
    op.execute("CREATE INDEX records_request ON legal_hold.records (data_request_id, record_id)")


def _encryption() -> None:
    # Data keys, wrapped; the keys that wrap them are in the settings only.
    op.execute(
        """
        CREATE TABLE data_keys (
            data_key_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            day date NOT NULL UNIQUE,
            key_name text NOT NULL,
            wrapped bytea NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE sealing_progress (
            column_name text PRIMARY KEY,
            after text NOT NULL,
            sealed_count bigint NOT NULL,
            done boolean NOT NULL
        )
        """
    )


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE sealing_progress, data_keys")
    op.execute("DROP SCHEMA legal_hold CASCADE")
    op.execute("DROP INDEX events_by_age")
    op.execute("DROP SEQUENCE retention_revisions")
    op.execute("DROP TABLE retention_rules")
