# SPDX-License-Identifier: Apache-2.0
"""What is personal in ClickHouse: erased, exported and searched as the chassis asks of every store."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.database import Transaction
from chassis.privacy import Erased, Traces

from svc_metrics.store.clickhouse import ClickHouse
from svc_metrics.store.people import PeopleStore


@dataclass(frozen=True)
class PersonalTable:
    """A table of ClickHouse that holds something about customers."""

    name: str
    where: str
    on_rebuild: bool = True


PERSONAL = (
    PersonalTable("events", "fragment_id IN {fragments:Array(UUID)}"),
    PersonalTable("segment_members", "profile_id IN {fragments:Array(UUID)}", on_rebuild=False),
    PersonalTable(
        "fragment_profiles",
        "fragment_id IN {fragments:Array(UUID)} OR profile_id IN {fragments:Array(UUID)}",
        on_rebuild=False,
    ),
)

IMPERSONAL = frozenset({"segments", "schema_steps"})

_COLUMNS = """
SELECT table, name, type FROM system.columns
WHERE database = currentDatabase() AND table IN (
    SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
)
ORDER BY table, position
"""

_MOST_AT_ONCE = 10_000


class PersonalColumns:
    """The personal tables of svc-metrics."""

    def __init__(self, clickhouse: ClickHouse, people: PeopleStore) -> None:
        self._clickhouse = clickhouse
        self._people = people

    async def tables(self) -> set[str]:
        """Name every table that there is."""
        return {row[0] for row in await self._clickhouse.rows(_COLUMNS)}

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Delete all rows of a customer; returns when they are gone from the parts on disk."""
        erased = Erased()
        for table in PERSONAL:
            if count := await self._delete(table, fragments):
                erased.removed[table.name] = count
        self._people.forget(fragments)
        return erased

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Delete the events of fragments that were derived again."""
        for table in PERSONAL:
            if table.on_rebuild:
                await self._delete(table, fragments)

    async def _delete(self, table: PersonalTable, fragments: Sequence[UUID]) -> int:
        given = {"fragments": list(fragments)}
        counted = await self._clickhouse.rows(f"SELECT count() FROM {table.name} WHERE {table.where}", **given)  # noqa: S608
        count: int = counted[0][0]
        if count:
            # A mutation, not a lightweight delete: that would only mask the rows until some later merge.
            await self._clickhouse.command(f"ALTER TABLE {table.name} DELETE WHERE {table.where}", **given)
        return count

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Read all rows of a customer, a page at a time."""
        for table in PERSONAL:
            names = [row[1] for row in await self._clickhouse.rows(_COLUMNS) if row[0] == table.name]
            columns, offset = ", ".join(names), 0
            while True:
                rows = await self._clickhouse.rows(
                    f"SELECT {columns} FROM {table.name} FINAL WHERE {table.where} ORDER BY ALL"  # noqa: S608
                    " LIMIT {most:UInt32} OFFSET {offset:UInt64}",
                    fragments=list(fragments),
                    most=_MOST_AT_ONCE,
                    offset=offset,
                )
                for row in rows:
                    yield table.name, {name: _readable(value) for name, value in zip(names, row, strict=True)}
                if len(rows) < _MOST_AT_ONCE:
                    break
                offset += len(rows)

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Search every column of every table."""
        found: dict[str, int] = {}
        for table, name, type_ in await self._clickhouse.rows(_COLUMNS):
            condition = _searching(name, type_)
            if condition:
                given = {"fragments": list(traces.fragments), "needles": traces.names}
                used = {key: value for key, value in given.items() if f"{{{key}:" in condition}
                sql = f"SELECT count() FROM {table} WHERE {condition}"  # noqa: S608
                found[f"{table}.{name}"] = (await self._clickhouse.rows(sql, **used))[0][0]
        return found


def _searching(column: str, type_: str) -> str:
    """Write the condition that finds a customer in a column; empty when its type cannot hold what names one."""
    if type_ == "UUID":
        return f"{column} IN {{fragments:Array(UUID)}}"
    if "String" in type_ and not type_.startswith(("Map", "Array")):
        # As a whole word, so that `kim` is not found in `kim-2`; RE2 knows no look-around.
        return (
            f"arrayExists(n -> {column} = n OR (length(n) > 3 AND positionCaseInsensitiveUTF8({column}, n) > 0"
            f" AND match({column}, concat('(?i)(^|[^\\\\pL\\\\pN_@+.-])', regexpQuoteMeta(n),"
            " '($|[^\\\\pL\\\\pN_@+.-]|[.]($|[^\\\\pL\\\\pN]))'))), {needles:Array(String)})"
        )
    return ""


def _readable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
