# SPDX-License-Identifier: Apache-2.0
"""Personal data in PostgreSQL: declared table by table, erased, exported and searched by statements made from that."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import text

from chassis.database import Transaction
from chassis.privacy.personal import Erased, Kept, Traces

Hook = Callable[[Transaction, Sequence[UUID]], Awaitable[None]]
Reveal = Callable[[Transaction, str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class PersonalTable:
    """A table that holds something about customers."""

    name: str
    where: str = "fragment_id = ANY (CAST(:fragments AS uuid[]))"
    """Which rows are a customer's, given `:fragments`, an array of uuid."""
    redact: str = ""
    """`SET` list that makes a row nobody's; rows are deleted when empty. `where` must not find the row afterwards."""
    why_kept: str = ""
    """Reason to tell when rows stay, redacted."""
    on_rebuild: bool = True
    """Whether rows go when their fragment was derived again under another one."""
    exported: bool = True
    exported_where: str = ""
    """Which rows are exported, when fewer: those that name others too are not."""
    left_out: tuple[str, ...] = ()
    """Columns that are not exported: they are the machine's, not the customer's."""
    file: str = ""
    """Name of the exported file; the table's when empty."""
    present: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
    """Makes a row readable."""


def by_profile(name: str, column: str = "profile_id", **more: Any) -> PersonalTable:
    """Declare a table whose rows are keyed by profile id, which is the id of one of the customer's fragments."""
    return PersonalTable(name, f"{column} = ANY (CAST(:fragments AS uuid[]))", **more)


FRAGMENT_PROFILES = PersonalTable(
    "fragment_profiles",
    "fragment_id = ANY (CAST(:fragments AS uuid[])) OR profile_id = ANY (CAST(:fragments AS uuid[]))",
    on_rebuild=False,
    left_out=("revision",),
    file="identity_mapping",
)
"""The chassis's own table of who is who."""

CHASSIS_TABLES = (
    PersonalTable("fragment_consents", on_rebuild=False, left_out=("revision",), file="consents_heard"),
    PersonalTable(
        "access_log",
        redact="fragment_id = NULL",
        why_kept="who read personal data stays on record, without whose they were",
        on_rebuild=False,
        left_out=("trace_id",),
        file="accesses",
    ),
    FRAGMENT_PROFILES,
)
"""What every service's database holds."""

IMPERSONAL = frozenset(
    {
        "alembic_version", "chassis_version", "forgotten_revision", "heard_personal_traits", "heard_retention_revision",
        "heard_retention_rules", "inbox", "outbox", "purpose_defaults", "retention_runs",
    }
)  # fmt: skip
"""Tables of the chassis that hold nothing about customers for longer than it takes to send it."""

TOMBSTONES = "forgotten_fragments"

_COLUMNS = """
SELECT c.relname AS table_name, a.attname AS column_name, format_type(a.atttypid, NULL) AS type
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> ALL (CAST(:but AS text[]))
ORDER BY c.relname, a.attnum
"""

# Nearly every row names nobody: the first, simple pattern says so fast. Bytes that are no ASCII are octal numbers in
# this spelling, and would be parts of words.
_IN_TEXT = "(CAST({column} AS text) ~* :anywhere AND CAST({column} AS text) ~* :pattern)"
_IN_BYTES = (
    "(encode({column}, 'escape') ~* :anywhere_in_bytes AND ("
    "regexp_replace(encode({column}, 'escape'), '\\\\[0-7]{{3}}', ' ', 'g') ~* :pattern"
    " OR EXISTS (SELECT FROM unnest(CAST(:needles AS bytea[])) AS n (n) WHERE position(n IN {column}) > 0)))"
)
_FOUND_BY_TYPE = {
    "uuid": "{column} = ANY (CAST(:fragments AS uuid[]))",
    "uuid[]": "{column} && CAST(:fragments AS uuid[])",
    "bytea": _IN_BYTES,
    "bytea[]": "EXISTS (SELECT FROM unnest({column}) AS b (b) WHERE " + _IN_BYTES.replace("{column}", "b") + ")",
    "text": _IN_TEXT, "character varying": _IN_TEXT, "json": _IN_TEXT, "jsonb": _IN_TEXT, "name": _IN_TEXT,
    "text[]": _IN_TEXT, "jsonb[]": _IN_TEXT, "json[]": _IN_TEXT,
}  # fmt: skip
"""How a column of each type is searched; the other types cannot hold what names a customer."""


