# SPDX-License-Identifier: Apache-2.0
"""`python -m deploy.local`: the whole platform on this machine; `python -m deploy.local status`: what runs."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from chassis.engines import EngineError, FolderBusy

from deploy.local import status
from deploy.local.process import StartFailed
from deploy.local.programs import platform
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import StopRequested, Supervisor


def main(arguments: list[str]) -> int:
    """Run or look; answers with the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="Dangol on one machine.")
    parser.add_argument("action", nargs="?", choices=("run", "status"), default="run")
    action = parser.parse_args(arguments).action
    try:
        settings = LocalSettings.from_environment(os.environ)
        supervisor = Supervisor(settings, platform(os.environ))
    except ValueError as error:
        return _complain(str(error))
    return _show(settings) if action == "status" else run(supervisor)


def run(supervisor: Supervisor) -> int:
    """Start, say so, and wait for Ctrl-C or SIGTERM; answers with the exit code."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda _signal, _frame: supervisor.request_stop())
    home = supervisor.settings.home
    try:
        supervisor.start()
    except StopRequested:
        return 0
    except FolderBusy as error:
        owner = f" (process {error.pid})" if error.pid else ""
        return _complain(f"Dangol runs on {error.folder} already{owner}: stop it, or set DANGOL_HOME")
    except (EngineError, StartFailed, OSError) as error:
        return _complain(f"Dangol did not start.\n{error}")
    gateway = next(program for program in supervisor.programs if program.is_entrance)
    address = f"http://127.0.0.1:{gateway.port}"
    print(f"Dangol is ready: {address} (docs /docs, data {home}, stop with Ctrl-C)", flush=True)
    supervisor.wait()
    supervisor.stop()
    return 0


def _show(settings: LocalSettings) -> int:
    rows = status.rows(settings.home)
    if not any(row.is_running for row in rows):
        return _complain(f"Nothing runs on {settings.home}.")
    print(status.table(rows))
    return 0 if all(row.is_healthy for row in rows) else 1


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
