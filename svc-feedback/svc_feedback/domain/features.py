# SPDX-License-Identifier: Apache-2.0
"""Hashed n-grams of normalised texts, a whole batch at a time.

Three families, each suited to what it reads:
- words and pairs of words, where a word is a run of one kind of character ("배송굿ㅋㅋ!!" is three);
- one to four Hangul characters, spaces ignored, because Korean spacing is the writer's mood;
- three to five Latin characters with the spaces, so that "bad" and "badge" differ.
Letters of other scripts give no features: the model has never read them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from svc_feedback.domain.text import EMAIL, URL

Codes: TypeAlias = NDArray[np.uint64]
Places: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

BOUNDARY, SPACE, HANGUL, JAMO, LATIN, DIGIT, MARK, SYMBOL, FOREIGN = range(9)
HANGUL_LENGTHS = range(1, 5)
LATIN_LENGTHS = range(3, 6)
WORD_LENGTHS = range(1, 3)

_STEP = np.uint64(0x9E3779B97F4A7C15)
_SCATTER = np.uint64(0xBF58476D1CE4E5B9)
_WITHIN_WORD = np.uint64(0xD6E8FEB86659FD93)
_WORD_SEED, _CHARACTER_SEED = 3, 1


@dataclass(frozen=True, slots=True)
class Grams:
    """Some n-grams of a batch: whose they are, their hash, and the characters they cover."""

    owner: Places
    hashes: Codes
    first: Places
    last: Places


@dataclass(frozen=True, slots=True)
class _Stream:
    """Symbols in reading order: a value each, the text it is from, and its place in the batch."""

    value: Codes
    owner: Places
    first: Places
    last: Places

    def __getitem__(self, kept: Mask | Places) -> "_Stream":
        return _Stream(self.value[kept], self.owner[kept], self.first[kept], self.last[kept])


def grams(texts: Sequence[str]) -> Iterator[Grams]:
    """Every n-gram of each normalised text; `first` and `last` count within that text."""
    stream, kind = _read(texts)
    yield from _ngrams(_words(stream, kind), WORD_LENGTHS, _WORD_SEED)
    solid = np.flatnonzero((kind != SPACE) & (kind != BOUNDARY))
    readable = ~np.isin(kind[solid], (LATIN, FOREIGN))
    yield from _ngrams(stream[solid], HANGUL_LENGTHS, _CHARACTER_SEED, inside=readable)
    latin = np.isin(kind, (LATIN, SPACE, DIGIT, MARK))
    yield from _ngrams(stream, LATIN_LENGTHS, _CHARACTER_SEED, inside=latin, containing=kind == LATIN)


def _read(texts: Sequence[str]) -> tuple[_Stream, NDArray[np.uint8]]:
    """All characters of a batch, each text between two spaces, and what kind each is."""
    joined = "".join(f" {text} \n" for text in texts)
    code = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    ends = np.flatnonzero(code == ord("\n"))
    lengths = np.diff(ends, prepend=-1)
    owner = np.repeat(np.arange(len(texts)), lengths)
    place = np.arange(len(code)) - np.repeat(ends - lengths + 1, lengths) - 1
    return _Stream(code, owner, place, place), _KIND[np.minimum(code, len(_KIND) - 1)]


def _kinds() -> NDArray[np.uint8]:
    """The kind of each character; what is beyond the table counts as its last entry, a symbol."""
    kind = np.full(0x1F001, FOREIGN, np.uint8)
    kind[0x2000:0x2C00] = kind[0x3000:0x3040] = kind[0xFE30:0xFE70] = MARK
    kind[0x2190:0x2C00] = kind[0x1F000:] = SYMBOL
    kind[[ord(URL), ord(EMAIL)]] = SYMBOL
    kind[0x00:0xC0] = MARK
    kind[ord("0") : ord("9") + 1] = DIGIT
    kind[ord("a") : ord("z") + 1] = kind[0xC0:0x250] = kind[ord("'")] = LATIN
    kind[0xAC00:0xD7A4] = HANGUL
    kind[0x3131:0x318F] = JAMO
    kind[ord(" ")], kind[ord("\n")] = SPACE, BOUNDARY
    return kind


_KIND = _kinds()


def _words(stream: _Stream, kind: NDArray[np.uint8]) -> _Stream:
    """Runs of one kind of character, each as the hash of its spelling."""
    starts_word = np.ones(len(kind), bool)
    starts_word[1:] = kind[1:] != kind[:-1]
    starts_word |= kind == SYMBOL
    starts = np.flatnonzero(starts_word)
    if not len(starts):
        return stream
    within = np.arange(len(kind)) - np.repeat(starts, np.diff(starts, append=len(kind)))
    letters = _scatter((stream.value + np.uint64(1)) * _STEP + within.astype(np.uint64) * _WITHIN_WORD)
    ends = np.append(starts[1:], len(kind)) - 1
    words = _Stream(np.add.reduceat(letters, starts), stream.owner[starts], stream.first[starts], stream.last[ends])
    return words[~np.isin(kind[starts], (SPACE, BOUNDARY, FOREIGN))]


def _ngrams(
    stream: _Stream,
    lengths: range,
    seed: int,
    *,
    inside: Mask | None = None,
    containing: Mask | None = None,
) -> Iterator[Grams]:
    """Windows within one text, made only of symbols `inside` and with one at least of `containing`."""
    count = len(stream.value)
    hashes = _scatter(stream.value * _STEP + np.uint64(seed))
    allowed = np.ones(count, bool) if inside is None else inside
    wanted = np.ones(count, bool) if containing is None else containing
    window_allowed, window_wanted = allowed, wanted
    for length in range(1, lengths.stop):
        size = count - length + 1
        if size <= 0:
            return
        if length > 1:
            hashes = _scatter(hashes[:-1] * _STEP + stream.value[length - 1 :])
            window_allowed = window_allowed[:-1] & allowed[length - 1 :]
            window_wanted = window_wanted[:-1] | wanted[length - 1 :]
        if length not in lengths:
            continue
        same_text = stream.owner[:size] == stream.owner[length - 1 :]
        kept = np.flatnonzero(window_allowed & window_wanted & same_text)
        salted = _scatter(hashes[kept] + np.uint64(length * 7919))
        yield Grams(stream.owner[kept], salted, stream.first[kept], stream.last[kept + length - 1])


def _scatter(value: Codes) -> Codes:
    """Mix the bits of each value, so that the top ones depend on all."""
    value = (value ^ (value >> np.uint64(31))) * _SCATTER
    return value ^ (value >> np.uint64(29))
