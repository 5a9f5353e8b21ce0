# SPDX-License-Identifier: Apache-2.0
"""chDB allows one folder per process, so all tests of a run share one and each takes a database of its own."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chassis.testing import Engines, RunningService, running
from svc_metrics.app import build
from svc_metrics.settings import Settings
from svc_metrics.store import ClickHouse, Embedded, Limits
from svc_metrics.usecases import Stores

_numbers = itertools.count()

MEMORY_BYTES = 2 * 2**30
CACHE_BYTES = 16 * 2**20


@pytest.fixture(scope="session")
def engine() -> Iterator[Embedded]:
    """The embedded engine of this test run, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="dangol-metrics-", dir=_quick_folder()) as folder:
        embedded = Embedded(Path(folder) / "chdb", MEMORY_BYTES, CACHE_BYTES)
        # Held open, because the engine stops with its last session and would start again for every test.
        session = embedded.connect(None, {})
        yield embedded
        session.close()


@pytest.fixture
def database() -> str:
    """A name that no other test uses."""
    return f"test_{next(_numbers)}"


@pytest.fixture
async def clickhouse(engine: Embedded, database: str) -> AsyncIterator[ClickHouse]:
    """An empty database."""
    opened = ClickHouse(engine, database, Limits(queries=2, query_memory_bytes=2**29, query_seconds=30))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def stores(clickhouse: ClickHouse) -> Stores:
    """Everything that svc-metrics keeps, empty."""
    return Stores.on(clickhouse)


@pytest.fixture
async def service(engines: Engines, engine: Embedded, database: str) -> AsyncIterator[RunningService]:
    """The whole service, on databases and streams of its own."""
    async with running(build, Settings, engines, **_overrides(engine, database)) as running_service:
        yield running_service


@pytest.fixture(scope="module")
async def service_for_questions(engines: Engines, engine: Embedded) -> AsyncIterator[RunningService]:
    """The whole service, empty, for tests that change nothing."""
    async with running(build, Settings, engines, **_overrides(engine, "test_questions")) as running_service:
        yield running_service


def _overrides(engine: Embedded, database: str) -> dict[str, Any]:
    return {
        "metrics_folder": engine.folder,
        "metrics_engine_memory_bytes": engine.memory_bytes,
        "metrics_cache_bytes": engine.cache_bytes,
        "clickhouse_database": database,
        "metrics_insert_interval_ms": 20,
    }


def _quick_folder() -> Path | None:
    """Memory instead of a disk where there is enough: these tests make and remove thousands of small files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30 else None
