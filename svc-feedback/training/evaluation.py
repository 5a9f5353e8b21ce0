# SPDX-License-Identifier: Apache-2.0
"""Measure a model on texts that it was not trained on, and write the figures into the README."""

import csv
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from svc_feedback.domain.language import LanguageGuess, detect_language
from svc_feedback.domain.model import SentimentModel, softmax, spread
from svc_feedback.domain.text import normalise, shorten

from training.calibration import Bin, Floats, calibration_error, reliability
from training.corpus import EVALUATED_ON, EVALUATION, TRAINED_ON

README = Path(__file__).with_name("README.md")
TESTS = Path(__file__).parents[1] / "tests"
SENTENCES = {"shop": "shop_sentences.tsv", "unseen shop": "unseen_shop_sentences.tsv"}
BEGIN, END = "<!-- figures: written by `evaluate` -->", "<!-- end of figures -->"
NEGATIVE, NEUTRAL, POSITIVE = range(3)
_SPEED_TEXTS = 5_000


@dataclass(frozen=True)
class Measured:
    """One corpus: what is true, and what the model says before and after calibration."""

    name: str
    truth: NDArray[np.int64]
    before: Floats
    after: Floats

    @property
    def accuracy(self) -> float:
        """Share of texts whose likeliest class is right."""
        return float((self.after.argmax(axis=1) == self.truth).mean())

    @property
    def binary_accuracy(self) -> float:
        """Positive against negative, on the texts that are one of the two."""
        polar = self.truth != NEUTRAL
        says_positive = self.after[polar, POSITIVE] > self.after[polar, NEGATIVE]
        return float((says_positive == (self.truth[polar] == POSITIVE)).mean())

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that the corpus has."""
        chosen = self.after.argmax(axis=1)
        scores = []
        for label in np.unique(self.truth):
            both = ((chosen == label) & (self.truth == label)).sum()
            scores.append(2 * both / ((chosen == label).sum() + (self.truth == label).sum()))
        return float(np.mean(scores))

    def bins(self, probabilities: Floats) -> list[Bin]:
        """The reliability table; of positive against negative where the corpus knows no neutral texts."""
        if not (self.truth == NEUTRAL).any():
            probabilities = probabilities * [1, 0, 1] / probabilities[:, [NEGATIVE, POSITIVE]].sum(axis=1)[:, None]
        return reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == self.truth)


def measure(model: SentimentModel, name: str, texts: Sequence[str], truth: Sequence[int]) -> Measured:
    """What a model says of labelled texts."""
    normalised = [normalise(shorten(text)) for text in texts]
    guesses: list[LanguageGuess] = [detect_language(text, model.english) for text in normalised]
    logits = model.logits(normalised)
    return Measured(name, np.array(truth), softmax(spread(logits)), model.probabilities(logits, guesses))


def measure_all(model: SentimentModel, folder: Path) -> list[Measured]:
    """Every corpus that has a part kept for evaluation."""
    found = []
    for corpus in (*EVALUATED_ON, *TRAINED_ON):
        examples = list(corpus.examples(folder, EVALUATION))
        if examples:
            name = corpus.name if corpus in EVALUATED_ON else f"{corpus.name} (held out)"
            truth = [int(np.argmax(example.target)) for example in examples]
            found.append(measure(model, name, [example.text for example in examples], truth))
    return found


def measure_sentences(model: SentimentModel, path: Path, name: str) -> list[Measured]:
    """Our own sentences, per language."""
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    label = {"negative": NEGATIVE, "neutral": NEUTRAL, "positive": POSITIVE}
    found = []
    for language in ("ko", "en"):
        chosen = [row for row in rows if row["language"] == language]
        truth = [label[row["label"]] for row in chosen]
        found.append(measure(model, f"{name} sentences ({language})", [row["text"] for row in chosen], truth))
    return found


def latin_words(normalised: str) -> list[str]:
    """Words of Latin letters, as language detection sees them."""
    return re.findall(r"[a-zà-ɏ]+(?:'[a-z]+)?", normalised)


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_report(model: SentimentModel, path: Path, folder: Path) -> None:
    """Measure, and replace what the README said before."""
    measured = measure_all(model, folder)
    for name, file in SENTENCES.items():
        measured += measure_sentences(model, TESTS / file, name)
    lines = [BEGIN, "", f"`{path.name}`: {path.stat().st_size:,} bytes, SHA-256 `{sha256(path)[:16]}…`.", ""]
    lines += _accuracy_table(measured)
    for wanted in ("nsmc test", "kote (held out)", "goemotions dev"):
        lines += _reliability_table(next(one for one in measured if one.name == wanted))
    lines += [*_speed(model, folder), "", END]
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")
    print("\n".join(lines))


def _accuracy_table(measured: Sequence[Measured]) -> list[str]:
    lines = [
        "| texts | count | positive or negative | three classes | macro F1 | ECE before | ECE after |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in measured:
        three = f"{one.accuracy:.3f}" if (one.truth == NEUTRAL).any() else "-"
        errors = (calibration_error(one.bins(one.before)), calibration_error(one.bins(one.after)))
        lines.append(
            f"| {one.name} | {len(one.truth):,} | {one.binary_accuracy:.4f} | {three} | {one.macro_f1:.3f} "
            f"| {errors[0]:.3f} | {errors[1]:.3f} |"
        )
    return lines


def _reliability_table(one: Measured) -> list[str]:
    lines = ["", f"Reliability on {one.name}:", "", "| probability | texts | claimed | correct |", "|---|---|---|---|"]
    for part in one.bins(one.after):
        lines.append(
            f"| {part.low:.1f} - {part.low + 0.1:.1f} | {part.count:,} | {part.claimed:.3f} | {part.correct:.3f} |"
        )
    return lines


def _speed(model: SentimentModel, folder: Path) -> list[str]:
    """Texts a second of processor time, language and terms included."""
    texts = [example.text for example in EVALUATED_ON[0].examples(folder, EVALUATION)][:_SPEED_TEXTS]
    started = time.process_time()
    model.judge(texts)
    together = len(texts) / (time.process_time() - started)
    started = time.process_time()
    for text in texts[:500]:
        model.judge([text])
    alone = 500 / (time.process_time() - started)
    speed = f"{together:,.0f} texts/s in batches, {alone:,.0f} texts/s one by one"
    return ["", f"Speed per second of processor time, language and terms included: {speed}."]
