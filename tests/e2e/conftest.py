# SPDX-License-Identifier: Apache-2.0
"""One whole platform for all end-to-end tests."""

from collections.abc import Iterator

import httpx
import pytest

from bench.platform.running import SECRET_KEY, Platform, running_platform

SETTINGS = {
    # What a killed process had in hand comes again after ten seconds instead of a minute.
    "DANGOL_ACK_WAIT_SECONDS": "10",
    # And the import or export that it worked on after five seconds instead of fifteen.
    "DANGOL_PROFILE_LEASE_SECONDS": "5",
    # Retention is enforced each second instead of each hour.
    "DANGOL_RETENTION_SECONDS": "1",
}


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Start every process once, on free ports and a folder that is thrown away."""
    with running_platform(SETTINGS) as started:
        yield started


@pytest.fixture(scope="session")
def api(platform: Platform) -> Iterator[httpx.Client]:
    """The public HTTP API, with the secret key of local mode."""
    headers = {"Authorization": f"Bearer {SECRET_KEY}"}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Break things last: the other tests share the platform."""
    items.sort(key=lambda item: item.path.stem == "test_faults")
