# SPDX-License-Identifier: Apache-2.0
"""What PostgreSQL keeps: behaviour by fragment, segments, memberships; and how rules are asked of it."""
