# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every package's tests share."""

pytest_plugins = ["chassis.testing"]

# The package, before pytest makes a module of the folder of the same name.
import gateway  # noqa: E402, F401
