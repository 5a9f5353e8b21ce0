# SPDX-License-Identifier: Apache-2.0
"""The life of a database server that this process carries with it."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import psutil

from chassis.engines.errors import EngineError
from chassis.engines.folders import FolderLock, make_private
from chassis.engines.ports import require_free_port
from chassis.engines.processes import Launch, end, spawn

POLL_SECONDS = 0.02
LOG_TAIL_LINES = 15
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")


class Engine(ABC):
    """One server on one folder and one loopback port; it can start and stop as often as one likes.

    What a killed predecessor left behind, files or running processes, never prevents a start. Everything
    blocks: from a coroutine, call it through `asyncio.to_thread`.
    """

    name: ClassVar[str]
    setting: ClassVar[str]
    gentle_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, port: int, *, output: int | None = None) -> None:
        """What the server prints goes to `<folder>/<name>.log`, or into `output`, an open descriptor."""
        self.folder = folder.absolute()
        self.port = port
        self._output = output
        self._lock: FolderLock | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, with the password in it."""

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def claim(self) -> None:
        """Take the folder for this process and end what a killed predecessor left running on it."""
        if self._lock is None:
            try:
                make_private(self.folder)
                self._lock = FolderLock(self.folder)
            except OSError as error:
                raise EngineError(f"the folder {self.folder} cannot be used: {error.strerror}") from error
            # Where children cannot be tied to their parent, at least an orderly exit leaves none.
            atexit.register(self.stop)
        leftovers = self._leftovers()
        if survivors := end(leftovers, self.gentle_signal, self._patience_with(leftovers)):
            pids = ", ".join(str(process.pid) for process in survivors)
            raise EngineError(f"an earlier {self.name} on {self.folder} does not end: kill process {pids}")

    def start(self, patience: float = 300) -> None:
        """Start the server and return when it answers; recovery after a crash may take its time."""
        if self.running:
            return
        try:
            self.claim()
            require_free_port(self.port, self.setting)
            self._prepare()
            self._process = self._spawn()
            self._wait_until_ready(self._process, time.monotonic() + patience)
        except BaseException:
            self.kill()
            self.release()
            raise

    def stop(self, patience: float = 30) -> None:
        """Stop the server cleanly, by force after `patience` seconds, and let go of the folder."""
        if self._process is not None and self.running:
            self._process.send_signal(self.gentle_signal)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()
        self.release()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> int:
        """Wait until the server's process ends, for whatever reason."""
        return self._process.wait() if self._process else 0

    def release(self) -> None:
        """Let others have the folder of a server that does not run."""
        if self._lock is not None:
            atexit.unregister(self.stop)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _leftovers(self) -> Sequence[psutil.Process]:
        """Running processes of an earlier server on this folder."""

    def _patience_with(self, _leftovers: Sequence[psutil.Process]) -> float:
        """How many seconds they get to end cleanly."""
        return 20

    @abstractmethod
    def _prepare(self) -> None:
        """Bring the files on disk into the state that the server needs."""

    @abstractmethod
    def _launch(self) -> Launch:
        """How the server is run."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server that was just started answers."""

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    @property
    def _password(self) -> str:
        if not self._password_file.exists():
            raise EngineError(f"{self.name} on {self.folder} has no address before its first start")
        return self._password_file.read_text(encoding="utf-8").strip()

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self._output is not None:
            return spawn(self._launch(), self._output)
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.1"))
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return spawn(self._launch(), descriptor)
        finally:
            os.close(descriptor)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self._is_ready():
            if (code := process.poll()) is not None:
                raise EngineError(f"{self.name} ended with code {code} while it started{self._last_words()}")
            if time.monotonic() > deadline:
                raise EngineError(f"{self.name} does not answer on port {self.port}{self._last_words()}")
            time.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        if self._output is not None or not self._log.exists():
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "; it said:\n  " + "\n  ".join(lines)


def server_environment() -> dict[str, str]:
    """What a server sees of our environment: nothing that changes it, and none of our secrets."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
