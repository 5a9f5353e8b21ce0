# SPDX-License-Identifier: Apache-2.0
"""The linear model that was trained by `training/train_sentiment.py`, read from its file."""

import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svc_feedback.domain.features import Codes, grams
from svc_feedback.domain.language import LanguageGuess, detect_language
from svc_feedback.domain.sentiment import Sentiment, Term
from svc_feedback.domain.text import MOODS, normalise, shorten

FORMAT = 1
MAX_TERMS = 5
_CHUNK = 512
_NEGLIGIBLE = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities in one language: divided by a temperature, then shifted."""

    temperature: float
    shift: tuple[float, float, float]


class EnglishWords:
    """The words that count as English, kept as checksums."""

    def __init__(self, checksums: Iterable[int]) -> None:
        self._checksums = frozenset(checksums)

    def __contains__(self, word: object) -> bool:
        return checksum(str(word)) in self._checksums


@dataclass(frozen=True)
class SentimentModel:
    """Two weights per bucket of hashed n-grams: polarity (positive against negative) and neutrality."""

    name: str
    weights: NDArray[np.int8]
    scale: Floats
    calibration: Mapping[str, Calibration]
    english: EnglishWords
    bits: int

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a model file."""
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            metadata = json.loads(bytes(parts["metadata"]))
            columns = [_dense(parts, name, 1 << metadata["bits"]) for name in ("polarity", "neutrality")]
            words = EnglishWords(parts["english_words"].tolist())
        if metadata["format"] != FORMAT:
            raise ValueError(f"model format {metadata['format']}, not {FORMAT}")
        calibration = {
            language: Calibration(values["temperature"], tuple(values["shift"]))
            for language, values in metadata["calibration"].items()
        }
        return cls(
            metadata["name"],
            np.stack(columns, axis=1),
            np.array(metadata["scale"]),
            calibration,
            words,
            metadata["bits"],
        )

    def judge(self, texts: Sequence[str]) -> list[tuple[LanguageGuess, Sentiment | None]]:
        """Language and sentiment of each text; no sentiment where there is nothing that the model can read."""
        return [judged for at in range(0, len(texts), _CHUNK) for judged in self._judge(texts[at : at + _CHUNK])]

    def logits(self, normalised: Sequence[str]) -> Floats:
        """Polarity and neutrality of each text before calibration."""
        chunks = [self._read(normalised[at : at + _CHUNK]).logits for at in range(0, len(normalised), _CHUNK)]
        return np.concatenate(chunks) if chunks else np.zeros((0, 2))

    def probabilities(self, logits: Floats, guesses: Sequence[LanguageGuess]) -> Floats:
        """Calibrated probability of negative, neutral and positive; a mixed text is between its languages."""
        korean = np.array([_korean_part(guess) for guess in guesses])[:, None]
        return korean * self._calibrated(logits, "ko") + (1 - korean) * self._calibrated(logits, "en")

    def _judge(self, texts: Sequence[str]) -> list[tuple[LanguageGuess, Sentiment | None]]:
        shortened = [shorten(text) for text in texts]
        normalised = [normalise(text) for text in shortened]
        guesses = [detect_language(text, self.english) for text in normalised]
        readable = [_readable(text, guess) for text, guess in zip(normalised, guesses, strict=True)]
        reading = self._read(readable)
        probabilities = self.probabilities(reading.logits, guesses).tolist()
        judged: list[tuple[LanguageGuess, Sentiment | None]] = []
        for place, guess in enumerate(guesses):
            sentiment = None
            if reading.counts[place]:
                whole = readable[place] == normalised[place]
                words = (shortened if whole else readable)[place].split()
                terms = _terms(words, readable[place], reading.weights_of(place) / self._temperature(guess))
                negative, neutral, positive = probabilities[place]
                sentiment = Sentiment(negative, neutral, positive, terms, self.name)
            judged.append((guess, sentiment))
        return judged

    def _read(self, normalised: Sequence[str]) -> "_Reading":
        """Add up the weights of all n-grams, per text and per character."""
        lengths = np.array([len(text) + 2 for text in normalised])
        begins = np.cumsum(lengths) - lengths
        sums, counts = np.zeros((len(normalised), 2)), np.zeros(len(normalised), np.int64)
        # What changes where an n-gram begins and after it ends; its running sum is the weight of each character.
        edges = np.zeros(int(lengths.sum()) + 1)
        for found in grams(normalised):
            weights = self.weights[bucket(found.hashes, self.bits)]
            counts += np.bincount(found.owner, minlength=len(normalised))
            for column in range(2):
                sums[:, column] += np.bincount(found.owner, weights[:, column], len(normalised))
            share = weights[:, 0] / (found.last - found.first + 1)
            begin = begins[found.owner] + 1
            edges += np.bincount(begin + found.first, share, len(edges))
            edges -= np.bincount(begin + found.last + 1, share, len(edges))
        size = np.sqrt(np.maximum(counts, 1))[:, None]
        # Positive against negative is twice the polarity.
        per_character = np.repeat(2 * self.scale[0] / size[:, 0], lengths) * np.cumsum(edges)[:-1]
        return _Reading(sums * self.scale / size, counts, per_character, begins, lengths)

    def _calibrated(self, logits: Floats, language: str) -> Floats:
        calibration = self.calibration[language]
        return softmax(spread(logits) / calibration.temperature + np.array(calibration.shift))

    def _temperature(self, guess: LanguageGuess) -> float:
        korean = _korean_part(guess)
        return korean * self.calibration["ko"].temperature + (1 - korean) * self.calibration["en"].temperature


