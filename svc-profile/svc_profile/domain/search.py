# SPDX-License-Identifier: Apache-2.0
"""How text is compared when staff looks for a customer, and the pieces that an index finds it by.

Text is folded one character at a time, so that a part of a text folds into a part of the folded text: whatever stands
inside a value is found inside it. Case, accents, width and spaces do not matter. A Korean syllable becomes the letters
that are typed for it (`닭` is `ㄷㅏㄹㄱ`), so that a word is found while its last syllable is still being typed.
A value with Korean in it is also found by the first consonants of its syllables (`ㄱㄷㄱ` for `김단골`).
"""

import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import phonenumbers
from chassis.errors import Invalid
from chassis.identifiers import ANONYMOUS_ID, PHONE

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.events import FragmentKey

NAME, ORDER_ID = "name", "order_id"
"""Kinds of value besides the namespaces of identifiers."""

NAME_TRAITS = frozenset(
    {
        "name", "fullName", "full_name", "displayName", "display_name", "nickname", "username",
        "firstName", "first_name", "lastName", "last_name", "이름", "성명",
    }
)  # fmt: skip
"""Traits that a customer is looked for by."""

UNINDEXED = frozenset({ANONYMOUS_ID, DERIVED})
"""Namespaces whose values have no entry."""

_FIRST, _LAST = ("firstName", "first_name"), ("lastName", "last_name")

BREAK = "\n"
"""Stands before, between and after the forms of a value, and in no form."""

MAX_INDEXED = 200
"""Characters of a value that can be found."""

_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = (
    "ㅏ", "ㅐ", "ㅑ", "ㅒ", "ㅓ", "ㅔ", "ㅕ", "ㅖ", "ㅗ", "ㅗㅏ", "ㅗㅐ", "ㅗㅣ", "ㅛ", "ㅜ", "ㅜㅓ", "ㅜㅔ", "ㅜㅣ",
    "ㅠ", "ㅡ", "ㅡㅣ", "ㅣ",
)  # fmt: skip
_FINALS = (
    "ㄱ", "ㄲ", "ㄱㅅ", "ㄴ", "ㄴㅈ", "ㄴㅎ", "ㄷ", "ㄹ", "ㄹㄱ", "ㄹㅁ", "ㄹㅂ", "ㄹㅅ", "ㄹㅌ", "ㄹㅍ", "ㄹㅎ", "ㅁ",
    "ㅂ", "ㅂㅅ", "ㅅ", "ㅆ", "ㅇ", "ㅈ", "ㅊ", "ㅋ", "ㅌ", "ㅍ", "ㅎ",
)  # fmt: skip
_LETTERS = {
    **{chr(0x1100 + n): letter for n, letter in enumerate(_INITIALS)},
    **{chr(0x1161 + n): letters for n, letters in enumerate(_VOWELS)},
    **{chr(0x11A8 + n): letters for n, letters in enumerate(_FINALS)},
}
_FIRST_SYLLABLE, _LAST_SYLLABLE, _SYLLABLES_PER_INITIAL = 0xAC00, 0xD7A3, 588
_LEFT_OUT = frozenset({"Mn", "Me", "Cc", "Cf", "Zs", "Zl", "Zp"})
_DIGITS_ONLY = re.compile(r"[0-9+ ().\-]+")


@lru_cache(maxsize=16_384)
def _fold_character(character: str) -> str:
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(
        _LETTERS.get(each, each)
        for each in plain
        if unicodedata.category(each) not in _LEFT_OUT and not unicodedata.combining(each)
    )


def fold(text: str) -> str:
    """Spell a text as it is compared."""
    return "".join(map(_fold_character, text))


def initials(text: str) -> str:
    """Fold a text with only the first consonant of each Korean syllable."""
    return "".join(_initial(character) for character in unicodedata.normalize("NFC", text))


def _initial(character: str) -> str:
    code = ord(character)
    if _FIRST_SYLLABLE <= code <= _LAST_SYLLABLE:
        return _INITIALS[(code - _FIRST_SYLLABLE) // _SYLLABLES_PER_INITIAL]
    return _fold_character(character)


@dataclass(frozen=True)
class Entry:
    """A value that a customer can be found by."""

    fragment: FragmentKey
    kind: str
    """`name`, `order_id`, or the namespace of an identifier."""
    value: str
    """As it is shown."""
    text: str
    """Its forms, each between two breaks."""

    @property
    def grams(self) -> list[int]:
        """What the index finds it by."""
        return sorted(grams_of(self.text))


def entry(fragment: FragmentKey, kind: str, value: str) -> Entry | None:
    """Make an entry of a value; None when nothing of it can be compared."""
    forms = {form for form in _forms(kind, value[:MAX_INDEXED]) if form}
    if not forms:
        return None
    return Entry(fragment, kind, value[:MAX_INDEXED], BREAK + BREAK.join(sorted(forms)) + BREAK)


def _forms(kind: str, value: str) -> Iterable[str]:
    if kind == PHONE:
        return _phone_forms(value)
    return (fold(value), initials(value))


def _phone_forms(value: str) -> Iterable[str]:
    """A number is looked for by its digits, with the code of its country and as it is dialled at home."""
    yield _digits(value)
    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        return
    yield _digits(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL))


