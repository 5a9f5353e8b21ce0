# SPDX-License-Identifier: Apache-2.0
"""Event schemas, and every version that they ever had."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chassis.database import Transaction
from chassis.errors import NotFound
from sqlalchemy import Row

from svc_profile.domain.schemas import Enforcement, EventSchema

_COLUMNS = "name, schema, enforcement, description, version, created_by, created_us, updated_by, updated_us"

_VALUES = """
VALUES (
    :name, CAST(:schema AS jsonb), :enforcement, :description, :version,
    :created_by, :created_us, :updated_by, :updated_us
)
"""

_PUT = f"""
INSERT INTO event_schemas ({_COLUMNS}) {_VALUES}
ON CONFLICT (name) DO UPDATE SET schema = excluded.schema, enforcement = excluded.enforcement,
    description = excluded.description, version = excluded.version,
    updated_by = excluded.updated_by, updated_us = excluded.updated_us
"""

_NOTE = f"""
INSERT INTO event_schema_versions ({_COLUMNS}) {_VALUES}
ON CONFLICT (name, version) DO UPDATE SET description = excluded.description
"""

_ALL = f"SELECT {_COLUMNS} FROM event_schemas"  # noqa: S608
_VERSIONS = f"SELECT {_COLUMNS} FROM event_schema_versions"  # noqa: S608


class SchemaStore:
    """The schemas of one installation."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def hold(self) -> None:
        """Keep everybody else from changing a schema until the end of the transaction; counts a change."""
        await self._tx.execute("UPDATE event_schema_set SET revision = revision + 1")

    async def revision(self) -> int:
        """Return a number that grows whenever any schema changes."""
        return int(await self._tx.value("SELECT revision FROM event_schema_set"))

    async def find(self, name: str) -> EventSchema | None:
        """Return the schema of a name, if it has one."""
        row = await self._tx.row(f"{_ALL} WHERE name = :name", name=name)
        return _schema(row) if row else None

    async def get(self, name: str) -> EventSchema:
        """Return the schema of a name; raises `NotFound`."""
        found = await self.find(name)
        if found is None:
            raise NotFound("no schema has this name")
        return found

    async def get_version(self, name: str, version: int) -> EventSchema:
        """Return a schema as it was in a version; raises `NotFound`."""
        row = await self._tx.row(f"{_VERSIONS} WHERE name = :name AND version = :version", name=name, version=version)
        if row is None:
            raise NotFound("no schema has this name and version")
        return _schema(row)

    async def newest_version(self, name: str) -> int:
        """Return the number of the last version that the schema of a name ever had; 0 is none."""
        sql = "SELECT coalesce(max(version), 0) FROM event_schema_versions WHERE name = :name"
        return int(await self._tx.value(sql, name=name))

    async def all(self) -> list[EventSchema]:
        """Return every schema."""
        return [_schema(row) for row in await self._tx.rows(_ALL)]

    async def page(self, *, after: str, most: int) -> list[EventSchema]:
        """Return schemas by name, after a name."""
        rows = await self._tx.rows(f"{_ALL} WHERE name > :after ORDER BY name LIMIT :most", after=after, most=most)
        return [_schema(row) for row in rows]

    async def of_names(self, names: Sequence[str]) -> dict[str, EventSchema]:
        """Return the schemas of some names."""
        rows = await self._tx.rows(f"{_ALL} WHERE name = ANY (CAST(:names AS text[]))", names=list(names))
        return {row.name: _schema(row) for row in rows}

    async def versions(self, name: str, *, before: int, most: int) -> list[EventSchema]:
        """Return the versions of a schema below a version, newest first."""
        rows = await self._tx.rows(
            f"{_VERSIONS} WHERE name = :name AND version < :before ORDER BY version DESC LIMIT :most",
            name=name,
            before=before,
            most=most,
        )
        return [_schema(row) for row in rows]

    async def put(self, schema: EventSchema) -> None:
        """Keep a schema, and its version."""
        values = {**asdict(schema), "schema": json.dumps(schema.schema), "enforcement": int(schema.enforcement)}
        await self._tx.execute(_PUT, **values)
        await self._tx.execute(_NOTE, **values)

    async def delete(self, name: str) -> None:
        """Delete a schema; its versions stay."""
        await self._tx.execute("DELETE FROM event_schemas WHERE name = :name", name=name)


def _schema(row: Row[Any]) -> EventSchema:
    return EventSchema(
        name=row.name,
        schema=row.schema,
        enforcement=Enforcement(row.enforcement),
        description=row.description,
        version=row.version,
        created_by=row.created_by,
        created_us=row.created_us,
        updated_by=row.updated_by,
        updated_us=row.updated_us,
    )
