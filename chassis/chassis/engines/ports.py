# SPDX-License-Identifier: Apache-2.0
"""Free and taken TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from chassis.engines.errors import PortTaken

LOOPBACK = "127.0.0.1"


def require_free_port(port: int, setting: str) -> None:
    """Raise PortTaken, naming the owner when the system tells, if somebody listens there."""
    if not _is_free(port):
        raise PortTaken(port, setting, _owner_of(port))


def free_ports(count: int) -> list[int]:
    """Ports that stay free while their server restarts.

    They lie below the range from which the system serves outgoing connections: a port that the system
    itself had picked could go to a client's connection during the seconds in which its server is down.
    """
    candidates = random.sample(range(20_000, _first_ephemeral_port()), k=min(200 + 10 * count, 5_000))
    free: list[int] = []
    for port in candidates:
        if len(free) == count:
            break
        if _is_free(port):
            free.append(port)
    return free


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a predecessor that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _owner_of(port: int) -> str | None:
    # The system may hide the processes of other users.
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None


def _first_ephemeral_port() -> int:
    try:
        first = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
    except OSError:
        return 49_152
    return max(int(first), 26_000)
