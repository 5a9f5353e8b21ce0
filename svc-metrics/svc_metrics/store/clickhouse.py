# SPDX-License-Identifier: Apache-2.0
"""The connection to ClickHouse: embedded (chDB) in a folder of its own, or a server over HTTP; the SQL is the same.

One thread writes and a few threads read, each with a session that nobody shares. Readers have their limits set first
and are made read-only last, because a read-only session can no longer change its limits (nor anything else).
"""

import asyncio
import fcntl
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import pyarrow as pa
from chassis.errors import DangolError, FailedPrecondition, ResourceExhausted, Unavailable
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError, ProgrammingError

from svc_metrics.store import schema

log = logging.getLogger(__name__)

T = TypeVar("T")

_RECONNECT_S = 0.5

_MEMORY_LIMIT = 241
_TOO_SLOW = (159, 160)
# Too many parts, disk full or failing, memory, network, Keeper, read-only table: the same insert may work later.
_NOT_NOW = frozenset({74, 75, 76, 159, 209, 210, 241, 242, 243, 252, 319, 999})

_WRITER_SETTINGS: Mapping[str, Any] = {
    # An import of many years is one batch as any other.
    "max_partitions_per_insert_block": 0,
    "max_insert_threads": 1,
    # A log of queries would keep whom they asked about.
    "log_queries": 0,
}


@dataclass(frozen=True)
class Limits:
    """What one query may use, and how many run at the same time."""

    queries: int
    query_memory_bytes: int
    query_seconds: float

    def settings(self) -> dict[str, Any]:
        """The settings of a reader's session; `readonly` must come last."""
        return {
            "max_memory_usage": self.query_memory_bytes,
            "max_execution_time": self.query_seconds,
            "do_not_merge_across_partitions_select_final": 1,
            "log_queries": 0,
            "readonly": 1,
        }


@dataclass(frozen=True)
class Server:
    """A ClickHouse server."""

    url: str

    def connect(self, database: str | None, settings: Mapping[str, Any]) -> Client:
        """Open a session of its own."""
        return clickhouse_connect.get_client(dsn=self.url, database=database, settings=dict(settings))


