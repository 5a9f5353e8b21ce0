# SPDX-License-Identifier: Apache-2.0
"""What svc-profile said of consent, and who read what."""

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""


def downgrade() -> None:
    """Drop the tables."""
