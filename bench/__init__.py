# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: each measures a ratio against a reference in the same run and writes its table into README.md."""
