# SPDX-License-Identifier: Apache-2.0
"""What svc-recommend does: keep the catalogue, learn from events, work out neighbourhoods, recommend."""
