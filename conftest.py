# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every package's tests share."""

pytest_plugins = ["chassis.testing"]
