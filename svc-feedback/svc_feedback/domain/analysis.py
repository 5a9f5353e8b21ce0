# SPDX-License-Identifier: Apache-2.0
"""Language and sentiment of texts, by the model that is part of the package."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from svc_feedback.domain.model import SentimentModel
from svc_feedback.domain.sentiment import Sentiment

MODEL_FILE = "sentiment-v1.npz"

Analysis = tuple[str, Sentiment | None]
"""BCP 47 `ko`, `en` or `und`; no sentiment when there is nothing that the model can read."""


@cache
def shipped_model() -> SentimentModel:
    """Read the model once, when it is first needed."""
    return SentimentModel.from_bytes((files("svc_feedback") / "models" / MODEL_FILE).read_bytes())


def analyze(text: str) -> Analysis:
    """Tell language and sentiment of a text."""
    return analyze_all([text])[0]


def analyze_all(texts: Sequence[str]) -> list[Analysis]:
    """Tell language and sentiment of many texts at once, which costs far less than one by one."""
    return [(str(guess.language), sentiment) for guess, sentiment in shipped_model().judge(texts)]
