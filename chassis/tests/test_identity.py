# SPDX-License-Identifier: Apache-2.0
"""Names of customers: one spelling, one fragment, readable ids."""

from uuid import UUID

import pytest
from chassis.errors import Invalid
from chassis.identity import (
    Identifier,
    IdentityKey,
    format_profile_id,
    parse_profile_id,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = IdentityKey(bytes(range(16)))


@given(st.uuids())
def test_reads_back_every_profile_id(profile_id: UUID) -> None:
    text = format_profile_id(profile_id)
    assert len(text) == 30
    assert parse_profile_id(text) == profile_id


@given(st.lists(st.uuids(), min_size=2, max_size=20))
def test_profile_ids_sort_like_their_numbers(ids: list[UUID]) -> None:
    assert [format_profile_id(i) for i in sorted(ids)] == sorted(map(format_profile_id, ids))


@pytest.mark.parametrize("text", ["", "prf_", "prf_123", "prf_" + "Z" * 26, "prf_" + "U" * 26, "user_id:u1"])
def test_refuses_what_is_no_profile_id(text: str) -> None:
    with pytest.raises(Invalid):
        parse_profile_id(text)


@pytest.mark.parametrize(
    "reference", ["", "u1", ":u1", "user id:u1", "user_id:", "user_id:null", "email:kim", "userid:u1"]
)
def test_says_what_a_reference_looks_like(reference: str) -> None:
    with pytest.raises(Invalid) as caught:
        KEY.resolve(reference)
    assert caught.value.violations[0].field == "profile"


def test_a_reference_names_the_fragment_of_its_identifier() -> None:
    fragment = KEY.fragment_id(Identifier("email", "kim@example.com"))
    assert KEY.resolve("email:Kim@Example.com") == fragment
    assert KEY.resolve(format_profile_id(fragment)) == fragment


def test_another_key_gives_other_fragments() -> None:
    """Without the key nobody can guess the fragment of an identifier."""
    other = IdentityKey(bytes(16))
    identifier = Identifier("user_id", "u1")
    assert KEY.fragment_id(identifier) != other.fragment_id(identifier)


def test_namespace_and_value_cannot_be_confused() -> None:
    assert KEY.fragment_id(Identifier("a", "bc")) != KEY.fragment_id(Identifier("ab", "c"))


def test_refuses_a_key_that_is_too_short() -> None:
    with pytest.raises(Invalid, match="at least 16 bytes"):
        IdentityKey(b"short")
