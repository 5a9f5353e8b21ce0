# SPDX-License-Identifier: Apache-2.0
"""The engines on one machine: PostgreSQL and NATS, from pip packages, as children of this process."""

from chassis.engines.errors import EngineError, FolderBusy, PortTaken
from chassis.engines.nats import NatsEngine
from chassis.engines.ports import free_ports, require_free_port
from chassis.engines.postgres import PostgresEngine

__all__ = [
    "EngineError",
    "FolderBusy",
    "NatsEngine",
    "PortTaken",
    "PostgresEngine",
    "free_ports",
    "require_free_port",
]
