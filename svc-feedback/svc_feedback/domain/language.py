# SPDX-License-Identifier: Apache-2.0
"""Which language a short text is in: Korean and English by name, everything else as undetermined."""

import re
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum

from svc_feedback.domain.text import EMAIL, URL

_HANGUL = re.compile(r"[가-힣ㄱ-ㆎ]")
_LATIN_WORD = re.compile(r"[^\W\d_가-힣ㄱ-ㆎ]+(?:'[a-z]+)?")
_OTHER_LETTER = re.compile(r"[^\W\d_a-zÀ-ɏ가-힣ㄱ-ㆎ]")

# A syllable block is two or three letters, so one Hangul character says as much as two Latin ones.
_HANGUL_WEIGHT = 2
_ENGLISH_SHARE_NEEDED = 0.5


class Language(StrEnum):
    """BCP 47 codes."""

    KOREAN = "ko"
    ENGLISH = "en"
    UNDETERMINED = "und"


@dataclass(frozen=True, slots=True)
class LanguageGuess:
    """The language that most letters belong to, and how much of the text is Korean and English."""

    language: Language
    korean: float
    english: float


def detect_language(normalised: str, english_words: Container[str]) -> LanguageGuess:
    """Weigh the letters of a normalised text by script; Latin ones are English when the words are known."""
    korean = _HANGUL_WEIGHT * len(_HANGUL.findall(normalised))
    words = _LATIN_WORD.findall(normalised.replace(URL, " ").replace(EMAIL, " "))
    other = sum(_HANGUL_WEIGHT for word in words for _ in _OTHER_LETTER.findall(word))
    latin_words = [word for word in words if not _OTHER_LETTER.search(word)]
    latin = sum(map(len, latin_words))
    english = latin if _is_english(latin_words, english_words) else 0
    total = korean + latin + other
    if not total:
        return LanguageGuess(Language.UNDETERMINED, 0.0, 0.0)
    shares = {
        Language.KOREAN: korean / total,
        Language.ENGLISH: english / total,
        Language.UNDETERMINED: (total - korean - english) / total,
    }
    return LanguageGuess(max(shares, key=shares.__getitem__), shares[Language.KOREAN], shares[Language.ENGLISH])


def _is_english(words: list[str], english_words: Container[str]) -> bool:
    known = sum(len(word) for word in words if word in english_words)
    return known >= _ENGLISH_SHARE_NEEDED * sum(map(len, words))
