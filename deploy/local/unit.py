# SPDX-License-Identifier: Apache-2.0
"""One process that is wanted: it is started, watched, and started again when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

from deploy.local.process import Startable, ending

MAX_START_FAILURES = 3
MAX_DELAY_SECONDS = 10.0
LONG_ENOUGH_SECONDS = 30.0


class State(StrEnum):
    """Where a unit is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    HEALTHY = "healthy"
    RESTARTING = "restarting"
    FAILED = "failed"


class Unit:
    """Keeps one engine or program running from a thread of its own, until it is told otherwise."""

    def __init__(self, name: str, startable: Startable, changed: Callable[[Unit, str | None], None]) -> None:
        """`changed` is told of every change of state, with what there is to say about it."""
        self.name = name
        self.restarts = 0
        self.state = State.STOPPED
        self._startable = startable
        self._changed = changed
        self._condition = threading.Condition()
        self._is_wanted = False
        self._is_busy = False
        self._is_closed = False
        self._was_healthy = False
        self._thread = threading.Thread(target=self._keep, name=f"unit {name}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._startable.pid

    @property
    def is_wanted(self) -> bool:
        """Whether it should run."""
        return self._is_wanted

    def resume(self) -> None:
        """Start it, and keep it running."""
        self._want(True)

    def halt(self, patience: float) -> None:
        """Stop it, and leave it so."""
        self._want(False)
        is_idle = False
        while not is_idle:
            # Again and again: the thread may be just about to start the process.
            self._startable.stop(patience)
            with self._condition:
                is_idle = self._condition.wait_for(lambda: not self._is_busy, timeout=0.2)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._startable.kill()

    def give_up(self) -> None:
        """End the process at once, and leave it so."""
        self._want(False)
        self._startable.kill()

    def close(self) -> None:
        """End the thread of a unit that is halted."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()

    def _want(self, wanted: bool) -> None:
        with self._condition:
            self._is_wanted = wanted
            self._condition.notify_all()

    def _keep(self) -> None:
        while self._is_next_run_wanted():
            self._run_while_wanted()
            self._enter(State.STOPPED)

    def _is_next_run_wanted(self) -> bool:
        with self._condition:
            self._is_busy = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._is_wanted or self._is_closed)
            self._is_busy = not self._is_closed
            return self._is_busy

    def _run_while_wanted(self) -> None:
        failures = 0
        while self._is_wanted:
            begin = time.monotonic()
            self._enter(State.STARTING)
            ended = self._run_once()
            if not self._is_wanted:
                return
            failures = 1 if time.monotonic() - begin > LONG_ENOUGH_SECONDS else failures + 1
            if failures >= MAX_START_FAILURES and not self._was_healthy:
                self._enter(State.FAILED, ended)
                self._wait_while_wanted()
                return
            self.restarts += 1
            self._enter(State.RESTARTING, f"{ended}: starting it again")
            self._wait_while_wanted(min(0.1 * 3 ** (failures - 1), MAX_DELAY_SECONDS))

    def _run_once(self) -> str:
        """Run the process until it ends; answers with how it ended."""
        try:
            self._startable.start()
        except Exception as error:  # whatever it was, the next attempt may succeed
            return str(error) or type(error).__name__
        if self._is_wanted:
            self._was_healthy = True
            self._enter(State.HEALTHY)
        return f"{self.name} {ending(self._startable.wait())}"

    def _wait_while_wanted(self, seconds: float | None = None) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._is_wanted, timeout=seconds)

    def _enter(self, state: State, remark: str | None = None) -> None:
        self.state = state
        self._changed(self, remark)
