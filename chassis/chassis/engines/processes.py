# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their parent, and the end of those that did not."""

from __future__ import annotations

import functools
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Account:
    """The system account that a child runs as."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> Account:
        """The account that every system has for programs without rights."""
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            entry = pwd.getpwuid(65_534)
        return cls(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run, and how it ends when this process is killed."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path | None = None
    account: Account | None = None
    death_signal: signal.Signals = signal.SIGKILL


def spawn(launch: Launch, output: int, given: bytes | None = None) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that Ctrl-C reaches only its supervisor."""
    process = _spawner(os.getpid()).submit(_spawn, launch, output, given is not None).result()
    if process.stdin is not None and given is not None:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
    return process


def end(processes: Iterable[psutil.Process], gently: signal.Signals, patience: float) -> list[psutil.Process]:
    """End processes that are not our children: ask, wait, then kill; answers with those that live on."""
    processes = list(processes)
    known = {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # A server ends its own children; they would take the same signal for something else.
            if process.ppid() not in known:
                process.send_signal(gently)
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return psutil.wait_procs(alive, timeout=10)[1]


@functools.lru_cache(maxsize=1)
def _spawner(_process_id: int) -> ThreadPoolExecutor:
    """One thread that lives as long as the process: Linux sends the death signal when the *thread* ends."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _spawn(launch: Launch, output: int, speaks: bool) -> subprocess.Popen[bytes]:
    account = launch.account or Account(os.geteuid(), os.getegid())
    launcher = (sys.executable, "-I", "-S", str(LAUNCHER))
    ties = (os.getpid(), int(launch.death_signal), account.uid, account.gid)
    return subprocess.Popen(
        (*launcher, *map(str, ties), *launch.command),
        env=dict(launch.environment),
        cwd=launch.folder,
        stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        umask=0o077,
    )
