# SPDX-License-Identifier: Apache-2.0
"""The rules of recommending, without I/O."""
