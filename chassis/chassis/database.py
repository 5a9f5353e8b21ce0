# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL: transactions that carry their outgoing messages with them."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import asyncpg
from google.protobuf.message import Message
from sqlalchemy import Row, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from chassis import telemetry
from chassis.bus import Outgoing
from chassis.encryption import NO_SEALER, Sealer
from chassis.errors import Unavailable
from chassis.ids import new_ulid
from chassis.settings import ServiceSettings

if TYPE_CHECKING:
    from chassis.encryption.vault import Vault

OUTBOX_PAYLOAD = "outbox.payload"
"""The column that an announced message waits in: it is sealed where the service seals anything."""

_PUT_OUTBOX = """
INSERT INTO outbox (message_id, subject, type, payload, headers)
SELECT * FROM unnest(
    CAST(:ids AS text[]), CAST(:subjects AS text[]), CAST(:types AS text[]), CAST(:payloads AS bytea[]),
    CAST(:traces AS text[])
)
"""

_statement = lru_cache(maxsize=2_048)(text)
"""A statement that is run again and again is read for its parameters once."""


class Promise(NamedTuple):
    """A message that goes out after the commit, not made yet."""

    subject: str
    payload: Callable[[], bytes]
    message_id: str


class Transaction:
    """One transaction: SQL in, messages out, all or nothing."""

    def __init__(self, connection: AsyncConnection, vault: "Vault | None" = None) -> None:
        self.connection = connection
        self.vault = vault
        self._promised: list[Promise] = []
        self._session: AsyncSession | None = None
        self._announced: list[tuple[str, str, Message]] = []

    @property
    def session(self) -> AsyncSession:
        """The same transaction for SQLModel."""
        if self._session is None:
            self._session = AsyncSession(self.connection, expire_on_commit=False)
        return self._session

    @property
    def sealer(self) -> Sealer:
        """Seals what is written, if anything is."""
        return NO_SEALER if self.vault is None else self.vault.sealer

    async def execute(self, sql: str, **parameters: Any) -> int:
        """Run one statement with `:named` parameters; answers the number of rows it touched."""
        return (await self.connection.execute(_statement(sql), parameters)).rowcount

    async def rows(self, sql: str, **parameters: Any) -> Sequence[Row[Any]]:
        """Run one statement and return its rows."""
        return (await self.connection.execute(_statement(sql), parameters)).fetchall()

    async def row(self, sql: str, **parameters: Any) -> Row[Any] | None:
        """Run one statement and return its first row, if any."""
        return (await self.connection.execute(_statement(sql), parameters)).first()

    async def value(self, sql: str, **parameters: Any) -> Any:
        """Run one statement and return the first column of its first row, None without rows."""
        return (await self.connection.execute(_statement(sql), parameters)).scalar()

    async def copy(self, table: str, columns: Sequence[str], data: bytes) -> None:
        """Bring in rows that are written in the binary format of COPY (PostgreSQL documentation, COPY, File Formats).

        All of them or none: where a row is refused, such as by `asyncpg.UniqueViolationError`, the transaction goes on.
        """

        async def source() -> AsyncIterator[bytes]:
            yield data

        async with self.connection.begin_nested():
            raw = await self.connection.get_raw_connection()
            connection = cast(asyncpg.Connection, raw.driver_connection)
            await connection.copy_to_table(table, source=source(), columns=columns, format="binary")

    def publish(self, message: Message, subject: str | None = None) -> None:
        """Announce a domain event: it goes out if, and only if, this transaction commits.

        Its subject is its full name; another one is for messages that are no domain events.
        """
        self._announced.append((new_ulid(), subject or message.DESCRIPTOR.full_name, message))

    def publish_after_commit(self, subject: str, payload: Callable[[], bytes], message_id: str) -> None:
        """Hand a message to the consumer that runs this transaction, to be published between commit and ack.

        Its payload is made then, when nobody waits for the rows that the transaction has locked.

        Nothing but the redelivery of the incoming messages brings it back after a crash, so the same incoming messages
        must lead to the same outgoing ones, with the same ids.
        """
        self._promised.append(Promise(subject, payload, message_id))

    @property
    def promises(self) -> bool:
        """Whether there are messages to be published after the commit."""
        return bool(self._promised)

    def outgoing(self) -> list[Outgoing]:
        """Make the messages that are to be published after the commit."""
        return [Outgoing(each.subject, each.payload(), each.message_id) for each in self._promised]

    async def flush(self) -> bool:
        """Write pending objects and announced messages; tells whether there are messages for the relay."""
        if self._session is not None:
            await self._session.flush()
        if not self._announced:
            return False
        carrier: dict[str, str] = {}
        telemetry.inject(carrier)
        await self.execute(
            _PUT_OUTBOX,
            ids=[message_id for message_id, _, _ in self._announced],
            subjects=[subject for _, subject, _ in self._announced],
            types=[message.DESCRIPTOR.full_name for _, _, message in self._announced],
            payloads=[
                self.sealer.seal(OUTBOX_PAYLOAD, message_id.encode(), message.SerializeToString())
                for message_id, _, message in self._announced
            ],
            traces=[carrier.get("traceparent", "")] * len(self._announced),
        )
        self._announced.clear()
        return True

    async def close(self) -> None:
        """Let go of the session, never of the connection."""
        if self._session is not None:
            await self._session.close()


