# SPDX-License-Identifier: Apache-2.0
"""Purposes, notices and the consent ledger."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""


def downgrade() -> None:
    """Drop the tables."""
