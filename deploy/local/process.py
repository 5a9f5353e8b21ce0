# SPDX-License-Identifier: Apache-2.0
"""A program of the platform as something that starts, is waited for, and stops; engines have the same shape."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from chassis.engines.processes import Launch, spawn

from deploy.local.health import PROBES
from deploy.local.programs import Program

PROBE_SECONDS = 0.1


class StartFailed(RuntimeError):
    """A process, or the whole platform, did not become healthy."""


class Startable(Protocol):
    """What a unit keeps running: an engine or a program."""

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""

    def start(self) -> None:
        """Start, and return when it is healthy."""

    def wait(self) -> int:
        """Wait until the process ends."""

    def stop(self, patience: float) -> None:
        """Ask it to end, and end it when the patience is over."""

    def kill(self) -> None:
        """End it at once."""


class ProgramProcess:
    """The operating system's process of one program."""

    def __init__(self, program: Program, environment: Mapping[str, str], output: int) -> None:
        self._program = program
        self._environment = environment
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._is_migrated = program.migration is None

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Migrate once, start, and return when the health check is content."""
        if not self._is_migrated and self._program.migration is not None:
            self._migrate(self._program.migration)
        process = self._spawn(self._program.command)
        probe = PROBES[self._program.health]
        while not probe(self._program.port):
            if (code := process.poll()) is not None:
                raise StartFailed(f"{self._program.name} {ending(code)} while it started")
            time.sleep(PROBE_SECONDS)

    def wait(self) -> int:
        """Wait until the process ends."""
        return self._process.wait() if self._process else 0

    def stop(self, patience: float) -> None:
        """Ask it to end, and end it when the patience is over."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, and whatever it started."""
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _migrate(self, command: tuple[str, ...]) -> None:
        if code := self._spawn(command).wait():
            raise StartFailed(f"the migration of {self._program.name} {ending(code)}")
        self._is_migrated = True

    def _spawn(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        self._process = spawn(Launch(command, self._environment), self._output)
        return self._process


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