class Database:
    """The database of one service."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.name = settings.database_name
        server = make_url(settings.postgres_url.get_secret_value()).set(drivername="postgresql+asyncpg")
        self.engine: AsyncEngine = create_async_engine(
            server.set(database=self.name),
            pool_size=settings.postgres_pool,
            max_overflow=0,
            pool_timeout=10,
            # The connection that was used last: its server process has the tables in its caches and its page tables.
            pool_use_lifo=True,
            # What a statement that failed was about may be personal, and would be logged with the error.
            hide_parameters=True,
            connect_args={
                "timeout": 5,
                # Compiling a statement pays for minutes of work, never for milliseconds.
                "server_settings": {"application_name": f"dangol-{settings.service}", "jit": "off"},
            },
        )
        self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._server = server
        self._wake: list[Callable[[], None]] = []
        self.vault: Vault | None = None

    def on_announced(self, wake: Callable[[], None]) -> None:
        """Call `wake` after each commit that left messages in the outbox."""
        self._wake.append(wake)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction; commits at the end, rolls back on any exception."""
        async with self.engine.connect() as connection:
            tx = Transaction(connection, self.vault)
            async with connection.begin():
                try:
                    yield tx
                    announced = await tx.flush()
                finally:
                    await tx.close()
        if announced:
            for wake in self._wake:
                wake()

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[Transaction]:
        """Open a transaction that is rolled back at the end: what it did never happened, nothing is announced."""
        async with self.engine.connect() as connection:
            tx = Transaction(connection, self.vault)
            try:
                yield tx
            finally:
                await tx.close()
                await connection.rollback()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Transaction]:
        """Open a connection for single reads: no transaction, so no round trips for one."""
        async with self._reader.connect() as connection:
            tx = Transaction(connection, self.vault)
            try:
                yield tx
            finally:
                await tx.close()

    async def check(self) -> None:
        """Raise `Unavailable` unless PostgreSQL answers."""
        try:
            async with self.snapshot() as tx:
                await tx.value("SELECT 1")
        except Exception as error:
            if lost_connection(error):
                raise Unavailable("PostgreSQL does not answer") from error
            raise

    async def create(self) -> None:
        """Create the database when it does not exist."""
        connection = await asyncpg.connect(
            self._server.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        )
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", self.name):
                quoted = '"' + self.name.replace('"', '""') + '"'
                await connection.execute(f"CREATE DATABASE {quoted}")
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


_AWAY = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    InterfaceError,
    Unavailable,
)


def lost_connection(error: BaseException) -> bool:
    """Tell whether an error means that a store could not be reached, so that the same work may succeed later."""
    return any(
        isinstance(link, _AWAY) or (isinstance(link, DBAPIError) and link.connection_invalidated)
        for link in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to its causes; a driver may have made a circle of them."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.orig if isinstance(link, DBAPIError) else None]
