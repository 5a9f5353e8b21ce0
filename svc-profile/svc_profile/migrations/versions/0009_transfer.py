# SPDX-License-Identifier: Apache-2.0
"""Imports, exports and webhooks."""

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""


def downgrade() -> None:
    """Drop the tables."""
