# SPDX-License-Identifier: Apache-2.0
"""Between the contract and the domain."""
