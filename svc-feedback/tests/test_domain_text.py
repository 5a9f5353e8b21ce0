# SPDX-License-Identifier: Apache-2.0
"""One spelling for texts that say the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from svc_feedback.domain.text import EMAIL, MAX_CHARACTERS, URL, normalise, shorten


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("좋아요ㅋㅋㅋㅋㅋㅋ", "좋아요ㅋㅋ"),
        ("최악ㅜㅜㅜ", "최악ㅠㅠ"),
        ("Sooooo GOOD!!!!!", "soo good!!"),
        ("  a \t\n b\u3000c ", "a b c"),
        ("ＧＯＯＤ！", "good!"),
        ("see https://a.example/b?c and x.y@mail.example", f"see {URL} and {EMAIL}"),
        ("👍🏽 ❤️ ♥", "👍 ❤ ❤"),
        ("nice :) bad :-(", "nice 😊 bad 😢"),
        ("좋아요:)", "좋아요😊"),
        ("at 10:30 (late)", "at 10:30 (late)"),
        ("don’t", "don't"),
        ("a\u200bb", "ab"),
    ],
)
def test_folds_what_does_not_matter(text: str, spelling: str) -> None:
    assert normalise(text) == spelling


@given(st.text())
def test_composed_and_decomposed_texts_are_one(text: str) -> None:
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


@given(st.text())
def test_words_are_normalised_independently(text: str) -> None:
    """What points at the deciding words relies on it."""
    assert normalise(text) == " ".join(filter(None, map(normalise, text.split())))


@given(st.text(max_size=50), st.sampled_from("ㅋㅠ!~아z"), st.integers(2, 30))
def test_stretching_further_changes_nothing(text: str, letter: str, times: int) -> None:
    assert normalise(f"{text} {letter * times}") == normalise(f"{text} {letter * 2}")


def test_a_long_text_is_cut_between_words() -> None:
    cut = shorten("word " * MAX_CHARACTERS)
    assert len(cut) <= MAX_CHARACTERS
    assert cut.endswith("word")
    assert len(shorten("x" * 3 * MAX_CHARACTERS)) == MAX_CHARACTERS
