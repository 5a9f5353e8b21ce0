# SPDX-License-Identifier: Apache-2.0
"""What a customer is recognised by: the customer, and nobody with a similar name."""

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest
from chassis.database import Database
from chassis.identity import Identifier, IdentityKey
from chassis.privacy import Traces
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
    """A row is found by the one and a message by the other."""
    traces = Traces([], names)
    async with database.snapshot() as tx:
        found = await tx.value("SELECT CAST(:text AS text) ~* :pattern", text=text, pattern=traces.pattern)
    long = [name for name in names if len(name.encode()) >= 4]
    alone = {f'"{name}"' for name in names} | set(names)
    if not any(f'"{name}"' in text or text == name for name in set(names) - set(long)):
        assert found == (Traces([], long).word.search(text) is not None), (names, text)
    if text in alone:
        assert found
