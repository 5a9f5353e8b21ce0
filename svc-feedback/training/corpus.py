# SPDX-License-Identifier: Apache-2.0
"""The labelled texts: where they are, what their labels mean here, and which part each one is in."""

import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Target = tuple[float, float, float]
"""How much of a text is negative, neutral and positive."""
Row = Mapping[str, str]

TARGET_OF: Mapping[str, Target] = {"neg": (1, 0, 0), "neu": (0, 1, 0), "pos": (0, 0, 1)}
TRAINING, CALIBRATION, EVALUATION = "training", "calibration", "evaluation"


@dataclass(frozen=True)
class Example:
    """A text, its target, its weight, and the corpus that it is from."""

    text: str
    target: Target
    weight: float
    corpus: str


@dataclass(frozen=True)
class Corpus:
    """One file: its language, its weight, how its rows are labelled, and which shares of it are not trained on."""

    name: str
    language: str
    file: str
    weight: float
    target_of: Callable[[Row], Target | None]
    calibration_share: float = 0.0
    evaluation_share: float = 0.0

    def rows(self, folder: Path) -> Iterator[Row]:
        """Every row of the file."""
        with gzip.open(folder / self.file, "rt", encoding="utf-8", newline="\n") as lines:
            names = next(lines).rstrip("\n").split("\t")
            for line in lines:
                yield dict(zip(names, line.rstrip("\n").split("\t", len(names) - 1), strict=True))

    def examples(self, folder: Path, part: str) -> Iterator[Example]:
        """The labelled texts of one part; the id of a row alone decides its part."""
        for row in self.rows(folder):
            target = self.target_of(row)
            if target is not None and self._part_of(row["id"]) == part:
                yield Example(row["text"], target, self.weight * _weight_of(row), self.name)

    def _part_of(self, row_id: str) -> str:
        digest = hashlib.sha256(f"{self.name}:{row_id}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.calibration_share:
            return CALIBRATION
        return EVALUATION if place < self.calibration_share + self.evaluation_share else TRAINING


def _weight_of(row: Row) -> float:
    """NSMC's file holds more praise than complaint; an ambiguous emotion is a weak sign of neutral."""
    if row.get("bal150k") is not None:
        return 0.7 if row["label"] != "neg" else 1.0
    return 0.5 if row.get("label") == "amb" else 1.0


def _by_label(row: Row) -> Target | None:
    return TARGET_OF[row["label"]]


def _by_film_rating(row: Row) -> Target | None:
    """1-4 negative, 5-6 neutral, 9-10 positive; 7 and 8 say too little about the text to teach anything."""
    return None if row["rating"] in {"7", "8"} else TARGET_OF[row["label"]]


def _by_emotion(row: Row) -> Target | None:
    """Confusion, surprise and realisation alone count as neutral; both polarities at once are left out."""
    return None if row["label"] == "mixed" else TARGET_OF["neu" if row["label"] == "amb" else row["label"]]


def _by_clear_emotion(row: Row) -> Target | None:
    return TARGET_OF.get(row["label"])


def _by_aspects(row: Row) -> Target | None:
    """The polarity of a sentence whose aspects do not contradict each other."""
    polarities = {aspect.split(":")[1] for aspect in row["aspects"].split("|")} - {"neutral"}
    if len(polarities) > 1:
        return None
    return TARGET_OF[polarities.pop()[:3] if polarities else "neu"]


TRAINED_ON = (
    Corpus("nsmc", "ko", "ko_nsmc_train.tsv.gz", 1.0, _by_film_rating, calibration_share=0.03),
    Corpus("kote", "ko", "ko_kote_dev.tsv.gz", 20.0, _by_label, calibration_share=0.1, evaluation_share=0.15),
    Corpus("vader", "en", "en_vader_train.tsv.gz", 2.0, _by_label, calibration_share=0.05, evaluation_share=0.1),
    Corpus("goemotions", "en", "en_goemotions_train.tsv.gz", 1.0, _by_emotion, calibration_share=0.04),
    Corpus("clothing", "en", "en_clothing_dev.tsv.gz", 4.0, _by_label, calibration_share=0.2, evaluation_share=0.3),
    Corpus("mams", "en", "en_mams_aspects_train.tsv.gz", 2.0, _by_aspects),
)
EVALUATED_ON = (
    Corpus("nsmc test", "ko", "ko_nsmc_test.tsv.gz", 1.0, _by_label, evaluation_share=1.0),
    Corpus("goemotions dev", "en", "en_goemotions_dev.tsv.gz", 1.0, _by_clear_emotion, evaluation_share=1.0),
    Corpus("mams val", "en", "en_mams_aspects_val.tsv.gz", 1.0, _by_aspects, evaluation_share=1.0),
    Corpus("uci imdb+yelp", "en", "en_uci_imdb_yelp_train.tsv.gz", 1.0, _by_label, evaluation_share=1.0),
)


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that is trained on."""
    return {corpus.file: hashlib.sha256((folder / corpus.file).read_bytes()).hexdigest() for corpus in TRAINED_ON}
