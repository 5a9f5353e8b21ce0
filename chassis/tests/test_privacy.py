# SPDX-License-Identifier: Apache-2.0
"""What a customer is recognised by: the customer, and nobody with a similar name."""

import pytest
from chassis.identity import Identifier, IdentityKey
from chassis.privacy import Traces
from chassis.testing import IDENTITY_KEY
from dangol.events.v1.events_pb2 import Event

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
