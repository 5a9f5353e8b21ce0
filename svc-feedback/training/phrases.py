# SPDX-License-Identifier: Apache-2.0
"""Short shop sentences built from our own word lists, because no corpus here is about shops alone."""

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.corpus import TARGET_OF, Example, Target

PHRASES = Path(__file__).with_name("shop_phrases.toml")
SENTENCES_PER_LANGUAGE = 12_000
WEIGHT = {"ko": 2.0, "en": 1.0}

_FIRST_SYLLABLE, _FINALS = 0xAC00, 28
_FINAL_RIEUL, _FINAL_MIEUM, _FINAL_BIEUP, _FINAL_SSANGSIOS = 8, 16, 17, 20
_MILD_PRAISE: Target = (0.1, 0.3, 0.6)


def shop_examples(seed: int) -> Iterator[Example]:
    """The same sentences for the same seed."""
    phrases = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    source = random.Random(seed)  # noqa: S311 - sentences, not secrets
    for language, build in (("ko", _korean), ("en", _english)):
        for _ in range(SENTENCES_PER_LANGUAGE):
            text, target = _sentence(phrases[language], source, build)
            yield Example(text, target, WEIGHT[language], f"shop {language}")


def _sentence(words: dict[str, Any], source: random.Random, build: Any) -> tuple[str, Target]:
    """A third of the sentences as they stand in the lists, the others built from a topic."""
    polarity = source.choices(("negative", "neutral", "positive"), (0.4, 0.2, 0.4))[0]
    if polarity == "neutral" or source.random() < 0.33:
        text = source.choice(words[f"{polarity}_sentences"])
        if polarity == "neutral" and source.random() < 0.2:
            text = f"{text} {source.choice(words['neutral_sentences'])}"
        return text, TARGET_OF[polarity[:3]]
    text, target = build(words, polarity, source)
    if target == TARGET_OF[polarity[:3]]:
        text += source.choice(words[f"{polarity}_closings"])
    return text, target


def _english(words: dict[str, Any], polarity: str, source: random.Random) -> tuple[str, Target]:
    topic = source.choice(words["topics"])
    noun = source.choice(topic["nouns"])
    quality = source.choice(words["intensifiers"]) + source.choice(topic[polarity])
    if source.random() < 0.1:
        target = TARGET_OF["neg"] if polarity == "positive" else _MILD_PRAISE
        verb = source.choice(("is not", "was not", "isn't", "wasn't"))
        return f"The {noun} {verb} {quality}", target
    frames = (
        f"{quality} {noun}", f"The {noun} is {quality}", f"The {noun} was {quality}", f"{noun} is {quality}",
        f"{noun} {quality}", f"I found the {noun} {quality}",
    )  # fmt: skip
    text = source.choice(frames)
    if source.random() < 0.2:
        text += f" and the {source.choice(topic['nouns'])} is {source.choice(topic[polarity])}"
    return text + source.choice((".", "", "!")), TARGET_OF[polarity[:3]]


def _korean(words: dict[str, Any], polarity: str, source: random.Random) -> tuple[str, Target]:
    topic = source.choice(words["topics"])
    noun, predicate = source.choice(topic["nouns"]), source.choice(topic[polarity])
    subject = noun + source.choice((_subject_particle(noun), _topic_particle(noun), "도", "")) + " "
    stem, infinitive = predicate.split("/")
    if source.random() < 0.1 and "안 " not in stem:
        target = TARGET_OF["neg"] if polarity == "positive" else _MILD_PRAISE
        return subject + stem + source.choice(("지 않아요", "지 않네요", "지가 않습니다")), target
    text = subject + source.choice(words["intensifiers"]) + _ending(stem, infinitive, source)
    if source.random() < 0.25:
        other = source.choice(words["topics"])
        first_stem = source.choice(other[polarity]).split("/")[0]
        text = f"{source.choice(other['nouns'])}도 {first_stem}고 {text}"
    return text, TARGET_OF[polarity[:3]]


def _ending(stem: str, infinitive: str, source: random.Random) -> str:
    forms = (
        infinitive + "요", infinitive + "요", _plain(stem) + "네요", _polite(stem), _noun_form(stem),
        _with_final(infinitive, _FINAL_SSANGSIOS) + "어요", _with_final(infinitive, _FINAL_SSANGSIOS) + "습니다",
    )  # fmt: skip
    return source.choice(forms)


def _final(word: str) -> int:
    return (ord(word[-1]) - _FIRST_SYLLABLE) % _FINALS if "가" <= word[-1] <= "힣" else 0


def _with_final(word: str, final: int) -> str:
    """The word closed by a final consonant; unchanged when it has one already."""
    return word if _final(word) else word[:-1] + chr(ord(word[-1]) + final)


def _plain(stem: str) -> str:
    """The stem as it is before ㄴ and ㅂ, where ㄹ falls out."""
    return stem[:-1] + chr(ord(stem[-1]) - _FINAL_RIEUL) if _final(stem) == _FINAL_RIEUL else stem


def _polite(stem: str) -> str:
    plain = _plain(stem)
    return f"{plain}습니다" if _final(plain) else f"{_with_final(plain, _FINAL_BIEUP)}니다"


def _noun_form(stem: str) -> str:
    plain = _plain(stem)
    return f"{plain}음" if _final(plain) else _with_final(plain, _FINAL_MIEUM)


def _subject_particle(noun: str) -> str:
    return "이" if _final(noun) else "가"


def _topic_particle(noun: str) -> str:
    return "은" if _final(noun) else "는"
