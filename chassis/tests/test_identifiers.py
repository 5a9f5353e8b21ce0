# SPDX-License-Identifier: Apache-2.0
"""Types of identifier: one spelling of each value, nobody's values, order and limits as declared."""

import unicodedata

import pytest
from chassis.errors import Invalid
from chassis.identifiers import BUILT_IN, IdentifierType, IdentifierTypes, is_junk
from pydantic import ValidationError


@pytest.mark.parametrize(
    ("namespace", "value", "normal"),
    [
        ("user_id", "  u1 ", "u1"),
        ("user_id", "U1", "U1"),
        ("user_id", "\u1112\u1161\u11ab", "한"),
        ("email", " Kim@Example.COM ", "kim@example.com"),
        ("email", "ｋｉｍ＠example。com", "kim@example.com"),
        ("email", "Kim@MÜNCHEN.example", "kim@xn--mnchen-3ya.example"),
        ("email", "kim@mu\u0308nchen.example", "kim@xn--mnchen-3ya.example"),
        ("email", "kim@XN--MNCHEN-3YA.example.", "kim@xn--mnchen-3ya.example"),
        ("email", "kim@한국.example", "kim@xn--3e0b707e.example"),
        ("email", "undefined@null", None),
        ("email", "kim@\u2f00..\u2f00", None),
        ("email", "kim", None),
        ("email", "a b@example.com", None),
        ("phone", "010-1234-5678", "+821012345678"),
        ("phone", "01012345678", "+821012345678"),
        ("phone", "+82 10-1234-5678", "+821012345678"),
        ("phone", "02-312-3456", "+8223123456"),
        ("phone", "+1 415 555 2671", "+14155552671"),
        ("phone", "０１０－１２３４－５６７８", "+821012345678"),
        ("phone", "1012345678", "+821012345678"),
        ("phone", "02-312-3456 ext. 7", None),
        ("phone", "010-0000-0000", None),
        ("phone", "12", None),
        ("phone", "112", None),
        ("phone", "312-3456", None),
        ("phone", "1588-1234", "+8215881234"),
        ("phone", "call me", None),
        ("user_id", "\ufeffu1\u200b", "u1"),
        ("user_id", "", None),
        ("user_id", "a\x00b", None),
        ("user_id", "x" * 513, None),
    ],
)
def test_brings_a_value_into_one_spelling(namespace: str, value: str, normal: str | None) -> None:
    assert BUILT_IN.normalise(namespace, value) == normal


@pytest.mark.parametrize(
    "value",
    [
        "anonymous",
        "Guest",
        "비회원",
        "null",
        '"null"',
        "'undefined'",
        "0",
        "NaN",
        "[object Object]",
        '""',
        "none",
        '\\"undefined\\"',
        "“null”",
        "ＮＵＬＬ",
        "０",
        unicodedata.normalize("NFD", "비회원"),
    ],
)
def test_refuses_what_clients_send_for_nobody(value: str) -> None:
    assert is_junk(value)
    assert BUILT_IN.normalise("user_id", value) is None


@pytest.mark.parametrize("value", ["u0", "00", "guest42", "10", "nullable"])
def test_keeps_ids_that_only_look_like_junk(value: str) -> None:
    assert BUILT_IN.normalise("user_id", value) == value


def test_nobody_is_known_by_what_is_configured_as_junk_or_blocked() -> None:
    """Junk is nobody's in every type, a blocked value in its own, in whatever spelling."""
    centre = IdentifierType(namespace="phone", normalise="phone", blocked=frozenset({"02-1588-0000"}))
    types = IdentifierTypes([centre], junk_ids=["Test-User"])
    assert types.normalise("user_id", "'test-user'") is None
    assert types.normalise("phone", "+82 2 1588 0000") is None
    assert types.normalise("user_id", "+82215880000") == "+82215880000"


def test_numbers_of_another_country_are_read_as_people_there_write_them() -> None:
    assert IdentifierTypes(phone_region="US").normalise("phone", "(415) 555-2671") == "+14155552671"


def test_built_in_types_keep_their_places_around_the_declared_ones() -> None:
    declared = IdentifierTypes([IdentifierType(namespace="home", shared=True), IdentifierType(namespace="loyalty")])
    assert list(declared.rank) == ["user_id", "email", "phone", "loyalty", "anonymous_id", "home"]
    assert declared.traits == {"email": "email", "phone": "phone", "loyalty": "loyalty", "home": "home"}
    assert (declared.limits, declared.shared) == ({"user_id": 1}, frozenset({"home"}))


@pytest.mark.parametrize(
    ("declared", "order"),
    [
        ("phone loyalty anonymous_id email user_id", "phone loyalty anonymous_id email user_id"),
        ("loyalty user_id", "loyalty user_id email phone anonymous_id"),
        ("email loyalty", "user_id email phone loyalty anonymous_id"),
        ("loyalty anonymous_id card", "user_id email phone loyalty anonymous_id card"),
    ],
)
def test_a_declared_order_is_kept(declared: str, order: str) -> None:
    """And what is not declared stands where one expects it."""
    assert " ".join(IdentifierTypes([IdentifierType(namespace=each) for each in declared.split()]).rank) == order


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ([IdentifierType(namespace="a"), IdentifierType(namespace="a", shared=True)], "declares a twice"),
        ([IdentifierType(namespace="a", traits=("email",))], "the trait email carries two types"),
        ([IdentifierType(namespace="user_id", traits=("id",))], "user_id comes from no trait"),
        ([IdentifierType(namespace="anonymous_id", shared=True)], "anonymous_id comes from no trait"),
    ],
)
def test_refuses_types_that_contradict_each_other(declared: list[IdentifierType], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        IdentifierTypes(declared)


@pytest.mark.parametrize("namespace", ["Loyalty", "", "1st", "a:b"])
def test_refuses_a_namespace_that_no_reference_can_hold(namespace: str) -> None:
    with pytest.raises(ValidationError):
        IdentifierType(namespace=namespace)