class PersonalTables:
    """The personal tables of one service's database."""

    def __init__(
        self,
        tables: Sequence[PersonalTable],
        *,
        impersonal: Sequence[str] = (),
        unsearched: Sequence[str] = (),
        before: Hook | None = None,
        after: Hook | None = None,
        reveal: Reveal | None = None,
    ) -> None:
        """Take the declarations.

        `impersonal` are the other tables, of which nothing is a customer's. `unsearched` are tables that name the
        customer while a request runs. `before` and `after` run around an erasure and a rebuild: to hold off writers,
        to have derived data made again. `reveal` opens what is sealed in a row of a table.
        """
        self.tables = (*tables, *CHASSIS_TABLES)
        self.impersonal = frozenset(impersonal) | IMPERSONAL
        self._unsearched = [*unsearched, TOMBSTONES]
        self._before = before
        self._after = after
        self._reveal = reveal

    @property
    def declared(self) -> frozenset[str]:
        """Names of all tables that something was said about."""
        return frozenset(table.name for table in self.tables) | self.impersonal | {TOMBSTONES}

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Delete or redact all rows of a customer."""
        if self._before:
            await self._before(tx, fragments)
        erased = Erased()
        for table in self.tables:
            count = await tx.execute(_erasing(table), fragments=list(fragments))
            if count and table.why_kept:
                erased.kept.append(Kept(table.name, count, table.why_kept))
            elif count:
                erased.removed[table.name] = count
        # Not for nothing: what derived data are made again from may itself name the customer for a moment.
        if self._after and erased.removed:
            await self._after(tx, fragments)
        return erased

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Delete the data rows of fragments that were derived again."""
        if not any(table.on_rebuild for table in self.tables):
            return
        if self._before:
            await self._before(tx, fragments)
        for table in self.tables:
            if table.on_rebuild:
                await tx.execute(_erasing(table), fragments=list(fragments))
        if self._after:
            await self._after(tx, fragments)

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Read all rows of a customer through a cursor."""
        for table in self.tables:
            if not table.exported:
                continue
            parameters = {"fragments": list(fragments), "left_out": list(table.left_out)}
            result = await tx.connection.stream(text(_exporting(table)), parameters)
            async for (row,) in result:
                decoded = msgspec.json.decode(row)
                if self._reveal:
                    decoded = await self._reveal(tx, table.name, decoded)
                yield table.file or table.name, table.present(decoded) if table.present else decoded

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Search all columns that can hold what names a customer, one scan for each table."""
        columns: dict[str, dict[str, str]] = {}
        for row in await tx.rows(_COLUMNS, but=self._unsearched):
            if row.type in _FOUND_BY_TYPE:
                columns.setdefault(row.table_name, {})[row.column_name] = row.type
        given = {
            "fragments": list(traces.fragments),
            "anywhere": traces.anywhere,
            "anywhere_in_bytes": traces.anywhere_in_bytes,
            "pattern": traces.pattern,
            "needles": traces.needles,
        }
        found: dict[str, int] = {}
        for table, types in columns.items():
            sql = _probing(table, types)
            used = {name: value for name, value in given.items() if re.search(f":{name}\\b", sql)}
            counts = await tx.row(sql, **used)
            found |= {f"{table}.{column}": count for column, count in zip(types, counts or (), strict=True)}
        return found


# The names in these statements are those of declared tables and of the catalogue, never data.
def _erasing(table: PersonalTable) -> str:
    if table.redact:
        return f"UPDATE {table.name} SET {table.redact} WHERE {table.where}"  # noqa: S608
    return f"DELETE FROM {table.name} WHERE {table.where}"  # noqa: S608


def _exporting(table: PersonalTable) -> str:
    where = table.exported_where or table.where
    return f"SELECT CAST(to_jsonb(t) - CAST(:left_out AS text[]) AS text) FROM {table.name} t WHERE {where}"  # noqa: S608


def _probing(table: str, types: Mapping[str, str]) -> str:
    counts = ", ".join(
        f"count(*) FILTER (WHERE {_FOUND_BY_TYPE[type_].format(column=_quoted(column))})"
        for column, type_ in types.items()
    )
    return f"SELECT {counts} FROM {_quoted(table)}"  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
