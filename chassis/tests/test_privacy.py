# SPDX-License-Identifier: Apache-2.0
"""What a customer is recognised by: the customer, and nobody with a similar name."""

from collections.abc import AsyncIterator
from typing import ClassVar
from uuid import UUID

import pytest
from chassis.database import Database
from chassis.identity import Identifier, IdentityKey
from chassis.privacy import PersonalTables, Traces
from chassis.settings import ServiceSettings
from chassis.testing import IDENTITY_KEY, Engines, settings_for
from dangol.events.v1.events_pb2 import Event
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Settings(ServiceSettings):
    service: ClassVar[str] = "searched"


KIM = IdentityKey(bytes.fromhex(IDENTITY_KEY)).fragment_id(Identifier("user_id", "kim-1"))
TRACES = Traces([KIM], ["kim-1", "kim@example.com", "7", "김단골"])


@pytest.mark.parametrize(
    "text",
    [
        '{"userId": "kim-1"}', "KIM@Example.com", "write to kim@example.com.", "?mail=kim@example.com&x=1",
        '{"id":"7"}', "고객 김단골 님", str(KIM), "…kim-1…",
    ],
)  # fmt: skip
def test_a_customer_is_found_by_every_name(text: str) -> None:
    """In any case of letters, inside of JSON, of an address, of a sentence."""
    assert TRACES.found_in(text.encode())


@pytest.mark.parametrize(
    "text", ["kim-12", "kim-1-2", "akim-1", "kim@example.com.kr", "joakim@example.com", "17", '{"id":"77"}', "at 7 pm"]
)
def test_somebody_with_a_similar_name_is_somebody_else(text: str) -> None:
    """A part of a longer word is nobody's name."""
    assert not TRACES.found_in(text.encode())


def test_a_message_is_searched_as_it_is_written() -> None:
    """Also where the length of a name looks like a letter of it, and by the bytes of the fragment."""
    long = "a" * 64
    assert Traces([], [long]).found_in(Event(user_id=long).SerializeToString())
    assert not Traces([], [long[1:]]).found_in(Event(user_id=long).SerializeToString())
    assert TRACES.found_in(Event(fragment_id=KIM.bytes).SerializeToString())


@pytest.fixture(scope="module")
async def database(engines: Engines) -> AsyncIterator[Database]:
    """Any database of PostgreSQL."""
    opened = Database(settings_for(Settings, engines))
    await opened.create()
    yield opened
    await opened.close()


WORDS = st.sampled_from(["kim", "kim-1", "kim@example.com", "+821012345678", "김단골", "7", "a.b", "x^y$"])
TEXTS = st.lists(
    st.one_of(WORDS, st.sampled_from(['"', " ", "-", ".", "@", "+", "_", "{", "\\", "님", "K", "\x01", "2", "\n"])),
    max_size=6,
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, min_size=1, max_size=3), TEXTS)
async def test_postgresql_and_python_find_the_same(database: Database, names: list[str], text: str) -> None:
    """A row is found by the one and a message by the other; a short name as the whole text, or in quotes."""
    long = Traces([], [name for name in names if len(name.encode()) >= 4])
    async with database.snapshot() as tx:
        found = await tx.value("SELECT CAST(:text AS text) ~* :pattern", text=text, pattern=long.pattern)
        alone = await tx.value(
            "SELECT bool_and(t ~* :pattern) FROM unnest(CAST(:texts AS text[])) AS g (t)",
            texts=[spelt for name in names for spelt in (name, f'{{"id":"{name}"}}')],
            pattern=Traces([], names).pattern,
        )
    assert found == (long.word.search(text) is not None)
    assert alone


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.uuids(),
    st.sampled_from(["kim-1", "kim@example.com", "김단골", "a" * 64]),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
async def test_whatever_stands_around_it_a_name_is_found_in_bytes(
    database: Database, fragment: UUID, name: str, before: bytes, after: bytes
) -> None:
    """As a field of a message, as a value in JSON, and as the id of a fragment."""
    traces = Traces([fragment], [name])
    written = [
        before + Event(user_id=name).SerializeToString() + after,
        before + f'{{"id":"{name}"}}'.encode() + after,
        before + fragment.bytes + after,
    ]
    async with database.rehearsal() as tx:
        await tx.execute("CREATE TABLE searched (data bytea, nothing bytea)")
        await tx.execute(
            "INSERT INTO searched SELECT d, CAST('kim-12 skim-1' AS bytea)"
            " FROM unnest(CAST(:written AS bytea[])) AS g (d)",
            written=written,
        )
        found = await PersonalTables(()).probe(tx, traces)
    assert found == {"searched.data": 3, "searched.nothing": 0}
    assert all(traces.found_in(data) for data in written)
