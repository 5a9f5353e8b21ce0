# SPDX-License-Identifier: Apache-2.0
"""Bring a service's database to the newest schema: the chassis's tables first, then the service's own (Alembic)."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from chassis.database import Database

_CHASSIS = Path(__file__).parent / "schema"
_LOCK = 0x44414E474F4C  # "DANGOL"


async def migrate(database: Database, folder: Path) -> None:
    """Create the database if need be and run every migration that it lacks; replicas wait for one another."""
    await database.create()
    async with database.engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_upgrade, _CHASSIS, "chassis_version")
        if folder.is_dir():  # noqa: ASYNC240  a look at one local folder, once per process
            await connection.run_sync(_upgrade, folder, "alembic_version")


def _upgrade(connection: Connection, folder: Path, version_table: str) -> None:
    script = ScriptDirectory(str(folder))

    def steps(revision: object, _context: object) -> object:
        return script._upgrade_revs("head", revision)  # type: ignore[arg-type]

    environment = EnvironmentContext(Config(), script, fn=steps)
    with environment:
        environment.configure(connection=connection, version_table=version_table)
        environment.run_migrations()
