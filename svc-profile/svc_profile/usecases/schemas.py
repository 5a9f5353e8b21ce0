# SPDX-License-Identifier: Apache-2.0
"""Keep event schemas, and hold the enforced ones ready for every process that judges events."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chassis.database import Database, Transaction
from chassis.errors import Conflict
from chassis.watching import Watched

from svc_profile.domain.schemas import Enforcement, EventSchema, Judge, Judges, SchemaDraft, Violation, judges_of
from svc_profile.store.schemas import SchemaStore

log = logging.getLogger(__name__)


class SchemaBook(Watched):
    """The enforced schemas as this process knows them: read at start, and again when one has changed.

    Who judges an event reads a mapping in memory; while no schema is enforced it is empty.
    """

    what = "event schemas"

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision = 0
        self.judges: Judges = {}

    async def refresh(self) -> None:
        """Read the schemas if one has changed."""
        async with self._database.snapshot() as tx:
            schemas = SchemaStore(tx)
            # The revision first: schemas that are newer than it are only read once more.
            revision = await schemas.revision()
            if revision != self._revision:
                self.judges, broken = judges_of(await schemas.all())
                for name in broken:
                    # Each was compiled before it was kept; only another version of the library can find fault with it.
                    log.error("the schema of %s cannot be compiled and is not enforced", name)
                self._revision = revision


async def create_schema(tx: Transaction, draft: SchemaDraft, *, by: str, now_us: int) -> EventSchema:
    """Keep a new schema; answers the one that is there when it is the same."""
    schema = EventSchema(
        name=draft.name,
        schema=draft.schema or {},
        enforcement=draft.enforcement or Enforcement.WARN,
        description=draft.description or "",
        created_by=by,
        created_us=now_us,
        updated_by=by,
        updated_us=now_us,
    )
    Judge(schema.schema)
    schemas = SchemaStore(tx)
    await schemas.hold()
    earlier = await schemas.find(schema.name)
    if earlier is None:
        schema = replace(schema, version=await schemas.newest_version(schema.name) + 1)
        await schemas.put(schema)
        return schema
    if _content(earlier) != _content(schema):
        raise Conflict("these events have another schema already; change it, or delete it first")
    return earlier


async def update_schema(tx: Transaction, draft: SchemaDraft, *, by: str, now_us: int) -> EventSchema:
    """Change a schema; a change of what is enforced is a new version."""
    schemas = SchemaStore(tx)
    await schemas.hold()
    before = await schemas.get(draft.name)
    after = replace(
        before,
        schema=before.schema if draft.schema is None else draft.schema,
        enforcement=draft.enforcement or before.enforcement,
        description=before.description if draft.description is None else draft.description,
    )
    if after == before:
        return before
    Judge(after.schema)
    is_new = (after.schema, after.enforcement) != (before.schema, before.enforcement)
    after = replace(after, version=before.version + is_new, updated_by=by, updated_us=now_us)
    await schemas.put(after)
    return after


async def delete_schema(tx: Transaction, name: str) -> None:
    """Delete a schema; its versions stay readable."""
    schemas = SchemaStore(tx)
    await schemas.hold()
    await schemas.get(name)
    await schemas.delete(name)


async def get_schema(tx: Transaction, name: str, version: int = 0) -> EventSchema:
    """Return a schema, or what it was in a version."""
    schemas = SchemaStore(tx)
    return await (schemas.get_version(name, version) if version else schemas.get(name))


async def list_schemas(tx: Transaction, *, after: str, most: int) -> list[EventSchema]:
    """Return schemas by name."""
    return await SchemaStore(tx).page(after=after, most=most)


async def list_versions(tx: Transaction, name: str, *, before: int, most: int) -> list[EventSchema]:
    """Return the versions of a schema, newest first."""
    return await SchemaStore(tx).versions(name, before=before, most=most)


async def try_schema(
    tx: Transaction, name: str, schema: Mapping[str, Any] | None, samples: Sequence[Mapping[str, Any]]
) -> list[list[Violation]]:
    """Return the rules that do not hold for each sample, by a given schema or that of a name."""
    judge = Judge((await get_schema(tx, name)).schema if schema is None else schema)
    return [judge.violations(sample) for sample in samples]


def _content(schema: EventSchema) -> tuple[Mapping[str, Any], Enforcement, str]:
    return schema.schema, schema.enforcement, schema.description
