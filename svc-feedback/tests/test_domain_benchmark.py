# SPDX-License-Identifier: Apache-2.0
"""How often and how honestly the shipped model is right, on public data that it was not trained on."""

import gzip
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from svc_feedback.domain.analysis import analyze_all

ROOT = os.environ.get("DANGOL_DATASETS")
pytestmark = pytest.mark.skipif(not ROOT, reason="DANGOL_DATASETS is unset: it names the folder that holds feedback/")
NSMC_TEXTS = 10_000
LABELS = ("neg", "neu", "pos")


def labelled(file: str, limit: int | None = None) -> tuple[list[str], list[str]]:
    """Texts and labels of the first rows of a file."""
    with gzip.open(Path(str(ROOT)) / "feedback" / file, "rt", encoding="utf-8", newline="\n") as lines:
        names = next(lines).rstrip("\n").split("\t")
        rows = [line.rstrip("\n").split("\t", len(names) - 1) for line in islice(lines, limit)]
    return [row[-1] for row in rows], [row[names.index("label")] for row in rows]


def probabilities(texts: list[str]) -> np.ndarray:
    """Negative, neutral and positive; thirds where there was nothing to judge."""
    return np.array([(s.negative, s.neutral, s.positive) if s else (1 / 3,) * 3 for _, s in analyze_all(texts)])


def calibration_error(claimed: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance between claimed and correct over tenths, weighted by count."""
    tenth = np.minimum((claimed * 10).astype(int), 9)
    parts = [tenth == place for place in range(10) if (tenth == place).any()]
    return float(sum(part.sum() * abs(claimed[part].mean() - correct[part].mean()) for part in parts) / len(claimed))


def test_korean_benchmark_accuracy_and_calibration() -> None:
    """The official NSMC test set, positive against negative: its first texts, which are in random order."""
    texts, labels = labelled("ko_nsmc_test.tsv.gz", NSMC_TEXTS)
    found = probabilities(texts)
    positive = found[:, 2] / (found[:, 0] + found[:, 2])
    correct = (positive > 0.5) == (np.array(labels) == "pos")
    assert correct.mean() >= 0.865
    assert calibration_error(np.maximum(positive, 1 - positive), correct) <= 0.02


def test_english_accuracy_and_calibration() -> None:
    texts, labels = labelled("en_goemotions_dev.tsv.gz")
    known = [place for place, label in enumerate(labels) if label in LABELS]
    truth = np.array([LABELS.index(labels[place]) for place in known])
    found = probabilities([texts[place] for place in known])
    correct = found.argmax(axis=1) == truth
    polar = truth != 1
    assert ((found[polar, 2] > found[polar, 0]) == (truth[polar] == 2)).mean() >= 0.83
    assert correct.mean() >= 0.66
    assert calibration_error(found.max(axis=1), correct) <= 0.07
