# SPDX-License-Identifier: Apache-2.0
"""Starts the engines and every process of the platform, keeps them running, and stops them in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from chassis.engines import NatsEngine, PortTaken, PostgresEngine, require_free_port
from chassis.engines.folders import FolderLock, kept_secret, make_private
from chassis.engines.processes import end

from deploy.local.logs import ProcessLog
from deploy.local.process import ProgramProcess, Startable, StartFailed
from deploy.local.programs import Program
from deploy.local.settings import CLOSING_SECONDS, LocalSettings
from deploy.local.state import SUPERVISOR, ProcessState, created_at, read_state, write_state
from deploy.local.unit import State, Unit

LAST_WORDS = 20
HURRIED_ENGINE_SECONDS = 5.0


class StopRequested(Exception):
    """Somebody asked to stop while the platform was starting."""


def to_terminal(remark: str) -> None:
    """Tell the person at the terminal; standard output is for the line that says that all is ready."""
    # A terminal that is gone must not stop what keeps the platform running.
    with suppress(OSError):
        print(remark, file=sys.stderr, flush=True)


class Supervisor:
    """A platform on one folder. `start` returns when everything is healthy, `stop` when nothing is left."""

    def __init__(
        self,
        settings: LocalSettings,
        programs: Sequence[Program],
        say: Callable[[str], None] = to_terminal,
    ) -> None:
        self.settings = settings
        self.programs = tuple(programs)
        self._home = settings.home.absolute()
        self._say = say
        self._lock: FolderLock | None = None
        self._logs: dict[str, ProcessLog] = {}
        self._units: dict[str, Unit] = {}
        self._postgres: PostgresEngine | None = None
        self._nats: NatsEngine | None = None
        self._is_hurried = False
        self._changed = threading.Condition()
        self._stop_requested = threading.Event()

    @property
    def postgres_url(self) -> str:
        """The PostgreSQL server of this platform, without a database name."""
        return self.settings.postgres_url or (self._postgres.url if self._postgres else "")

    @property
    def nats_url(self) -> str:
        """The NATS server of this platform."""
        return self.settings.nats_url or (self._nats.url if self._nats else "")

    @property
    def pids(self) -> dict[str, int | None]:
        """The process of each engine and program, while it runs."""
        return {unit.name: unit.pid for unit in self._units.values()}

    @property
    def is_healthy(self) -> bool:
        """Whether every process that should run has passed its health check since it started."""
        wanted = [unit for unit in self._units.values() if unit.is_wanted]
        return bool(wanted) and all(unit.state is State.HEALTHY for unit in wanted)

    def start(self) -> None:
        """Start everything; raises StartFailed, EngineError or StopRequested, with nothing left running."""
        try:
            self._take_folder()
            self._make_engines()
            self._require_free_ports()
            self._progress("starting", self._units.values())
            self._start(self._units.values())
            programs = [self._program_unit(program) for program in self.programs]
            self._progress("preparing and starting", programs)
            self._start(programs)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything: the entrance, then the services, then the engines."""
        entrances = {program.name for program in self.programs if program.is_entrance}
        services = {program.name for program in self.programs} - entrances
        for stage in (entrances, services, {NatsEngine.name}, {PostgresEngine.name}):
            self._halt([unit for unit in self._units.values() if unit.name in stage])
        for unit in self._units.values():
            unit.close()
        self._units.clear()
        for engine in (self._nats, self._postgres):
            if engine is not None:
                engine.release()
        if self._lock is not None:
            self._write_state()
            self._close()

    def request_stop(self) -> None:
        """Ask from a signal handler: `start` gives up, `wait` returns. Asking again hurries the stop."""
        if self._stop_requested.is_set():
            # In a thread: a signal handler must not wait.
            threading.Thread(target=self._hurry, name="hurry", daemon=True).start()
        self._stop_requested.set()

    def wait(self) -> None:
        """Wait until somebody asks to stop."""
        self._stop_requested.wait()

    def wait_until_healthy(self, patience: float = 60) -> None:
        """Wait until every process that should run is healthy again; raises StartFailed."""
        self._wait_for([unit for unit in self._units.values() if unit.is_wanted], patience)

    def kill(self, name: str) -> None:
        """End one process as a crash would; it comes back by itself."""
        unit = self._units[name]
        restarts = unit.restarts
        if unit.pid is None:
            return
        unit.kill()
        with self._changed:
            self._changed.wait_for(lambda: unit.restarts > restarts)

    def halt(self, name: str) -> None:
        """Stop one process or engine, and leave it so until `resume`."""
        self._halt([self._units[name]])

    def resume(self, name: str) -> None:
        """Start one process or engine that was halted, and return when it is healthy."""
        self._start([self._units[name]])

    def last_words(self, name: str) -> str:
        """The end of one process's log."""
        return "\n".join(f"  {name}: {line}" for line in self._logs[name].last_words(LAST_WORDS))

    def environment_of(self, program: Program) -> dict[str, str]:
        """What a program reads its settings from: the given environment, completed by what only we know."""
        ours = {
            "DANGOL_HOME": str(self._home),
            "DANGOL_LOCAL": "1",
            "DANGOL_POSTGRES_URL": self.postgres_url,
            "DANGOL_NATS_URL": self.nats_url,
            "DANGOL_PROMETHEUS_PORT": str(program.prometheus_port),
            **{other.setting: str(other.port) for other in self.programs},
        }
        defaults = {
            "DANGOL_EVENT_SHARDS": "1",
            "DANGOL_IDENTITY_KEY": kept_secret(self._home / "secrets" / "identity-key"),
            "DANGOL_TOKEN_KEY": kept_secret(self._home / "secrets" / "token-key"),
            "DANGOL_PROFILE_SIGNING_KEY": kept_secret(self._home / "secrets" / "signing-key"),
            "PYTHONUNBUFFERED": "1",
        }
        given = {name: value for name, value in self.settings.environment.items() if value}
        return defaults | given | ours

    def _take_folder(self) -> None:
        for folder in (self._home, self._home / "logs", self._home / "secrets"):
            make_private(folder)
        self._lock = FolderLock(self._home)
        self._logs[SUPERVISOR] = ProcessLog(self._home / "logs", SUPERVISOR)
        # Where the system ends children with their parent, there are none.
        programs = [state for state in read_state(self._home) if state.health in ("grpc", "http")]
        end([process for state in programs if (process := state.find())], signal.SIGTERM, patience=10)

    def _make_engines(self) -> None:
        if self.settings.postgres_url is None:
            self._postgres = PostgresEngine(
                self._home / "postgres",
                self.settings.postgres_port,
                output=self._log_of(PostgresEngine.name),
                throwaway=self.settings.throwaway,
            )
            self._postgres.claim()
            self._add_unit(PostgresEngine.name, self._postgres)
        if self.settings.nats_url is None:
            self._nats = NatsEngine(
                self._home / "nats",
                self.settings.nats_port,
                output=self._log_of(NatsEngine.name),
                sync_interval=self.settings.nats_sync_interval,
            )
            self._nats.claim()
            self._add_unit(NatsEngine.name, self._nats)

    def _program_unit(self, program: Program) -> Unit:
        environment = self.environment_of(program)
        return self._add_unit(program.name, ProgramProcess(program, environment, self._log_of(program.name)))

    def _add_unit(self, name: str, startable: Startable) -> Unit:
        self._units[name] = Unit(name, startable, self._on_change)
        return self._units[name]

    def _log_of(self, name: str) -> int:
        self._logs[name] = ProcessLog(self._home / "logs", name)
        return self._logs[name].descriptor

    def _require_free_ports(self) -> None:
        wanted = [(engine.port, engine.setting) for engine in (self._postgres, self._nats) if engine]
        for program in self.programs:
            wanted += [(program.port, program.setting), (program.prometheus_port, program.prometheus_setting)]
        taken = []
        for port, setting in wanted:
            try:
                require_free_port(port, setting)
            except PortTaken as error:
                taken.append(str(error))
        if taken:
            raise StartFailed("\n".join(taken))

    def _start(self, units: Iterable[Unit]) -> None:
        units = list(units)
        for unit in units:
            unit.resume()
        self._wait_for(units, self.settings.start_seconds)

    def _wait_for(self, units: Iterable[Unit], patience: float) -> None:
        units = list(units)
        deadline = time.monotonic() + patience
        while waiting := [unit for unit in units if unit.state is not State.HEALTHY]:
            if self._stop_requested.is_set():
                raise StopRequested
            if failed := [unit for unit in waiting if unit.state is State.FAILED]:
                raise StartFailed(self._report(failed, "did not start"))
            if time.monotonic() > deadline:
                raise StartFailed(self._report(waiting, f"is not healthy after {patience:.0f} seconds"))
            with self._changed:
                self._changed.wait(0.1)

    def _progress(self, doing: str, units: Iterable[Unit]) -> None:
        if names := ", ".join(unit.name for unit in units):
            self._say(f"{doing}: {names}")

    def _report(self, units: Sequence[Unit], problem: str) -> str:
        parts = []
        for unit in units:
            parts += [self.last_words(unit.name), f"{unit.name} {problem} (its log: {self._log_path(unit.name)})"]
        return "\n".join(part for part in parts if part)

    def _log_path(self, name: str) -> Path:
        return self.settings.home / "logs" / f"{name}.log"

    def _halt(self, units: Sequence[Unit]) -> None:
        if units:
            usual = self.settings.drain_seconds + CLOSING_SECONDS
            patience = HURRIED_ENGINE_SECONDS if self._is_hurried else usual
            with ThreadPoolExecutor(max_workers=len(units)) as pool:
                list(pool.map(lambda unit: unit.halt(patience), units))

    def _hurry(self) -> None:
        self._is_hurried = True
        programs = {program.name for program in self.programs}
        units = list(self._units.values())
        for unit in units:
            if unit.name in programs:
                unit.give_up()
        # The engines may still tidy up, or their next start takes longer than this one's end.
        time.sleep(HURRIED_ENGINE_SECONDS)
        for unit in units:
            unit.give_up()

    def _on_change(self, unit: Unit, remark: str | None) -> None:
        if remark:
            self._say(remark)
            self._logs[SUPERVISOR].add(remark, "WARNING")
        with self._changed:
            self._write_state()
            self._changed.notify_all()

    def _write_state(self) -> None:
        ports: dict[str, tuple[int, str]] = {p.name: (p.port, p.health) for p in self.programs}
        ports |= {e.name: (e.port, "tcp") for e in (self._postgres, self._nats) if e is not None}
        rows = [ProcessState(SUPERVISOR, os.getpid(), created_at(os.getpid()), "healthy", 0, None, "")]
        for unit in list(self._units.values()):
            pid, (port, health) = unit.pid, ports[unit.name]
            rows.append(ProcessState(unit.name, pid, created_at(pid), unit.state, unit.restarts, port, health))
        # A full disk must not stop what keeps the platform running.
        with suppress(OSError):
            write_state(self._home, rows if self._units else [])

    def _close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
