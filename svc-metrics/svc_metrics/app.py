# SPDX-License-Identifier: Apache-2.0
"""Wire svc-metrics together."""

from datetime import timedelta
from pathlib import Path

from chassis.bus import Bus
from chassis.database import Database
from chassis.privacy import PersonalTables
from chassis.rpc import Servicer
from chassis.service import Service
from dangol.metrics.v1.metrics_pb2_grpc import add_MetricsServiceServicer_to_server

from svc_metrics.consumers import Hearing
from svc_metrics.jobs import jobs
from svc_metrics.rpc import MetricsRpc, MetricsTrace
from svc_metrics.settings import Settings
from svc_metrics.store import ClickHouse, Embedded, Limits, PersonalColumns, RetainedColumns, Server
from svc_metrics.usecases import Stores


def build(settings: Settings) -> Service:
    """Make the service from its settings; nothing is opened yet."""
    clickhouse = ClickHouse(_engine(settings), settings.clickhouse_database, _limits(settings))
    stores = Stores.on(clickhouse)
    hearing = Hearing(stores, timedelta(milliseconds=settings.metrics_insert_interval_ms))
    rpc = MetricsRpc(stores, settings.identity())
    return Service(
        settings=settings,
        bus=Bus(settings, settings.service),
        database=Database(settings),
        migrations=Path(__file__).parent / "migrations",
        servicers=[Servicer("dangol.metrics.v1.MetricsService", add_MetricsServiceServicer_to_server, rpc)],
        subscriptions=hearing.subscriptions(),
        jobs=jobs(stores),
        resources=[clickhouse],
        checks=[clickhouse.check],
        personal=[PersonalTables(()), PersonalColumns(clickhouse, stores.people)],
        retained=[RetainedColumns(clickhouse)],
        trace=MetricsTrace(stores),
    )


def _engine(settings: Settings) -> Server | Embedded:
    url = settings.clickhouse_url.get_secret_value()
    if url:
        return Server(url)
    return Embedded(settings.folder, settings.metrics_engine_memory_bytes, settings.metrics_cache_bytes)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.metrics_queries, settings.metrics_query_memory_bytes, settings.metrics_query_seconds)
