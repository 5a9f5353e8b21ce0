# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every package's tests share, and how tests are spread over processes."""

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["chassis.testing"]

# The package, before pytest makes a module of the folder of the same name.
import gateway  # noqa: E402, F401

# How long an example takes says how busy the machine is.
settings.register_profile("dangol", deadline=None)
settings.load_profile("dangol")


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each process whole modules, whose tests share a service; those that share a whole platform go to one."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/e2e" if nodeid.startswith("tests/e2e/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Spread the tests of `pytest -n`."""
    return ByModule(config, log)
