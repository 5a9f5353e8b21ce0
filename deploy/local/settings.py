# SPDX-License-Identifier: Apache-2.0
"""How a platform on one machine is set up; read from the environment once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.programs import ENGINE_PORTS, port_in

# Gives a service that drains for as long as it may some more time to close.
CLOSING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Where the data lie, and which engines are used."""

    home: Path = Path(".dangol")
    postgres_port: int = ENGINE_PORTS["DANGOL_POSTGRES_PORT"]
    nats_port: int = ENGINE_PORTS["DANGOL_NATS_PORT"]
    postgres_url: str | None = None
    """A PostgreSQL server to use instead of the embedded one."""
    nats_url: str | None = None
    """A NATS server to use instead of the embedded one."""
    nats_sync_interval: str = "1s"
    """How soon JetStream puts on disk what it has acknowledged; "always" is before it acknowledges."""
    drain_seconds: float = 20
    """How long a service may finish work in hand when it is asked to stop."""
    start_seconds: float = 300
    """How long the whole platform may take until it is healthy."""
    throwaway: bool = False
    """PostgreSQL does not wait for the disk: for folders that a test deletes."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The environment that every process starts from."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> LocalSettings:
        """Read the `DANGOL_` variables; raises ValueError that names the one that is wrong."""
        return cls(
            home=Path(environment.get("DANGOL_HOME") or ".dangol"),
            postgres_port=port_in(environment, "DANGOL_POSTGRES_PORT", ENGINE_PORTS["DANGOL_POSTGRES_PORT"]),
            nats_port=port_in(environment, "DANGOL_NATS_PORT", ENGINE_PORTS["DANGOL_NATS_PORT"]),
            postgres_url=environment.get("DANGOL_POSTGRES_URL") or None,
            nats_url=environment.get("DANGOL_NATS_URL") or None,
            nats_sync_interval=environment.get("DANGOL_NATS_SYNC_INTERVAL") or "1s",
            drain_seconds=_seconds(environment, "DANGOL_DRAIN_SECONDS", 20),
            start_seconds=_seconds(environment, "DANGOL_START_SECONDS", 300),
            environment=dict(environment),
        )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}")
    return seconds
