# SPDX-License-Identifier: Apache-2.0
"""The service on real engines, and its database alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import svc_segmentation
from chassis.database import Database
from chassis.migrations import migrate
from chassis.testing import Engines, settings_for
from svc_segmentation.settings import Settings


@pytest.fixture(scope="session")
async def database(engines: Engines) -> AsyncIterator[Database]:
    """The service's database without the service; each test brings customers of its own."""
    opened = Database(settings_for(Settings, engines))
    await migrate(opened, Path(svc_segmentation.__file__).parent / "migrations")
    yield opened
    await opened.close()
