# SPDX-License-Identifier: Apache-2.0
"""Columns that are sealed: those that were not when the option was turned on, a part at a time; and searched."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chassis.database import Database, Transaction
from chassis.encryption.sealing import TEXT_MARK
from chassis.encryption.vault import Row, opened, opened_texts, opened_values
from chassis.privacy import Erased, Traces


@dataclass(frozen=True)
class SealedColumn:
    """A column that is sealed when there are keys."""

    table: str
    column: str
    key: Mapping[str, str]
    """Columns of the table's key, in its order, each with its type."""
    row_id: str
    """What a value is bound to, as SQL that answers bytes."""
    is_text: bool = False
    is_json: bool = False
    """Whether it holds JSON objects of arrays, of which each first element is sealed."""
    among: str = "true"
    """Condition in SQL: the rows whose value is sealed."""
    is_searched: bool = True
    """Whether the probe of an erasure looks into it."""
    at_once: int = 500
    """How many values are in memory at a time."""

    @property
    def name(self) -> str:
        """The column with its table, as values are bound to it."""
        return f"{self.table}.{self.column}"

    @property
    def is_sealed(self) -> str:
        """Condition in SQL: the value is sealed."""
        if self.is_json:
            return f"position('[\"{TEXT_MARK}' IN CAST({self.column} AS text)) > 0"
        if self.is_text:
            return f"starts_with({self.column}, '{TEXT_MARK}')"
        return f"substring({self.column} FROM 1 FOR 4) = decode('00647631', 'hex')"


@dataclass(frozen=True)
class Progress:
    """How far a column is."""

    column: str
    sealed_count: int
    """Rows that were there before and have been sealed since."""
    done: bool


# The names in these statements are those of declared columns, never data. A place is the key of a row as a JSON array.
def _page(column: SealedColumn, condition: str, lock: str) -> str:
    names = ", ".join(column.key)
    return f"""
    SELECT CAST(jsonb_build_array({names}) AS text) AS place, {column.row_id} AS row_id, {_read(column)} AS value
    FROM {column.table}
    WHERE (CAST(:after AS text) = '' OR ({names}) > ({_key_in("nullif(CAST(:after AS text), '')", column)}))
        AND {column.column} IS NOT NULL AND {column.among} AND {condition}
    ORDER BY {names} LIMIT :most {lock}
    """  # noqa: S608


def _key_in(place: str, column: SealedColumn) -> str:
    types = enumerate(column.key.values())
    return ", ".join(f"CAST(CAST({place} AS jsonb) ->> {number} AS {type_})" for number, type_ in types)


def _read(column: SealedColumn) -> str:
    return f"CAST({column.column} AS text)" if column.is_json else column.column


def _sealing(column: SealedColumn) -> str:
    type_ = "text" if column.is_text or column.is_json else "bytea"
    names = ", ".join(f"t.{name}" for name in column.key)
    return f"""
    UPDATE {column.table} AS t SET {column.column} = {"CAST(g.value AS jsonb)" if column.is_json else "g.value"}
    FROM unnest(CAST(:places AS text[]), CAST(:values AS {type_}[])) AS g (place, value)
    WHERE ({names}) = ({_key_in("g.place", column)})
    """  # noqa: S608


class Columns:
    """The sealed columns of one service; also a store of personal data, that the probe of an erasure looks into."""

    def __init__(self, database: Database, columns: Sequence[SealedColumn]) -> None:
        self._database = database
        self._columns = columns

    async def seal_all(self) -> None:
        """Seal what stands there unsealed, part by part; a run that was broken off goes on where it was."""
        vault = self._database.vault
        if vault is None or not vault.sealer.is_on:
            return
        for column in self._columns:
            more = True
            while more:
                async with self._database.transaction() as tx:
                    more = await self.seal_some(tx, column)

    async def seal_some(self, tx: Transaction, column: SealedColumn, most: int = 0) -> bool:
        """Seal some values of a column; tells whether there may be more."""
        most = most or column.at_once
        progress = await tx.row("SELECT * FROM sealing_progress WHERE column_name = :name", name=column.name)
        if progress is not None and progress.done:
            return False
        after = progress.after if progress is not None else ""
        rows = await tx.rows(_page(column, f"NOT {column.is_sealed}", "FOR UPDATE"), after=after, most=most)
        sealer = tx.sealer
        seal: Any = sealer.seal_values if column.is_json else sealer.seal_text if column.is_text else sealer.seal
        await tx.execute(
            _sealing(column),
            places=[row.place for row in rows],
            values=[seal(column.name, row.row_id, row.value) for row in rows],
        )
        await tx.execute(
            """
            INSERT INTO sealing_progress AS p (column_name, after, sealed_count, done)
            VALUES (:name, :after, :count, :done) ON CONFLICT (column_name) DO UPDATE SET
                after = excluded.after, sealed_count = p.sealed_count + excluded.sealed_count, done = excluded.done
            """,
            name=column.name,
            after=rows[-1].place if rows else after,
            count=len(rows),
            done=len(rows) < most,
        )
        return len(rows) == most

    async def progress(self, tx: Transaction) -> list[Progress]:
        """Tell how far each column is."""
        found = {row.column_name: row for row in await tx.rows("SELECT * FROM sealing_progress")}
        return [
            Progress(column.name, found[column.name].sealed_count, found[column.name].done)
            if column.name in found
            else Progress(column.name, 0, done=False)
            for column in self._columns
        ]

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Nothing: the tables are erased with the others."""
        return Erased()

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Nothing."""

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Nothing: the tables are exported with the others."""
        nothing: Sequence[tuple[str, Mapping[str, Any]]] = ()
        for each in nothing:
            yield each

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Open every sealed value and search it: SQL sees nothing in it."""
        if tx.vault is None or not tx.sealer.is_on:
            return {}
        found = {}
        for column in self._columns:
            if column.is_searched:
                values = _values(tx, column)
                found[column.name] = sum([traces.found_in(value) async for value in values])
        return found


async def _values(tx: Transaction, column: SealedColumn) -> AsyncIterator[bytes]:
    """Return every value of a column as it was before it was sealed."""
    after = ""
    while rows := await tx.rows(_page(column, "true", ""), after=after, most=column.at_once):
        if column.is_text or column.is_json:
            open_all = opened_values if column.is_json else opened_texts
            for text in await open_all(tx, [(column.name, row.row_id, row.value) for row in rows]):
                yield text.encode()
        else:
            for value in await opened(tx, [Row(column.name, row.row_id, row.value) for row in rows]):
                yield value or b""
        after = rows[-1].place
