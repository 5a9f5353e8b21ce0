# SPDX-License-Identifier: Apache-2.0
"""Data keys in the database: made, loaded, and wrapped anew when the key-encryption key changes."""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from chassis.clock import now
from chassis.database import Database, Transaction
from chassis.encryption.sealing import SETTING, EncryptionKeys, Sealer, all_sealed_bytes, sealed_bytes
from chassis.errors import FailedPrecondition

log = logging.getLogger(__name__)

_REFRESH_S = 600.0
_AT_ONCE = 200

_HASHES = date(1970, 1, 1)
"""The day of the key of hashes, which is none of a day's."""


@dataclass(frozen=True)
class Row:
    """A value to open: which column (`table.column`), which row, and what stands there."""

    column: str
    row_id: bytes
    value: bytes | None
    is_foreign: bool = False
    """True for bytes that others made: what only looks as if it were sealed is as it is."""


class Vault:
    """Holds the data keys of one process; a resource of its service."""

    def __init__(self, database: Database, keys: EncryptionKeys) -> None:
        self.keys = keys
        self.sealer = Sealer()
        self._database = database
        self._task: asyncio.Task[None] | None = None
        # Whatever a transaction of this database writes and reads goes through here.
        database.vault = self

    async def open(self) -> None:
        """Load the data keys; raises `FailedPrecondition` when the settings do not fit what is in the database."""
        async with self._database.snapshot() as tx:
            names = [row.key_name for row in await tx.rows("SELECT DISTINCT key_name FROM data_keys")]
            if names and not self.keys.current:
                raise FailedPrecondition(f"data at rest is encrypted: {SETTING} must hold {', '.join(sorted(names))}")
            rows = await tx.rows("SELECT DISTINCT ON (key_name) * FROM data_keys ORDER BY key_name, data_key_id")
            for row in rows:
                self.keys.unwrap(row.key_name, row.wrapped, row.day.isoformat())
        if self.keys.current:
            await self.refresh()
            self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Have a data key for today, and seal with it from now on."""
        day = now().date()
        async with self._database.transaction() as tx:
            newest = await tx.row("SELECT * FROM data_keys ORDER BY data_key_id DESC LIMIT 1")
            if newest is None:
                await self._make(tx, _HASHES)
            if newest is None or newest.day < day:
                await self._make(tx, day)
        # Only a key that is committed seals anything.
        async with self._database.snapshot() as tx:
            newest = await tx.value("SELECT max(data_key_id) FROM data_keys")
            await self.load(tx, [newest])
            row = await tx.row("SELECT * FROM data_keys WHERE day = :day", day=_HASHES)
            if row is not None:
                self.sealer.learn_hash_key(self.keys.unwrap(row.key_name, row.wrapped, row.day.isoformat()))

    async def _make(self, tx: Transaction, day: date) -> None:
        await tx.execute(
            """
            INSERT INTO data_keys (day, key_name, wrapped) VALUES (:day, :key_name, :wrapped)
            ON CONFLICT (day) DO NOTHING
            """,
            day=day,
            key_name=self.keys.current,
            wrapped=self.keys.wrap(os.urandom(32), day.isoformat()),
        )

    async def load(self, tx: Transaction, data_key_ids: Sequence[int]) -> None:
        """Load data keys; those that there are not are left out."""
        rows = await tx.rows(
            "SELECT * FROM data_keys WHERE data_key_id = ANY (CAST(:ids AS integer[]))", ids=list(data_key_ids)
        )
        for row in rows:
            key = self.keys.unwrap(row.key_name, row.wrapped, row.day.isoformat())
            self.sealer.learn(row.data_key_id, key)

    async def rewrap(self) -> None:
        """Wrap every data key with the current key, some at a time; the data themselves are not touched."""
        more = bool(self.keys.current)
        while more:
            async with self._database.transaction() as tx:
                more = await self.rewrap_some(tx)

    async def rewrap_some(self, tx: Transaction, most: int = _AT_ONCE) -> bool:
        """Wrap some data keys anew; tells whether there may be more."""
        rows = await tx.rows(
            """
            SELECT * FROM data_keys WHERE key_name <> :current ORDER BY data_key_id LIMIT :most FOR UPDATE SKIP LOCKED
            """,
            current=self.keys.current,
            most=most,
        )
        unwrapped = [
            (row.day.isoformat(), self.keys.unwrap(row.key_name, row.wrapped, row.day.isoformat())) for row in rows
        ]
        await tx.execute(
            """
            UPDATE data_keys AS d SET key_name = :current, wrapped = g.wrapped
            FROM unnest(CAST(:ids AS integer[]), CAST(:wrapped AS bytea[])) AS g (id, wrapped)
            WHERE d.data_key_id = g.id
            """,
            current=self.keys.current,
            ids=[row.data_key_id for row in rows],
            wrapped=[self.keys.wrap(key, day) for day, key in unwrapped],
        )
        return len(rows) == most

    async def counts(self, tx: Transaction) -> dict[str, int]:
        """Return how many data keys each key wraps."""
        rows = await tx.rows("SELECT key_name, count(*) AS wrapped FROM data_keys GROUP BY key_name")
        return {row.key_name: row.wrapped for row in rows}

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await self.refresh()
            except Exception:  # the newest key that is held seals until the database answers again
                log.exception("the data key of the day could not be made")


async def opened(tx: Transaction, rows: Sequence[Row]) -> list[bytes | None]:
    """Open values, loading the data keys that they need; without a vault they are as they are."""
    vault = tx.vault
    if vault is None or not vault.keys.current:
        return [row.value for row in rows]
    missing = vault.sealer.lacks(row.value for row in rows)
    if missing:
        await vault.load(tx, sorted(missing))
    return [_opened(vault.sealer, row) for row in rows]


def _opened(sealer: Sealer, row: Row) -> bytes | None:
    if row.value is None:
        return None
    try:
        return sealer.open(row.column, row.row_id, row.value)
    except FailedPrecondition:
        if row.is_foreign:
            return row.value
        raise


async def opened_texts(tx: Transaction, rows: Sequence[tuple[str, bytes, str]]) -> list[str]:
    """Open texts: column, row and what stands there."""
    vault = tx.vault
    if vault is None or not vault.keys.current:
        return [text for _, _, text in rows]
    missing = vault.sealer.lacks(sealed_bytes(text) for _, _, text in rows)
    if missing:
        await vault.load(tx, sorted(missing))
    return [vault.sealer.open_text(*row) for row in rows]


async def opened_values(tx: Transaction, rows: Sequence[tuple[str, bytes, str]]) -> list[str]:
    """Open the values in JSON objects of arrays: column, row and what stands there."""
    vault = tx.vault
    if vault is None or not vault.keys.current:
        return [text for _, _, text in rows]
    missing = vault.sealer.lacks(value for _, _, text in rows for value in all_sealed_bytes(text))
    if missing:
        await vault.load(tx, sorted(missing))
    return [vault.sealer.open_values(*row) for row in rows]
