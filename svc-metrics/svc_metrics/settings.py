# SPDX-License-Identifier: Apache-2.0
"""What svc-metrics reads from the environment."""

from pathlib import Path
from typing import ClassVar

from chassis.settings import ServiceSettings
from pydantic import Field, SecretStr


class Settings(ServiceSettings):
    """Settings of svc-metrics."""

    service: ClassVar[str] = "metrics"

    port: int = Field(9105, validation_alias="DANGOL_METRICS_PORT", ge=0, le=65535)
    """Port of gRPC."""
    clickhouse_url: SecretStr = SecretStr("")
    """ClickHouse server, such as `http://user:password@clickhouse:8123`; empty is the embedded engine."""
    clickhouse_database: str = Field("dangol_metrics", pattern="[A-Za-z_][A-Za-z0-9_]*")
    """Database in ClickHouse."""
    metrics_folder: Path | None = None
    """Folder of the embedded engine; `metrics` in `DANGOL_HOME` when unset."""
    metrics_engine_memory_bytes: int = Field(1536 * 2**20, ge=256 * 2**20)
    """Most memory that the embedded engine may use in all."""
    metrics_cache_bytes: int = Field(64 * 2**20, ge=2**20)
    """Size of each of the embedded engine's caches of marks and primary indexes."""
    metrics_queries: int = Field(2, ge=1, le=64)
    """Queries at the same time; more wait."""
    metrics_query_memory_bytes: int = Field(768 * 2**20, ge=2**20)
    """Most memory of one query; a query that needs more is answered with RESOURCE_EXHAUSTED."""
    metrics_query_seconds: float = Field(20, gt=0)
    """Longest time of one query; a query that needs longer is answered with RESOURCE_EXHAUSTED."""
    metrics_insert_interval_ms: int = Field(400, ge=0, le=10_000)
    """Shortest time from one insert of events to the next while little flows; each insert is one more part to merge."""

    @property
    def folder(self) -> Path:
        """Folder of the embedded engine."""
        return self.metrics_folder or self.home / "metrics"
