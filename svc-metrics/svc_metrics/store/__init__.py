# SPDX-License-Identifier: Apache-2.0
"""Tables and queries in ClickHouse."""

from svc_metrics.store.clickhouse import ClickHouse, Embedded, Limits, Server
from svc_metrics.store.events import EventStore
from svc_metrics.store.figures import FigureStore
from svc_metrics.store.people import PeopleStore
from svc_metrics.store.personal import PersonalColumns
from svc_metrics.store.retained import RetainedColumns

__all__ = [
    "ClickHouse",
    "Embedded",
    "EventStore",
    "FigureStore",
    "Limits",
    "PeopleStore",
    "PersonalColumns",
    "RetainedColumns",
    "Server",
]
