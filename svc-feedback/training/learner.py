# SPDX-License-Identifier: Apache-2.0
"""Multinomial logistic regression on hashed n-grams, by AdaGrad, on numpy alone and on one core."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from svc_feedback.domain.features import grams
from svc_feedback.domain.model import bucket, softmax
from svc_feedback.domain.text import normalise, shorten

from training.corpus import Example

EPOCHS = 6
BATCH = 256
LEARNING_RATE = 0.08
BIAS_RATE = 0.5
SEEN_AT_LEAST = 2
_CHUNK = 2_000

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Design:
    """The buckets of every text, one text after the other."""

    buckets: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The buckets of some texts, and which of them each belongs to."""
        counts = self.counts[chosen]
        row = np.repeat(np.arange(len(chosen)), counts)
        begins = np.cumsum(counts) - counts
        return self.buckets[np.arange(len(row)) + np.repeat(self.starts[chosen] - begins, counts)], row


def design_of(texts: Sequence[str], bits: int) -> Design:
    """Hash all texts."""
    chunks = [_chunk_of(texts[at : at + _CHUNK], bits) for at in range(0, len(texts), _CHUNK)]
    counts = np.concatenate([counts for _, counts in chunks])
    return Design(np.concatenate([buckets for buckets, _ in chunks]), np.cumsum(counts) - counts, counts)


def _chunk_of(texts: Sequence[str], bits: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    found = list(grams([normalise(shorten(text)) for text in texts]))
    owner = np.concatenate([part.owner for part in found])
    order = np.argsort(owner, kind="stable")
    buckets = np.concatenate([bucket(part.hashes, bits).astype(np.int32) for part in found])
    return buckets[order], np.bincount(owner, minlength=len(texts))


@dataclass(frozen=True)
class Learnt:
    """Polarity and neutrality of each bucket, and in how many places each bucket was seen."""

    weights: Weights
    seen: NDArray[np.int64]


def learn(examples: Sequence[Example], *, bits: int, seed: int) -> Learnt:
    """Train on all examples; the same examples and seed give the same weights."""
    design = design_of([example.text for example in examples], bits)
    seen = np.bincount(design.buckets, minlength=1 << bits)
    rarity = np.log((len(examples) + 1) / (seen + 1)).clip(min=0).astype(np.float32)
    rarity[seen < SEEN_AT_LEAST] = 0
    usual = np.sqrt((rarity[design.buckets] ** 2).mean(dtype=np.float64)).astype(np.float32)
    rarity /= usual
    trainer = _Trainer(design, rarity, examples)
    for share_left, chosen in _batches(len(examples), seed):
        trainer.step(chosen, share_left)
    return Learnt(trainer.weights * rarity[:, None], seen)


def _batches(count: int, seed: int) -> Iterator[tuple[float, NDArray[np.int64]]]:
    """Shuffled batches, with the share of all steps that is left."""
    generator = np.random.default_rng(seed)
    per_epoch = -(-count // BATCH)
    for epoch in range(EPOCHS):
        order = generator.permutation(count)
        for step in range(per_epoch):
            done = epoch * per_epoch + step
            yield 1 - done / (EPOCHS * per_epoch), order[step * BATCH : (step + 1) * BATCH]


class _Trainer:
    """The state of the descent. A bias per corpus takes up how often each corpus praises, and is not kept."""

    def __init__(self, design: Design, rarity: Weights, examples: Sequence[Example]) -> None:
        self.weights: Weights = np.zeros((len(rarity), 2), np.float32)
        self._squares = np.full(self.weights.shape, 1e-3, np.float32)
        self._design, self._rarity = design, rarity
        self._targets = np.array([example.target for example in examples], np.float32)
        weight = np.array([example.weight for example in examples], np.float32)
        self._importance = weight / weight.mean()
        corpora = sorted({example.corpus for example in examples})
        self._corpus = np.array([corpora.index(example.corpus) for example in examples])
        self._bias = np.zeros((len(corpora), 3), np.float32)

    def step(self, chosen: NDArray[np.int64], share_left: float) -> None:
        """Move against the gradient of one batch."""
        buckets, row = self._design.rows(chosen)
        counts = self._design.counts[chosen].astype(np.float32)
        values: Weights = (self._rarity[buckets] / np.sqrt(counts)[row]).astype(np.float32)
        error = self._error(chosen, buckets, row, values)
        gradient = np.stack([error[:, 2] - error[:, 0], error[:, 1]], axis=1)[row] * values[:, None]
        places = (buckets.astype(np.int64)[:, None] * 2 + np.arange(2)).ravel()
        flat = gradient.ravel()
        squares, weights = self._squares.ravel(), self.weights.ravel()
        np.add.at(squares, places, flat * flat)
        np.add.at(weights, places, -LEARNING_RATE * share_left * flat / np.sqrt(squares[places]))
        moved = np.zeros_like(self._bias)
        np.add.at(moved, self._corpus[chosen], error)
        self._bias -= BIAS_RATE * share_left * moved / len(chosen)

    def _error(
        self, chosen: NDArray[np.int64], buckets: NDArray[np.int32], row: NDArray[np.int64], values: Weights
    ) -> Weights:
        """How far the predicted probabilities are from the targets, weighted."""
        weights = self.weights[buckets]
        polarity, neutrality = (np.bincount(row, weights[:, column] * values, len(chosen)) for column in range(2))
        logits = np.stack([-polarity, neutrality, polarity], axis=1) + self._bias[self._corpus[chosen]]
        wrong = (softmax(logits) - self._targets[chosen]) * self._importance[chosen][:, None]
        error: Weights = wrong.astype(np.float32)
        return error
