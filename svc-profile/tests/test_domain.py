# SPDX-License-Identifier: Apache-2.0
"""The rules of identity and of the fold, without any engine."""
