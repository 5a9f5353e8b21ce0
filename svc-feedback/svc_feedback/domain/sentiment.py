# SPDX-License-Identifier: Apache-2.0
"""How a text feels: a calibrated probability of each class, and the words that weighed most."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Self


class Label(IntEnum):
    """What a text feels like; the numbers are those of the contract."""

    NEGATIVE = 1
    NEUTRAL = 2
    POSITIVE = 3


@dataclass(frozen=True, slots=True)
class Term:
    """A piece of the text; above 0 it speaks for positive, below 0 for negative, in log-odds."""

    text: str
    weight: float


@dataclass(frozen=True)
class Sentiment:
    """The three probabilities sum to 1."""

    negative: float
    neutral: float
    positive: float
    terms: tuple[Term, ...]
    """Strongest first."""
    model: str

    @property
    def label(self) -> Label:
        """The likeliest class."""
        return max(Label, key=lambda label: self._probabilities[label - 1])

    @property
    def probability(self) -> float:
        """How likely the label is."""
        return max(self._probabilities)

    @property
    def _probabilities(self) -> Sequence[float]:
        return self.negative, self.neutral, self.positive

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        terms = tuple(Term(term["text"], term["weight"]) for term in kept["terms"])
        return cls(kept["negative"], kept["neutral"], kept["positive"], terms, kept["model"])
