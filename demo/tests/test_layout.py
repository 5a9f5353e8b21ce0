# SPDX-License-Identifier: Apache-2.0
"""How answers are laid out."""

from demo.answers import money
from demo.layout import columns, cut, width
from demo.voices import ENGLISH_REVIEWS, REVIEWS


def test_korean_characters_are_two_columns_wide() -> None:
    """Columns stay straight."""
    assert width("감귤 5kg") == 8
    rows = columns([("감귤", "1"), ("tea", "20")], right=[1])
    assert [width(row) for row in rows] == [10, 10]


def test_long_texts_are_cut_to_their_columns() -> None:
    """A wide character is not cut in half."""
    assert cut("short", 5) == "short"
    assert width(cut("정말 마음에 들어요", 9)) <= 9


def test_won_have_no_decimals() -> None:
    """Amounts are written as people read them."""
    assert money(29000, "KRW") == "₩29,000"
    assert money(12.5, "GBP") == "GBP 12.50"


def test_there_are_reviews_of_every_mood() -> None:
    """The sentiment has something to tell apart."""
    assert set(REVIEWS) == set(ENGLISH_REVIEWS) == {"good", "mixed", "bad"}