@dataclass(frozen=True)
class _Reading:
    """What the weights of a batch add up to."""

    logits: Floats
    counts: NDArray[np.int64]
    per_character: Floats
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def weights_of(self, place: int) -> Floats:
        """Log-odds of positive against negative that each character of one text brings."""
        begin = self.begins[place]
        return self.per_character[begin + 1 : begin + self.lengths[place] - 1]


def _terms(words: Sequence[str], normalised: str, weights: Floats) -> tuple[Term, ...]:
    """The heaviest words as they were written, each with the weight of its characters."""
    spellings = normalised.split(" ")
    if len(spellings) != len(words):
        # A word of nothing but invisible characters has no spelling.
        words = [word for word in words if normalise(word)]
    terms: dict[str, float] = {}
    at = 0
    for word, spelling in zip(words, spellings, strict=True):
        terms[word] = terms.get(word, 0.0) + float(weights[at : at + len(spelling)].sum())
        at += len(spelling) + 1
    heaviest = sorted(terms.items(), key=lambda term: -abs(term[1]))[:MAX_TERMS]
    return tuple(Term(word, round(weight, 3)) for word, weight in heaviest if abs(weight) >= _NEGLIGIBLE)


def bucket(hashes: Codes, bits: int) -> NDArray[np.int64]:
    """The top bits of each hash."""
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)


def checksum(word: str) -> int:
    """What stands for an English word in the model file."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def spread(logits: Floats) -> Floats:
    """Polarity and neutrality as the logits of negative, neutral and positive."""
    return np.stack([-logits[:, 0], logits[:, 1], logits[:, 0]], axis=1)


def softmax(logits: Floats) -> Floats:
    """Probabilities of each row."""
    powers: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: Floats = powers / powers.sum(axis=1, keepdims=True)
    return total


def packed(column: NDArray[np.int8], name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """A sparse column as the gaps between its non-zero buckets and their values, as `from_bytes` reads it."""
    places = np.flatnonzero(column)
    gaps = np.diff(places, prepend=-1) - 1
    # A gap of 255 or more is written as that many 255s, which say "go on", and the rest.
    full, rest = np.divmod(gaps, 255)
    written = np.full(int(full.sum()) + len(gaps), 255, np.uint8)
    written[np.cumsum(full + 1) - 1] = rest
    yield f"{name}_gaps", written
    yield f"{name}_values", column[places]


def _dense(parts: Mapping[str, NDArray[Any]], name: str, size: int) -> NDArray[np.int8]:
    written = parts[f"{name}_gaps"]
    ends = np.flatnonzero(written < 255)
    travelled = np.cumsum(written.astype(np.int64))[ends]
    column = np.zeros(size, np.int8)
    column[travelled + np.arange(len(ends))] = parts[f"{name}_values"]
    return column


def _korean_part(guess: LanguageGuess) -> float:
    """Korean's share of what is Korean or English; half when neither is there, as in a lone emoji."""
    known = guess.korean + guess.english
    return guess.korean / known if known else 0.5


def _readable(normalised: str, guess: LanguageGuess) -> str:
    """All of a text in a language that the model knows or without letters; of any other text only the emoji."""
    if guess.korean or guess.english or not any(map(str.isalpha, normalised)):
        return normalised
    return " ".join(character for character in normalised if character in MOODS)
