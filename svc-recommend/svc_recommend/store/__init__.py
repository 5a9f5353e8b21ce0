# SPDX-License-Identifier: Apache-2.0
"""Where svc-recommend keeps what it knows: tables and queries."""
