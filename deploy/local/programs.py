# SPDX-License-Identifier: Apache-2.0
"""What the platform consists of on one machine, as data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chassis.engines import free_ports

ENGINE_PORTS = {"DANGOL_POSTGRES_PORT": 9132, "DANGOL_NATS_PORT": 9122}
GATEWAY_PORT = 8080
SERVICE_PORTS = {"profile": 9101, "segmentation": 9102, "recommend": 9103, "feedback": 9104, "metrics": 9105}
PROMETHEUS_OFFSET = 100
GATEWAY_PROMETHEUS_PORT = 9200


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the platform."""

    name: str
    command: tuple[str, ...]
    port: int
    prometheus_port: int
    health: Literal["grpc", "http"] = "grpc"
    migration: tuple[str, ...] | None = None
    """Run to its end before the program starts for the first time."""
    is_entrance: bool = False
    """Stops before the others, so that nothing new comes in while they drain."""

    @property
    def setting(self) -> str:
        """The variable that holds its port."""
        return f"DANGOL_{self.name.upper()}_PORT"

    @property
    def prometheus_setting(self) -> str:
        """The variable that holds the port of its metrics."""
        return f"DANGOL_{self.name.upper()}_PROMETHEUS_PORT"


def platform(environment: Mapping[str, str]) -> tuple[Program, ...]:
    """Every service and the gateway, on the ports that the environment names."""
    services = tuple(_service(name, port, environment) for name, port in SERVICE_PORTS.items())
    gateway = Program(
        name="gateway",
        command=_python("gateway"),
        port=port_in(environment, "DANGOL_GATEWAY_PORT", GATEWAY_PORT),
        prometheus_port=port_in(environment, "DANGOL_GATEWAY_PROMETHEUS_PORT", GATEWAY_PROMETHEUS_PORT),
        health="http",
        is_entrance=True,
    )
    return (*services, gateway)


def free_port_variables() -> dict[str, str]:
    """Settings that put a whole platform on free ports, beside any other platform."""
    names = [*ENGINE_PORTS, *(_port_variable(name) for name in (*SERVICE_PORTS, "gateway"))]
    names += [_port_variable(f"{name}_prometheus") for name in (*SERVICE_PORTS, "gateway")]
    return {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}


def _service(name: str, default: int, environment: Mapping[str, str]) -> Program:
    port = port_in(environment, _port_variable(name), default)
    return Program(
        name=name,
        command=_python(f"svc_{name}", "all"),
        port=port,
        prometheus_port=port_in(environment, _port_variable(f"{name}_prometheus"), port + PROMETHEUS_OFFSET),
        migration=_python(f"svc_{name}", "migrate"),
    )


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: the folder `gateway/` of the repository must not hide the package inside it.
    return (sys.executable, "-P", "-m", module, *arguments)


def _port_variable(name: str) -> str:
    return f"DANGOL_{name.upper()}_PORT"


def port_in(environment: Mapping[str, str], name: str, default: int) -> int:
    """A port from the environment; raises ValueError that names the variable."""
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise ValueError(f"{name} must be a port number, not {text!r}")
    return int(text)
