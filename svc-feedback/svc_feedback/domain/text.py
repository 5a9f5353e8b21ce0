# SPDX-License-Identifier: Apache-2.0
"""One spelling for texts that say the same: what the sentiment model reads."""

import re
import unicodedata

MAX_CHARACTERS = 10_000
URL = "\ue000"
EMAIL = "\ue001"

_URL = re.compile(r"(?:https?://|www\.)\S+")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[a-z]{2,}")
_REPEATED = re.compile(r"(.)\1{2,}")
_SMILE = re.compile(r"(?<![:;=\d])[:;=]-?[)\]]|(?<![\w:;=])[:;=]-?[dp](?!\w)")
_FROWN = re.compile(r"(?<![:;=\d])[:=]'?-?[(\[]|(?<![\w:;=])[:=]-?/(?![\w/])")

_EMOJI_OF_MOOD = {
    "😊": "😀😃😄😁😅🙂😇😋😌😉🤗😺☺😎🤩🥳😸",
    "❤": "♥♡💕💖💗💓💞💘💝💜💙💚💛🧡🤍🖤❣😍🥰😘😻💋",
    "😂": "🤣😆😹",
    "👍": "👌👏🙌💯🤝💪🎉✨🔥👑🏆",
    "😢": "😭😞😔🙁☹😥😿😩😫😟😣😖💔😓",
    "😡": "😠🤬😤👿💢😾",
    "👎": "🖕🤢🤮💩🙅",
    "😐": "😑😶🤔🙄😕🤷",
    "★": "☆⭐🌟✩✪",
}
MOODS = frozenset(_EMOJI_OF_MOOD)
_JOINERS = "\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f🏻🏼🏽🏾🏿"


def _translation() -> dict[int, str | None]:
    """Fold emoji of one mood, full-width ASCII, quote marks and invisible joiners."""
    table: dict[int, str | None] = {ord(member): mood for mood, members in _EMOJI_OF_MOOD.items() for member in members}
    # NFKC would fold full-width letters too, but it also breaks compatibility jamo such as ㅋ and ㅠ.
    table |= {0xFF01 + offset: chr(0x21 + offset) for offset in range(94)}
    table |= {ord(mark): "'" for mark in "‘’`´"} | {ord(mark): '"' for mark in "“”"}
    table |= {ord("ㅜ"): "ㅠ", ord("…"): ".."}
    table |= {ord(joiner): None for joiner in _JOINERS}
    return table


_TRANSLATION = _translation()


def normalise(text: str) -> str:
    """Give texts that differ only in case, spacing, stretching or emoji variants one spelling."""
    folded = unicodedata.normalize("NFC", text).lower().translate(_TRANSLATION)
    folded = _without_addresses(unicodedata.normalize("NFC", folded))
    return _REPEATED.sub(r"\1\1", " ".join(_with_moods(folded).split()))


def _without_addresses(text: str) -> str:
    """Links and e-mail addresses count as such, not as their letters."""
    if "://" in text or "www." in text:
        text = _URL.sub(URL, text)
    return _EMAIL.sub(EMAIL, text) if "@" in text else text


def _with_moods(text: str) -> str:
    """Emoticons become the emoji of their mood, so that either teaches the other."""
    if ":" in text or "=" in text or ";" in text:
        text = _FROWN.sub("😢", _SMILE.sub("😊", text))
    return text.replace("<3", "❤")


def shorten(text: str) -> str:
    """Keep the first `MAX_CHARACTERS` characters, and no half word when a space is near the cut."""
    if len(text) <= MAX_CHARACTERS:
        return text
    kept = text[:MAX_CHARACTERS]
    head, _, tail = kept.rpartition(" ")
    return head if head and len(tail) < 100 else kept
