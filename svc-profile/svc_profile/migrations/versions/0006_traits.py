# SPDX-License-Identifier: Apache-2.0
"""Definitions of traits, groups."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""


def downgrade() -> None:
    """Drop the tables."""
