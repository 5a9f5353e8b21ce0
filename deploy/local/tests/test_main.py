# SPDX-License-Identifier: Apache-2.0
"""The program itself: what it prints, what signals do, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from chassis.engines import free_ports

from deploy.local.state import read_state

REPOSITORY = Path(__file__).parents[3]
PLATFORM = Path(__file__).with_name("fake_platform.py")


@pytest.fixture
def ports() -> list[int]:
    return free_ports(4)


@contextmanager
def running(home: Path, ports: list[int], behaviour: str = "grpc") -> Iterator[subprocess.Popen[str]]:
    """The program with fake services; its first line is awaited."""
    command = [sys.executable, str(PLATFORM), str(home), *map(str, ports), behaviour]
    path = os.pathsep.join([str(REPOSITORY), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line == (f"Dangol is ready: http://127.0.0.1:{ports[3]} (docs /docs, data {home}, stop with Ctrl-C)\n")
        try:
            yield program
        finally:
            program.kill()


def family(home: Path) -> list[psutil.Process]:
    """Every process that the platform on this folder has started."""
    processes = [process for state in read_state(home) if (process := state.find())]
    return [*processes, *(child for process in processes for child in process.children(recursive=True))]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; who ended may wait for the system to take notice."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, ports: list[int], name: signal.Signals) -> None:
    """And the program ends well."""
    with running(tmp_path, ports) as program:
        processes = family(tmp_path)
        program.send_signal(name)
        assert program.wait(60) == 0
        assert program.stdout is not None
        assert program.stdout.read() == ""
    assert len(processes) >= 5
    assert alive(processes) == []


def test_a_second_signal_hurries(tmp_path: Path, ports: list[int]) -> None:
    """A service that takes its time, five minutes here, is ended at once."""
    with running(tmp_path, ports, "stubborn") as program:
        processes = family(tmp_path)
        gateway = next(state for state in read_state(tmp_path) if state.name == "gateway").find()
        assert gateway is not None
        program.send_signal(signal.SIGINT)
        gateway.wait(60)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 0
    assert alive(processes) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_killed_supervisor_leaves_nothing_that_stops_the_next(tmp_path: Path, ports: list[int]) -> None:
    """Its children end with it, and the next start needs no hand."""
    with running(tmp_path, ports) as program:
        processes = family(tmp_path)
        program.kill()
        program.wait()
    with running(tmp_path, ports) as program:
        assert alive(processes) == []
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == 0


def test_status_without_a_platform_says_so(tmp_path: Path) -> None:
    """Exit code 1, one line."""
    environment = os.environ | {"DANGOL_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "deploy.local", "status"]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert (answer.returncode, answer.stderr) == (1, f"Nothing runs on {tmp_path}.\n")
