# SPDX-License-Identifier: Apache-2.0
"""Where svc-profile keeps what it knows: tables and queries."""
