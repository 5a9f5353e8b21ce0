# SPDX-License-Identifier: Apache-2.0
"""What feedback is, which feedback can be kept, and what many pieces of it add up to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from math import sqrt
from typing import Any
from uuid import UUID

from chassis.errors import Invalid, Violation
from chassis.identity import ProfileId

from svc_feedback.domain.sentiment import Sentiment

MAX_TEXT_LENGTH = 10_000
Z_95 = 1.959963984540054


class Kind(IntEnum):
    """What kind of feedback it is; the numbers are those of the contract."""

    REVIEW = 1
    NPS = 2
    COMMENT = 3


RATINGS: Mapping[Kind, range] = {Kind.REVIEW: range(1, 6), Kind.NPS: range(11), Kind.COMMENT: range(0)}
"""Ratings that a kind may carry."""


@dataclass(frozen=True)
class Draft:
    """Feedback as it was given, before anything was understood."""

    kind: Kind
    fragment_id: UUID | None
    rating: int | None
    text: str
    item_id: str
    feedback_time: datetime
    source: str
    request_id: str
    """Tells repetitions; empty when the giver named none."""


@dataclass(frozen=True)
class Feedback:
    """Feedback as it is kept."""

    feedback_id: str
    draft: Draft
    language: str
    """BCP 47: `ko`, `en` or `und`."""
    sentiment: Sentiment | None
    """None without a text to judge."""
    received_time: datetime


Kept = tuple[Feedback, ProfileId | None]
"""Feedback, and whose it is now."""


@dataclass(frozen=True)
class Choice:
    """Which feedback is wanted, and after which piece the page starts."""

    fragment_id: UUID | None = None
    item_id: str = ""
    kind: int = 0
    sentiment: int = 0
    before_time: datetime | None = None
    before_id: str = ""


def check(draft: Draft) -> None:
    """Raise `Invalid` naming every rule that a draft breaks."""
    violations = []
    allowed = RATINGS[draft.kind]
    if draft.rating is not None and draft.rating not in allowed:
        rule = (
            f"must be from {allowed[0]} to {allowed[-1]} for {draft.kind.name}" if allowed else "is not for a COMMENT"
        )
        violations.append(Violation("feedback.rating", rule))
    if draft.kind is Kind.NPS and draft.rating is None:
        violations.append(Violation("feedback.rating", "is required for NPS"))
    if draft.kind is not Kind.NPS and draft.rating is None and not draft.text.strip():
        needed = "a REVIEW needs a rating or a text" if draft.kind is Kind.REVIEW else "a COMMENT needs a text"
        violations.append(Violation("feedback.text", needed))
    if violations:
        raise Invalid("; ".join(f"{v.field}: {v.rule}" for v in violations), violations=violations)


@dataclass(frozen=True)
class _Reading:
    """Where an event keeps what was said."""

    kind: Kind
    rating: str
    text: tuple[str, ...]


_EVENTS: Mapping[str, _Reading] = {
    # The Segment e-commerce specification, version 2.
    "Product Reviewed": _Reading(Kind.REVIEW, "rating", ("review_body", "text")),
    "NPS Answered": _Reading(Kind.NPS, "score", ("comment", "text")),
    "Comment Submitted": _Reading(Kind.COMMENT, "", ("comment", "text")),
}

EVENT_NAMES = frozenset(_EVENTS)
"""Events that carry feedback."""


def event_of(kind: Kind) -> str:
    """Return the name of the event that a kind of feedback comes as, or could have come as."""
    return next(name for name, reading in _EVENTS.items() if reading.kind is kind)


def read_event(
    name: str,
    properties: Mapping[str, Any],
    *,
    fragment_id: UUID,
    feedback_time: datetime,
    source: str,
    message_id: str,
) -> Draft | None:
    """Read the feedback in an event; None when it carries none that can be kept.

    A rating outside the kind's range is left out, because an event cannot be sent back to be mended.
    """
    reading = _EVENTS[name]
    found = (properties[key] for key in reading.text if isinstance(properties.get(key), str))
    rating = _whole_number(properties.get(reading.rating))
    draft = Draft(
        kind=reading.kind,
        fragment_id=fragment_id,
        rating=rating if rating in RATINGS[reading.kind] else None,
        text=next(found, "")[:MAX_TEXT_LENGTH],
        item_id=str(properties.get("product_id") or properties.get("item_id") or "")[:200],
        feedback_time=feedback_time,
        source=source,
        request_id=request_id_of(source, message_id),
    )
    try:
        check(draft)
    except Invalid:
        return None
    return draft


def request_id_of(source: str, message_id: str) -> str:
    """Return the request id of the feedback that an event brings."""
    return f"event:{source}:{message_id}"


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


@dataclass(frozen=True)
class Nps:
    """Net promoter score with its interval, in points from -100 to 100."""

    score: float
    low: float
    high: float


def nps(promoters: int, passives: int, detractors: int) -> Nps | None:
    """Share of promoters minus share of detractors, with a 95 % adjusted Wald interval; None without answers.

    The interval adds three answers, a quarter promoters, half passives, a quarter detractors (B. Rocks, Interval
    Estimation for the Net Promoter Score, The American Statistician 70(4), 2016), so that it holds for few answers too.
    """
    count = promoters + passives + detractors
    if not count:
        return None
    score = (promoters - detractors) / count
    n = count + 3
    p, d = (promoters + 0.75) / n, (detractors + 0.75) / n
    centre = p - d
    margin = Z_95 * sqrt((p + d - centre**2) / n)
    return Nps(100 * score, 100 * max(centre - margin, -1), 100 * min(centre + margin, 1))


@dataclass(frozen=True)
class Summary:
    """What many pieces of feedback add up to; counts, so that summaries of parts can be added."""

    count: int
    negative_count: int
    neutral_count: int
    positive_count: int
    rating_count: int
    rating_sum: int
    promoter_count: int
    passive_count: int
    detractor_count: int

    @property
    def rating_mean(self) -> float | None:
        """Mean rating of the reviews, None without any."""
        return self.rating_sum / self.rating_count if self.rating_count else None

    @property
    def nps(self) -> Nps | None:
        """Net promoter score, None without answers."""
        return nps(self.promoter_count, self.passive_count, self.detractor_count)