@dataclass(frozen=True)
class Embedded:
    """chDB in this process, which then owns the folder alone."""

    folder: Path
    memory_bytes: int
    cache_bytes: int

    def connect(self, database: str | None, settings: Mapping[str, Any]) -> Client:
        """Open a session of its own; raises `FailedPrecondition` when another process owns the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "max_server_memory_usage": self.memory_bytes,
            "mark_cache_size": self.cache_bytes,
            "primary_index_cache_size": self.cache_bytes,
        }
        try:
            return clickhouse_connect.get_client(
                interface="chdb",
                path=str(self.folder),
                database=database,
                settings=dict(settings),
                chdb_options=options,
            )
        except ProgrammingError as error:
            if self._is_locked():
                raise FailedPrecondition(
                    f"another process uses the folder {self.folder}: the embedded ClickHouse serves one process; "
                    "stop the other one, or set DANGOL_CLICKHOUSE_URL to share a server"
                ) from error
            raise

    def _is_locked(self) -> bool:
        try:
            with (self.folder / "status").open() as status:
                fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class ClickHouse:
    """One database in ClickHouse, as the event loop sees it."""

    def __init__(self, engine: Server | Embedded, database: str, limits: Limits) -> None:
        self._engine = engine
        self._database = database
        self._limits = limits
        self._writing = ThreadPoolExecutor(1, "clickhouse-writer")
        self._reading = ThreadPoolExecutor(limits.queries, "clickhouse-reader")
        # Apart from the others, so that a queue of long questions does not look like an engine that is gone.
        self._checking = ThreadPoolExecutor(1, "clickhouse-check")
        self._opened = False
        self._session = threading.local()
        self._sessions: list[Client] = []

    async def open(self) -> None:
        """Connect and bring the tables to the newest schema; a server that is away is waited for."""
        while True:
            try:
                await self._in(self._writing, self._prepare)
                self._opened = True
                return
            except (Unavailable, OperationalError) as error:
                log.warning("ClickHouse cannot be reached yet: %s", type(error).__name__)
                await asyncio.sleep(_RECONNECT_S)

    async def close(self) -> None:
        """Finish what runs and disconnect."""
        for threads in (self._writing, self._reading, self._checking):
            await asyncio.to_thread(threads.shutdown)
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    async def check(self) -> None:
        """Raise `Unavailable` unless a query is answered."""
        self._require_open()
        await self._in(self._checking, lambda: self._read("SELECT 1", {}))

    def _require_open(self) -> None:
        # The gRPC port listens before the engine has started, and calls come when they like.
        if not self._opened:
            raise Unavailable("ClickHouse is not open yet", retry_after_seconds=1)

    async def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Answer a query; `{name:Type}` in the text stands for a parameter."""
        self._require_open()
        return await self._in(self._reading, lambda: self._read(sql, parameters))

    async def insert(self, table: str, columns: pa.Table, *, token: str | None = None) -> None:
        """Append rows and return when they are on disk; of several inserts with one token only the first counts."""
        self._require_open()
        settings = {"insert_deduplication_token": token} if token else {}
        await self._in(self._writing, lambda: self._write(table, columns, settings))

    async def command(self, sql: str, **parameters: Any) -> None:
        """Change rows that are there, and return when every part on the disk is changed."""
        self._require_open()
        await self._in(self._writing, lambda: self._change(sql, parameters))

    def _change(self, sql: str, parameters: Mapping[str, Any]) -> None:
        try:
            self._writer().command(sql, parameters=dict(parameters), settings={"mutations_sync": 2})
        except Exception as error:
            self._drop_own_session()
            if meaning := _meaning_of_write(error):
                raise meaning from error
            raise

    def _prepare(self) -> None:
        with_no_database = self._connect(None, {})
        with_no_database.command(f"CREATE DATABASE IF NOT EXISTS {self._database}")
        writer = self._writer()
        writer.command(schema.STEPS_TABLE)
        applied = {row[0] for row in writer.query("SELECT step FROM schema_steps").result_rows}
        for step, statements in enumerate(schema.STEPS, 1):
            if step in applied:
                continue
            for statement in statements:
                writer.command(statement)
            writer.command("INSERT INTO schema_steps (step) SELECT {step:UInt32}", parameters={"step": step})

    def _read(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        try:
            found = self._reader().query(sql, parameters=dict(parameters))
            return [tuple(row) for row in found.result_rows]
        except Exception as error:
            self._drop_own_session()
            if meaning := _meaning_of_read(error):
                raise meaning from error
            raise

    def _write(self, table: str, columns: pa.Table, settings: dict[str, Any]) -> None:
        try:
            self._writer().insert_arrow(table, columns, settings=settings)
        except Exception as error:
            self._drop_own_session()
            if meaning := _meaning_of_write(error):
                raise meaning from error
            raise

    def _writer(self) -> Client:
        return self._own_session(lambda: self._connect(self._database, _WRITER_SETTINGS))

    def _reader(self) -> Client:
        return self._own_session(lambda: self._connect(self._database, self._limits.settings()))

    def _own_session(self, connect: Callable[[], Client]) -> Client:
        """Return this thread's session; a session that two threads share refuses work at random."""
        session: Client | None = getattr(self._session, "client", None)
        if session is None:
            session = self._session.client = connect()
        return session

    def _drop_own_session(self) -> None:
        """Let the next query of this thread start afresh.

        chDB keeps what a failed query had already answered and puts it before the answer of the next one.
        """
        session: Client | None = getattr(self._session, "client", None)
        if session is not None:
            self._session.client = None
            self._sessions.remove(session)
            session.close()

    def _connect(self, database: str | None, settings: Mapping[str, Any]) -> Client:
        try:
            session = self._engine.connect(database, settings)
        except OperationalError as error:
            raise Unavailable("ClickHouse cannot be reached", retry_after_seconds=1) from error
        self._sessions.append(session)
        return session

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def _meaning_of_read(error: Exception) -> DangolError | None:
    """Turn what the engine says about a query into what the caller can do about it; None when it is a bug."""
    code = getattr(error, "code", None)
    if code == _MEMORY_LIMIT:
        return ResourceExhausted(
            "the question needs more memory than one query may use: ask for fewer days", reason="QUERY_TOO_LARGE"
        )
    if code in _TOO_SLOW:
        return ResourceExhausted(
            "the question takes longer than one query may take: ask for fewer days", reason="QUERY_TOO_SLOW"
        )
    return _connection_lost(error)


def _meaning_of_write(error: Exception) -> DangolError | None:
    if getattr(error, "code", None) in _NOT_NOW:
        return Unavailable(f"ClickHouse takes no rows now: {getattr(error, 'name', None)}", retry_after_seconds=1)
    return _connection_lost(error)


def _connection_lost(error: Exception) -> DangolError | None:
    if isinstance(error, OperationalError):
        return Unavailable("ClickHouse cannot be reached", retry_after_seconds=1)
    return None
