# SPDX-License-Identifier: Apache-2.0
"""A simulated Korean shop, and importers of real data sets, that drive the platform through its public API."""
