# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of the whole platform, which they start themselves on free ports and a folder of their own."""
