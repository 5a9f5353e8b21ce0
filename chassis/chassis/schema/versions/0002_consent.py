# SPDX-License-Identifier: Apache-2.0
"""What svc-profile said of consent, and who read what."""

from alembic import op

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None

# The kinds are numbers of dangol.options.v1.Purpose. What is here holds until svc-profile says otherwise.
_FROM_THE_START = """
INSERT INTO purpose_defaults (purpose_id, kind, granted_by_default, revision) VALUES
    ('analytics', 1, true, 0), ('personalization', 2, true, 0),
    ('marketing_email', 3, false, 0), ('marketing_sms', 3, false, 0), ('marketing_push', 3, false, 0),
    ('marketing_kakao', 3, false, 0), ('night_marketing', 0, false, 0), ('third_party', 0, false, 0)
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(
        """
        CREATE TABLE purpose_defaults (
            purpose_id text PRIMARY KEY,
            kind smallint NOT NULL,
            granted_by_default boolean NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute(_FROM_THE_START)
    # A fragment of which nothing was said has no row.
    op.execute(
        """
        CREATE TABLE fragment_consents (
            fragment_id uuid PRIMARY KEY,
            granted text[] NOT NULL,
            refused text[] NOT NULL,
            restricted boolean NOT NULL,
            revision bigint NOT NULL
        )
        """
    )
    op.execute(
        """
        CREATE TABLE access_log (
            access_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            access_time timestamptz NOT NULL DEFAULT now(),
            caller text NOT NULL,
            method text NOT NULL,
            purpose smallint NOT NULL,
            fragment_id uuid,
            outcome smallint NOT NULL,
            trace_id text NOT NULL
        )
        """
    )
    op.execute(
        "CREATE INDEX access_log_fragment ON access_log (fragment_id, access_id DESC) WHERE fragment_id IS NOT NULL"
    )
    op.execute("CREATE INDEX access_log_access_time ON access_log USING brin (access_time)")


def downgrade() -> None:
    """Drop the tables."""
    op.execute("DROP TABLE purpose_defaults, fragment_consents, access_log")
