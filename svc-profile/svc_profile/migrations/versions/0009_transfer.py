# SPDX-License-Identifier: Apache-2.0
"""Imports, exports and webhooks."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _imports()
    _exports()
    _webhooks()


def _imports() -> None:
    op.execute(
        """
        CREATE TABLE import_jobs (
            import_id text PRIMARY KEY,
            request_id text UNIQUE,
            kind smallint NOT NULL,
            format smallint NOT NULL,
            gzip boolean NOT NULL,
            source text NOT NULL,
            mapping bytea NOT NULL,
            state smallint NOT NULL,
            batch_rows integer NOT NULL,
            create_time_us bigint NOT NULL,
            end_time_us bigint,
            file_key text NOT NULL DEFAULT '',
            received_bytes bigint NOT NULL DEFAULT 0,
            read_bytes bigint NOT NULL DEFAULT 0,
            next_offset bigint NOT NULL DEFAULT 0,
            read_rows bigint NOT NULL DEFAULT 0,
            taken_events bigint NOT NULL DEFAULT 0,
            repeated_events bigint NOT NULL DEFAULT 0,
            rejected_rows bigint NOT NULL DEFAULT 0,
            working_us bigint NOT NULL DEFAULT 0,
            attempts integer NOT NULL DEFAULT 0,
            failure text NOT NULL DEFAULT '',
            lease_holder text NOT NULL DEFAULT '',
            lease_until timestamptz NOT NULL DEFAULT '-infinity'
        )
        """
    )
    op.execute("CREATE INDEX import_jobs_running ON import_jobs (create_time_us) WHERE state = 2")
    op.execute(
        """
        CREATE TABLE import_chunks (
            import_id text NOT NULL REFERENCES import_jobs ON DELETE CASCADE,
            first_byte bigint NOT NULL,
            data bytea NOT NULL,
            PRIMARY KEY (import_id, first_byte)
        )
        """
    )
    # Most files are compressed already, and pieces are read as a whole.
    op.execute("ALTER TABLE import_chunks ALTER COLUMN data SET STORAGE EXTERNAL")
    op.execute(
        """
        CREATE TABLE import_rejects (
            import_id text NOT NULL REFERENCES import_jobs ON DELETE CASCADE,
            row_number bigint NOT NULL,
            position integer NOT NULL,
            field text NOT NULL,
            rule text NOT NULL,
            body text NOT NULL,
            PRIMARY KEY (import_id, row_number, position)
        )
        """
    )


def _exports() -> None:
    op.execute(
        """
        CREATE TABLE export_jobs (
            export_id text PRIMARY KEY,
            request_id text UNIQUE,
            format smallint NOT NULL,
            fields smallint[] NOT NULL,
            trait_names text[] NOT NULL,
            segment_id text NOT NULL,
            fragments uuid[] NOT NULL,
            is_list boolean NOT NULL,
            pseudonymise boolean NOT NULL,
            purpose text NOT NULL,
            byte_order_mark boolean NOT NULL,
            state smallint NOT NULL,
            create_time_us bigint NOT NULL,
            end_time_us bigint,
            expire_time_us bigint NOT NULL,
            key bytea NOT NULL,
            cursor uuid,
            written_profiles bigint NOT NULL DEFAULT 0,
            withheld_profiles bigint NOT NULL DEFAULT 0,
            total_profiles bigint NOT NULL DEFAULT 0,
            file_bytes bigint NOT NULL DEFAULT 0,
            attempts integer NOT NULL DEFAULT 0,
            failure text NOT NULL DEFAULT '',
            lease_holder text NOT NULL DEFAULT '',
            lease_until timestamptz NOT NULL DEFAULT '-infinity'
        )
        """
    )
    op.execute("CREATE INDEX export_jobs_running ON export_jobs (create_time_us) WHERE state = 1")
    # The profiles tell whose file has to go when somebody is erased.
    op.execute(
        """
        CREATE TABLE export_chunks (
            export_id text NOT NULL REFERENCES export_jobs ON DELETE CASCADE,
            first_byte bigint NOT NULL,
            data bytea NOT NULL,
            profiles uuid[] NOT NULL,
            PRIMARY KEY (export_id, first_byte)
        )
        """
    )
    # Rows that are gathered for a file that can only be written as a whole.
    op.execute(
        """
        CREATE TABLE export_drafts (
            export_id text NOT NULL REFERENCES export_jobs ON DELETE CASCADE,
            number integer NOT NULL,
            data bytea NOT NULL,
            profiles uuid[] NOT NULL,
            PRIMARY KEY (export_id, number)
        )
        """
    )


def _webhooks() -> None:
    op.execute(
        """
        CREATE TABLE webhook_endpoints (
            endpoint_id text PRIMARY KEY,
            url text NOT NULL,
            event_types text[] NOT NULL,
            description text NOT NULL,
            disabled boolean NOT NULL,
            disabled_reason text NOT NULL DEFAULT '',
            create_time_us bigint NOT NULL,
            secret_number integer NOT NULL DEFAULT 1,
            former_secret_until_us bigint NOT NULL DEFAULT 0,
            last_success_us bigint
        )
        """
    )
    op.execute(
        """
        CREATE TABLE webhook_deliveries (
            endpoint_id text NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
            webhook_id text COLLATE "C" NOT NULL,
            event_type text NOT NULL,
            event_time_us bigint NOT NULL,
            body bytea NOT NULL,
            state smallint NOT NULL DEFAULT 1,
            attempts integer NOT NULL DEFAULT 0,
            last_status integer NOT NULL DEFAULT 0,
            last_error text NOT NULL DEFAULT '',
            last_attempt_us bigint,
            next_attempt_us bigint NOT NULL,
            PRIMARY KEY (endpoint_id, webhook_id)
        )
        """
    )
    op.execute(
        "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_attempt_us) WHERE state = 1"
    )
    op.execute(
        "CREATE INDEX webhook_deliveries_newest ON webhook_deliveries "
        "(endpoint_id, event_time_us DESC, webhook_id DESC)"
    )
    op.execute("CREATE INDEX webhook_deliveries_old ON webhook_deliveries USING brin (event_time_us)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE webhook_deliveries, webhook_endpoints")
    op.execute("DROP TABLE export_drafts, export_chunks, export_jobs")
    op.execute("DROP TABLE import_rejects, import_chunks, import_jobs")
