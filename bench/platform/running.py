# SPDX-License-Identifier: Apache-2.0
"""A whole platform of one's own: free ports, a temporary folder, every process under the local supervisor."""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local.programs import free_port_variables, platform
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import Supervisor

WRITE_KEY = "dk_write_local"
SECRET_KEY = "dk_secret_local"


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that runs."""

    supervisor: Supervisor
    home: Path

    @property
    def gateway_port(self) -> int:
        """Port of the public HTTP API."""
        return self.port_of("gateway")

    @property
    def url(self) -> str:
        """Address of the public HTTP API."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def nats_url(self) -> str:
        """Address of JetStream."""
        return self.supervisor.nats_url

    def port_of(self, name: str) -> int:
        """Port of one program."""
        return next(program.port for program in self.supervisor.programs if program.name == name)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The operating system's processes of each engine and program, children included."""
        return {name: family(pid) for name, pid in self.supervisor.pids.items() if pid is not None}


@contextmanager
def running_platform(settings: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """Start a platform, hand it over, and stop it."""
    with tempfile.TemporaryDirectory(prefix="dangol-platform-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DANGOL_")}
        environment |= {**free_port_variables(), "DANGOL_HOME": str(home), **(settings or {})}
        supervisor = Supervisor(LocalSettings.from_environment(environment), platform(environment))
        supervisor.start()
        try:
            yield Platform(supervisor, home)
        finally:
            supervisor.stop()


def family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


DATABASE = re.compile(r"^postgres: \S+ dangol_(\w+) ")


def cpu_by_database(processes: list[psutil.Process]) -> dict[str, float]:
    """Return the processor time of PostgreSQL, split by whose sessions used it."""
    used: defaultdict[str, float] = defaultdict(float)
    for process in processes[1:]:
        try:
            title = DATABASE.match(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
        if title:
            used[f"postgres for {title[1]}"] += cpu_seconds([process])
    return dict(used) | {"postgres itself": cpu_seconds(processes) - sum(used.values())}


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Return the processor time that processes have used, with that of children that have ended."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
        if process is processes[0]:
            total += times.children_user + times.children_system
    return total
