# SPDX-License-Identifier: Apache-2.0
"""Which language a text is in."""

import pytest
from svc_feedback.domain.analysis import analyze, shipped_model
from svc_feedback.domain.language import Language, detect_language
from svc_feedback.domain.text import normalise

ENGLISH = {"fast", "quality", "delivery", "don't", "buy"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("배송이 빨라요", "ko"),
        ("ㅠㅠ", "ko"),
        ("LG TV 좋아요", "ko"),
        ("I love this dress", "en"),
        ("wow", "en"),
        ("Don’t buy it", "en"),
        ("GREAT!!!", "en"),
        ("Très bon produit, livraison rapide", "und"),
        ("Der Versand war sehr schnell und die Qualität ist gut", "und"),
        ("El producto es muy bueno y llegó rápido", "und"),
        ("Sản phẩm tốt", "und"),
        ("とても良いです", "und"),
        ("非常好", "und"),
        ("Очень хорошо", "und"),
        ("", "und"),
        ("  \n ", "und"),
        ("👍👍", "und"),
        ("5/5", "und"),
        ("https://example.com/good", "und"),
    ],
)
def test_names_korean_and_english_and_nothing_else(text: str, language: str) -> None:
    assert analyze(text)[0] == language


def test_a_mixed_text_says_how_much_is_in_each_language() -> None:
    guess = detect_language(normalise("배송 fast, quality 최고"), ENGLISH)
    assert guess.language is Language.ENGLISH
    assert (guess.korean, guess.english) == pytest.approx((8 / 19, 11 / 19))


def test_the_shipped_words_tell_english_from_noise() -> None:
    words = shipped_model().english
    assert "delivery" in words
    assert "xqzzw" not in words
