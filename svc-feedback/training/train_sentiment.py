# SPDX-License-Identifier: Apache-2.0
"""Train the sentiment model, or measure the one that is shipped.

From `svc-feedback/`, with DANGOL_DATASETS set: `python -m training.train_sentiment train|evaluate`.
"""

import os

# One core, and one order of additions, whatever the machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from svc_feedback.domain.analysis import MODEL_FILE
from svc_feedback.domain.model import FORMAT, SentimentModel, checksum, packed, spread
from svc_feedback.domain.text import normalise, shorten

from training import evaluation
from training.calibration import fit
from training.corpus import CALIBRATION, TRAINED_ON, TRAINING, Example, file_hashes
from training.learner import Learnt, learn
from training.phrases import PHRASES, shop_examples

NAME = "sentiment-v1"
BITS = 22
SEED = 20
KEPT = {"polarity": 1_050_000, "neutrality": 300_000}
CLIPPED_SHARE = 0.0005
ENGLISH_WORD_SEEN = 5
MAX_BYTES = 2_000_000
MODEL = Path(__file__).parents[1] / "svc_feedback" / "models" / MODEL_FILE


def main() -> None:
    """Train or evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("train", "evaluate"))
    command = parser.parse_args().command
    folder = datasets()
    if command == "train":
        started = time.perf_counter()
        content = train(folder)
        MODEL.parent.mkdir(exist_ok=True)
        MODEL.write_bytes(content)
        print(f"{MODEL.name}: {len(content):,} bytes in {time.perf_counter() - started:.0f} s")
    else:
        evaluation.write_report(SentimentModel.from_bytes(MODEL.read_bytes()), MODEL, folder)


def datasets() -> Path:
    """Where the labelled texts are."""
    root = os.environ.get("DANGOL_DATASETS")
    if not root:
        raise SystemExit("DANGOL_DATASETS is not set: it names the folder that holds feedback/")
    return Path(root) / "feedback"


def train(folder: Path) -> bytes:
    """Learn, shrink and calibrate; the content of the model file."""
    examples = [example for corpus in TRAINED_ON for example in corpus.examples(folder, TRAINING)]
    examples += shop_examples(SEED)
    print(f"{len(examples):,} examples", flush=True)
    columns, scale = shrink(learn(examples, bits=BITS, seed=SEED))
    metadata: dict[str, Any] = {
        "format": FORMAT,
        "name": NAME,
        "bits": BITS,
        "seed": SEED,
        "scale": scale,
        "calibration": {language: {"temperature": 1.0, "shift": [0.0, 0.0, 0.0]} for language in ("ko", "en")},
        "training_files": file_hashes(folder) | {PHRASES.name: evaluation.sha256(PHRASES)},
        "examples": dict(sorted(Counter(example.corpus for example in examples).items())),
    }
    words = english_words(examples)
    raw = SentimentModel.from_bytes(written(columns, words, metadata))
    metadata["calibration"] = {language: calibrated(raw, language, folder) for language in ("ko", "en")}
    content = written(columns, words, metadata)
    if len(content) > MAX_BYTES:
        raise SystemExit(f"the model has {len(content):,} bytes, more than {MAX_BYTES:,}")
    return content


def shrink(learnt: Learnt) -> tuple[Mapping[str, NDArray[np.int8]], list[float]]:
    """Keep the weights that matter to most texts, one signed byte each."""
    columns, scale = {}, []
    for weights, (name, kept) in zip(learnt.weights.T, KEPT.items(), strict=True):
        matters = np.abs(weights) * np.sqrt(learnt.seen)
        least = np.partition(matters, -kept)[-kept]
        chosen = weights[(matters >= least) & (matters > 0)]
        unit = float(np.quantile(np.abs(chosen), 1 - CLIPPED_SHARE)) / 127
        small = np.where(matters >= least, np.rint(weights / unit), 0)
        columns[name] = small.clip(-127, 127).astype(np.int8)
        scale.append(unit)
    return columns, scale


def english_words(examples: Sequence[Example]) -> NDArray[np.uint32]:
    """Checksums of the words that English texts use often enough to be words."""
    english = {corpus.name for corpus in TRAINED_ON if corpus.language == "en"} | {"shop en"}
    counts: Counter[str] = Counter()
    for example in examples:
        if example.corpus in english:
            counts.update(set(evaluation.latin_words(normalise(example.text))))
    common = [checksum(word) for word, count in counts.items() if count >= ENGLISH_WORD_SEEN]
    return np.array(sorted(set(common)), np.uint32)


def calibrated(model: SentimentModel, language: str, folder: Path) -> dict[str, Any]:
    """Fit the calibration of a language on texts that were not trained on, each corpus with equal weight."""
    logits, targets, weights = [], [], []
    for corpus in TRAINED_ON:
        held = list(corpus.examples(folder, CALIBRATION)) if corpus.language == language else []
        if held:
            logits.append(spread(model.logits([normalise(shorten(example.text)) for example in held])))
            targets.append(np.array([example.target for example in held]))
            weights.append(np.full(len(held), 1 / len(held)))
    temperature, shift = fit(np.concatenate(logits), np.concatenate(targets), np.concatenate(weights))
    return {"temperature": temperature, "shift": shift}


def written(columns: Mapping[str, NDArray[np.int8]], words: NDArray[np.uint32], metadata: Mapping[str, Any]) -> bytes:
    """The model file; numpy dates every part 1980, so the same model is the same bytes."""
    parts: dict[str, NDArray[Any]] = {"english_words": words}
    for name, column in columns.items():
        parts |= dict(packed(column, name))
    parts["metadata"] = np.frombuffer(json.dumps(metadata, sort_keys=True).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **parts)  # type: ignore[arg-type]
    return content.getvalue()


if __name__ == "__main__":
    main()
