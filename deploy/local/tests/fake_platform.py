# SPDX-License-Identifier: Apache-2.0
"""A platform of fake services, for tests in this process and, as a script, for tests of the whole program.

`fake_platform.py HOME POSTGRES_PORT NATS_PORT SERVICE_PORT GATEWAY_PORT [BEHAVIOUR]`
"""

import os
import sys
from pathlib import Path

from chassis.engines import free_ports

from deploy.local.__main__ import run
from deploy.local.programs import Program
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import Supervisor

SERVICE = Path(__file__).with_name("fake_service.py")


def program(name: str, behaviour: str = "grpc", port: int = 0, migrates: bool = False) -> Program:
    """A fake service, on a free port unless one is given."""
    port = port or free_ports(1)[0]
    script = (sys.executable, str(SERVICE))
    return Program(
        name=name,
        command=(*script, behaviour, name, str(port)),
        port=port,
        prometheus_port=free_ports(1)[0],
        health="http" if behaviour == "http" else "grpc",
        migration=(*script, "migrate", name, "0") if migrates else None,
        is_entrance=behaviour == "http",
    )


def main(home: Path, ports: list[int], behaviour: str = "grpc") -> int:
    """Run it until somebody stops it."""
    settings = LocalSettings(
        home=home,
        postgres_port=ports[0],
        nats_port=ports[1],
        throwaway=True,
        environment=dict(os.environ),
        drain_seconds=300 if behaviour == "stubborn" else 20,
    )
    programs = [program("profile", behaviour, ports[2], migrates=True), program("gateway", "http", ports[3])]
    return run(Supervisor(settings, programs))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [int(port) for port in sys.argv[2:6]], *sys.argv[6:]))