def _digits(text: str) -> str:
    return "".join(character for character in text if "0" <= character <= "9")


def entries_of(fragment: FragmentKey, namespace: str, value: str, traits: Mapping[str, Any]) -> list[Entry]:
    """Return what a customer can be found by through one identifier: itself, and the names that came with it.

    Visitors' ids are many and nobody remembers a part of one, so they are found as a whole only, without an index.
    """
    found = [entry(fragment, NAME, name) for name in sorted(names_in(traits))]
    if namespace not in UNINDEXED:
        found.append(entry(fragment, namespace, value))
    return list({(each.kind, each.text): each for each in found if each is not None}.values())


def names_in(traits: Mapping[str, Any]) -> set[str]:
    """Return all names of a customer, also those that come in two parts, in both orders."""
    names = {str(traits[name]) for name in NAME_TRAITS - {*_FIRST, *_LAST} if isinstance(traits.get(name), str)}
    first, last = _either(traits, _FIRST), _either(traits, _LAST)
    if first and last:
        names |= {f"{first} {last}", f"{last} {first}"}
    return names | {part for part in (first, last) if part and not (first and last)}


def _either(traits: Mapping[str, Any], names: Iterable[str]) -> str:
    return next((traits[name] for name in names if isinstance(traits.get(name), str)), "")


def grams_of(text: str) -> set[int]:
    """Return the pieces of a text: two and three characters from each place of each form, marked where it begins.

    A single character is a piece only where a word can be one: of no alphabet, such as `金`.
    """
    found: set[int] = set()
    for form in text.split(BREAK):
        if form:
            marked = BREAK + form
            found |= {gram(marked[at : at + size]) for size in (2, 3) for at in range(len(marked) - size + 1)}
            found |= {gram(character) for character in form if is_word(character)}
    return found


def is_word(character: str) -> bool:
    """Tell whether one character alone is enough to look for."""
    return not character.isascii() and not "ㄱ" <= character <= "ㅣ"


@lru_cache(maxsize=65_536)
def gram(piece: str) -> int:
    """Name a piece by 32 bits; two pieces with one name cost a second look, never a wrong answer."""
    return zlib.crc32(piece.encode(errors="surrogatepass")) - 2**31


def grams_within(text: str) -> list[int]:
    """Return pieces that every text has that contains `text`."""
    size = min(len(text), 3)
    return sorted({gram(text[at : at + size]) for at in range(len(text) - size + 1)})


@dataclass(frozen=True)
class Query:
    """What is looked for."""

    words: tuple[str, ...]
    """All of them stand in the value, in any order."""
    whole: str
    """The words as one: a value that is it, or begins with it, comes first."""
    digits: str
    """Part of a phone number; empty when the query is none."""
    raw: str
    """As it was asked, for values that are found as a whole only."""


@dataclass(frozen=True)
class Match:
    """A customer who was found, and by what."""

    profile: FragmentKey
    kind: str
    value: str
    rank: int
    """1: the value is what was asked. 2: it begins with it. 3: it contains it."""
    last_seen_us: int


def read_query(text: str) -> Query:
    """Understand a query; raises `Invalid` when it says too little."""
    words = tuple(dict.fromkeys(word for word in map(fold, text.split()) if word))
    if not words or not any(len(word) > 1 or is_word(word) for word in words):
        raise Invalid.field("query", "needs two letters or digits that stand together")
    digits = _digits(text.replace("(0)", "")) if _DIGITS_ONLY.fullmatch(text) else ""
    return Query(words, fold(text), digits if len(digits) > 1 else "", text.strip())


def word_grams(words: Collection[str]) -> list[int]:
    """Return the pieces of all words; a single letter has none, it is looked for in what the others find."""
    usable = (word for word in words if len(word) > 1 or is_word(word))
    return sorted({piece for word in usable for piece in grams_within(word)})


def rank_of(query: Query, kind: str, text: str) -> int | None:
    """Say how well a value's forms fit; None when they do not. PostgreSQL says the same of values that it can read."""
    digits = query.digits if kind == PHONE else ""
    if BREAK + query.whole + BREAK in text or (digits and BREAK + digits + BREAK in text):
        return 1
    if BREAK + query.whole in text or (digits and BREAK + digits in text):
        return 2
    return 3 if all(word in text for word in query.words) or (digits and digits in text) else None


def matches_after(found: Iterable[Match], after: tuple[int, int, bytes] | None, most: int) -> list[Match]:
    """Return each customer once, with what fits best, in the order of answers after a position of it."""
    best: dict[FragmentKey, Match] = {}
    for match in sorted(found, key=lambda each: (each.rank, -each.last_seen_us, each.kind, each.value)):
        best.setdefault(match.profile, match)
    ordered = sorted(best.values(), key=lambda each: (each.rank, -each.last_seen_us, each.profile))
    begin = (after[0], -after[1], after[2]) if after else None
    return [each for each in ordered if begin is None or (each.rank, -each.last_seen_us, each.profile) > begin][:most]
