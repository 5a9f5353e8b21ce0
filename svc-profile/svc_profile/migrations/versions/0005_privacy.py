# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects, what the services answered, exports, suppressions, certificates."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = (
    # Whom a request is about, and what the customer is recognised by, is kept only until it is done.
    """
    CREATE TABLE data_requests (
        data_request_id text PRIMARY KEY,
        request_id text UNIQUE,
        kind smallint NOT NULL,
        regime smallint NOT NULL,
        requester smallint NOT NULL,
        channel text NOT NULL,
        state smallint NOT NULL,
        step text NOT NULL,
        round integer NOT NULL DEFAULT 0,
        refusal_reason text NOT NULL DEFAULT '',
        actor text NOT NULL,
        profile_id uuid,
        filed_time timestamptz NOT NULL,
        due_time timestamptz NOT NULL,
        not_before_time timestamptz NOT NULL,
        step_time timestamptz NOT NULL,
        done_time timestamptz,
        traits text,
        purposes text[] NOT NULL DEFAULT '{}',
        subject_hash text NOT NULL DEFAULT '',
        fragment_ids uuid[] NOT NULL DEFAULT '{}',
        shared_fragment_ids uuid[] NOT NULL DEFAULT '{}',
        traces text NOT NULL DEFAULT '',
        stream_ends jsonb
    )
    """,
    "CREATE INDEX data_requests_open ON data_requests (not_before_time) WHERE state IN (1, 2)",
    "CREATE INDEX data_requests_of_profile ON data_requests (profile_id) WHERE profile_id IS NOT NULL",
    """
    CREATE TABLE data_request_answers (
        data_request_id text NOT NULL,
        step text NOT NULL,
        round integer NOT NULL,
        service text NOT NULL,
        answered_time timestamptz NOT NULL,
        answer jsonb NOT NULL,
        PRIMARY KEY (data_request_id, step, round, service)
    )
    """,
    """
    CREATE TABLE data_export_parts (
        data_request_id text NOT NULL,
        service text NOT NULL,
        attempt text NOT NULL,
        number integer NOT NULL,
        file text NOT NULL,
        last boolean NOT NULL,
        rows bytea NOT NULL,
        stream_sequence bigint NOT NULL,
        PRIMARY KEY (data_request_id, service, attempt, number)
    )
    """,
    """
    CREATE TABLE data_export_chunks (
        data_request_id text NOT NULL,
        index integer NOT NULL,
        data bytea NOT NULL,
        size_bytes integer NOT NULL,
        PRIMARY KEY (data_request_id, index)
    )
    """,
    """
    CREATE TABLE suppressions (
        suppression_id uuid PRIMARY KEY,
        namespace text NOT NULL,
        data_request_id text NOT NULL,
        created_time timestamptz NOT NULL
    )
    """,
    "CREATE INDEX suppressions_newest ON suppressions (created_time DESC, suppression_id)",
    """
    CREATE TABLE erasure_certificates (
        certificate_number bigint PRIMARY KEY,
        data_request_id text NOT NULL UNIQUE,
        text text NOT NULL,
        signature bytea NOT NULL,
        key_id text NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Create the tables."""
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drop the tables."""
    op.execute(
        "DROP TABLE erasure_certificates, suppressions, data_export_chunks, data_export_parts, data_request_answers,"
        " data_requests"
    )
