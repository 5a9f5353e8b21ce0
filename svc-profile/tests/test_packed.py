# SPDX-License-Identifier: Apache-2.0
"""Rows that go to PostgreSQL in two parameters, and those that go by COPY."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from asyncpg import UniqueViolationError
from chassis.testing import Engines, RunningService, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from svc_profile.app import build
from svc_profile.settings import Settings
from svc_profile.store.copied import Copied
from svc_profile.store.packed import Packed

ROWS = Packed("rows", who="uuid", at="bigint", until="bigint?", name="text", note="text?")
COPIED = Copied("copied", who="uuid", owner="uuid?", at="bigint", name="text", note="text?", data="bytea?")
TABLE = """
CREATE TEMPORARY TABLE copied (
    place integer GENERATED ALWAYS AS IDENTITY, data bytea, note text, name text, at bigint, owner uuid,
    who uuid UNIQUE
) ON COMMIT DROP
"""
SQL = f"SELECT who, at, until, name, note FROM {ROWS.sql} AS g"

uuids = st.binary(min_size=16, max_size=16)
numbers = st.integers(-(2**63) + 1, 2**63 - 1)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
rows = st.lists(st.tuples(uuids, numbers, st.none() | numbers, texts, st.none() | texts), min_size=1, max_size=30)
copied_rows = st.lists(
    st.tuples(uuids, st.none() | uuids, numbers, texts, st.none() | texts, st.none() | st.binary(max_size=40)),
    unique_by=lambda row: row[0],
    max_size=30,
)


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, roles=()) as service:
        yield service


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
async def test_what_goes_in_comes_out(service: RunningService, given_rows: list[tuple[Any, ...]]) -> None:
    """In the same order: also nothing, empty texts, Korean ones and the largest numbers."""
    who, at, until, name, note = map(list, zip(*given_rows, strict=True))
    packed = ROWS.parameters(
        who=who,
        at=at,
        until=until,
        name=[text.encode() for text in name],
        note=[None if text is None else text.encode() for text in note],
    )
    async with service.database.snapshot() as tx:
        found = [tuple(row) for row in await tx.rows(SQL, **packed)]
    assert found == [(UUID(bytes=row[0]), *row[1:]) for row in given_rows]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(copied_rows)
async def test_what_is_copied_is_there(service: RunningService, given_rows: list[tuple[Any, ...]]) -> None:
    """In any order of columns; where one row is there already, none comes in and the transaction goes on."""
    who, owner, at, name, note, data = zip(*given_rows, strict=True) if given_rows else [()] * 6
    columns = {
        "who": who,
        "owner": owner,
        "at": at,
        "name": [text.encode() for text in name],
        "note": [None if text is None else text.encode() for text in note],
        "data": data,
    }
    async with service.database.rehearsal() as tx:
        await tx.execute(TABLE)
        await COPIED.bring(tx, **columns)
        if given_rows:
            with pytest.raises(UniqueViolationError):
                await COPIED.bring(tx, **columns)
        found = await tx.rows("SELECT who, owner, at, name, note, data FROM copied ORDER BY place")
    assert [tuple(row) for row in found] == [
        (UUID(bytes=row[0]), None if row[1] is None else UUID(bytes=row[1]), *row[2:]) for row in given_rows
    ]
