# SPDX-License-Identifier: Apache-2.0
"""Temperature and shift that make probabilities honest, and the measure of how honest they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from svc_feedback.domain.model import softmax

Floats = NDArray[np.float64]
BINS = 10
_STEPS = 50


def fit(logits: Floats, targets: Floats, weights: Floats) -> tuple[float, list[float]]:
    """Minimise the weighted log loss over one temperature and a shift per class, by Newton's method."""
    weights = weights / weights.sum()
    # The shift of the neutral class stays 0: adding the same to all three changes nothing.
    slopes = np.zeros((len(logits), 3, 3))
    slopes[:, :, 0], slopes[:, 0, 1], slopes[:, 2, 2] = logits, 1, 1
    found = np.array([1.0, 0.0, 0.0])
    for _ in range(_STEPS):
        probabilities = softmax(slopes @ found)
        gradient = np.einsum("i,ic,icp->p", weights, probabilities - targets, slopes)
        mean = np.einsum("ic,icp->ip", probabilities, slopes)
        second = np.einsum("i,ic,icp,icq->pq", weights, probabilities, slopes, slopes)
        hessian = second - np.einsum("i,ip,iq->pq", weights, mean, mean)
        found = found - np.linalg.solve(hessian + 1e-9 * np.eye(3), gradient)
    return 1 / float(found[0]), [float(found[1]), 0.0, float(found[2])]


@dataclass(frozen=True)
class Bin:
    """Texts whose label had a probability in one tenth of the scale."""

    low: float
    count: int
    claimed: float
    correct: float


def reliability(claimed: Floats, correct: NDArray[np.bool_]) -> list[Bin]:
    """Claimed probability of the chosen label beside the share that was right, in tenths."""
    tenth = np.minimum((claimed * BINS).astype(int), BINS - 1)
    return [
        Bin(place / BINS, int(inside.sum()), float(claimed[inside].mean()), float(correct[inside].mean()))
        for place in range(BINS)
        if (inside := tenth == place).any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: the mean distance between claimed and correct, weighted by count."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.claimed - part.correct) for part in bins) / total
