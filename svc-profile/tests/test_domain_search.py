# SPDX-License-Identifier: Apache-2.0
"""How text is compared when staff looks for a customer."""

import pytest
from chassis.errors import Invalid
from hypothesis import assume, example, given
from hypothesis import strategies as st
from svc_profile.domain.search import (
    BREAK,
    NAME,
    entries_of,
    entry,
    fold,
    grams_within,
    initials,
    names_in,
    read_query,
    word_grams,
)

KEY = bytes(16)
TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("김단골나비닭값ㄱㄴㅏ각 가나 aBcé🍊👨‍👩‍👧金한 0123-@."),
    ),
    max_size=12,
)


def finds(query: str, kind: str, value: str) -> bool:
    """Tell what the index and the look after it tell, without a database."""
    found, asked = entry(KEY, kind, value), read_query(query)
    if found is None:
        return False
    grams = set(found.grams)
    by_words = grams.issuperset(word_grams(asked.words)) and all(word in found.text for word in asked.words)
    digits = asked.digits
    by_digits = bool(digits) and kind == "phone" and grams.issuperset(grams_within(digits)) and digits in found.text
    return by_words or by_digits


@given(TEXT, TEXT, TEXT)
@example("김단", "골", "")
@example("", "e\u0301", "")
@example("x", "\u1100\u1161", "y")
@example("", "金", "")
def test_what_stands_inside_a_value_is_found(before: str, middle: str, after: str) -> None:
    """Whatever LIKE would find: in any script, composed or not, with emoji."""
    try:
        read_query(middle)
    except Invalid:
        assume(False)
    assert finds(middle, NAME, before + middle + after)


@given(TEXT, TEXT)
def test_the_parts_fold_into_parts(one: str, other: str) -> None:
    assert fold(one) + fold(other) == fold(one + other)


@given(TEXT)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(TEXT, TEXT)
def test_what_begins_a_value_is_found_by_the_mark_of_its_beginning(begin: str, rest: str) -> None:
    assume(len(fold(begin)) > 1)
    found = entry(KEY, NAME, begin + rest)
    assert found is not None
    assert set(found.grams).issuperset(grams_within(BREAK + fold(begin)))
    assert BREAK + fold(begin) in found.text


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("ㄱㄷㄱ", "김단골"),
        ("ㄷㄱ", "김단골"),
        ("김다", "김단골"),
        ("김단ㄱ", "김단골"),
        ("김단고", "김단골"),
        ("달", "닭갈비"),
        ("KIM", "kim"),
        ("jose", "José"),
        ("김단골", "김 단골"),
        ("단골 김", "김단골"),
        ("ｋｉｍ", "kim"),
        ("strasse", "Straße"),
        ("dangol@ex", "kim.dangol@example.com"),
        ("金", "金大中"),
        ("🍊", "감귤🍊농장"),
    ],
)
def test_staff_finds_a_name_by_what_it_types(query: str, value: str) -> None:
    assert finds(query, NAME, value)


@pytest.mark.parametrize(("query", "value"), [("ㄱㄱ", "김단골"), ("이단", "김단골"), ("mik", "kim"), ("ㅏㅏ", "가나")])
def test_other_names_are_not_found(query: str, value: str) -> None:
    assert not finds(query, NAME, value)


@pytest.mark.parametrize(
    "query", ["1234", "010-1234", "010 1234 5678", "+82 10", "+82 (0)10-1234", "01012345678", "821012345678", "5678"]
)
def test_a_phone_number_is_found_by_any_digits_that_stand_together(query: str) -> None:
    assert finds(query, "phone", "+821012345678")


@pytest.mark.parametrize("query", ["010-5678", "4321", "82010"])
def test_other_phone_numbers_are_not_found(query: str) -> None:
    assert not finds(query, "phone", "+821012345678")


@pytest.mark.parametrize("query", ["", " ", "a", "ㄱ", "a b", "\u0301", "\x00"])
def test_a_query_that_says_too_little_is_refused(query: str) -> None:
    with pytest.raises(Invalid, match="query: needs two letters"):
        read_query(query)


def test_initials_leave_other_characters_alone() -> None:
    assert initials("김단골 VIP 1호") == "ㄱㄷㄱvip1ㅎ"


def test_a_name_in_two_parts_is_found_in_both_orders() -> None:
    names = names_in({"first_name": "단골", "lastName": "김", "nickname": "귤왕", "age": 3, "name": None})
    assert names == {"단골 김", "김 단골", "귤왕"}
    assert names_in({"firstName": "단골"}) == {"단골"}


def test_a_visitors_id_has_no_entry_of_its_own() -> None:
    """There are too many; but a name that came with one counts."""
    assert entries_of(KEY, "anonymous_id", "d-1", {}) == []
    assert [e.kind for e in entries_of(KEY, "anonymous_id", "d-1", {"name": "김단골"})] == ["name"]
    assert [e.kind for e in entries_of(KEY, "email", "kim@example.com", {"name": "김단골"})] == ["name", "email"]
