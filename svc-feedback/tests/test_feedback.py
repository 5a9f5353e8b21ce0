# SPDX-License-Identifier: Apache-2.0
"""The rules of feedback, and what many pieces of it add up to."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from chassis.errors import Invalid
from hypothesis import given
from hypothesis import strategies as st
from svc_feedback.domain.feedback import Draft, Kind, Summary, check, nps, read_event

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def draft(kind: Kind, rating: int | None = None, text: str = "") -> Draft:
    return Draft(kind, None, rating, text, "", NOON, "api", "")


@pytest.mark.parametrize(
    "good",
    [
        draft(Kind.REVIEW, 1),
        draft(Kind.REVIEW, 5, "좋아요"),
        draft(Kind.REVIEW, None, "good"),
        draft(Kind.NPS, 0),
        draft(Kind.NPS, 10, "추천"),
        draft(Kind.COMMENT, None, "hello"),
    ],
)
def test_keeps_what_is_in_order(good: Draft) -> None:
    check(good)


@pytest.mark.parametrize(
    ("bad", "field", "rule"),
    [
        (draft(Kind.REVIEW, 0), "feedback.rating", "must be from 1 to 5 for REVIEW"),
        (draft(Kind.REVIEW, 6), "feedback.rating", "must be from 1 to 5 for REVIEW"),
        (draft(Kind.NPS, 11), "feedback.rating", "must be from 0 to 10 for NPS"),
        (draft(Kind.NPS, None, "text"), "feedback.rating", "is required for NPS"),
        (draft(Kind.COMMENT, 3, "text"), "feedback.rating", "is not for a COMMENT"),
        (draft(Kind.COMMENT, None, "  "), "feedback.text", "a COMMENT needs a text"),
        (draft(Kind.REVIEW), "feedback.text", "a REVIEW needs a rating or a text"),
    ],
)
def test_names_field_and_rule(bad: Draft, field: str, rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(bad)
    assert [(v.field, v.rule) for v in caught.value.violations] == [(field, rule)]


def read(name: str, **properties: Any) -> Draft | None:
    return read_event(name, properties, fragment_id=UUID(int=1), feedback_time=NOON, source="web", message_id="m1")


def test_reads_a_review_out_of_an_event() -> None:
    found = read("Product Reviewed", product_id="sku-1", rating="5", review_body="최고예요")
    assert found is not None
    assert (found.kind, found.rating, found.text, found.item_id) == (Kind.REVIEW, 5, "최고예요", "sku-1")
    assert found.request_id == "event:web:m1"


def test_reads_the_other_kinds_out_of_events() -> None:
    answer, comment = read("NPS Answered", score=9), read("Comment Submitted", text="hi")
    assert answer is not None
    assert comment is not None
    assert [(d.kind, d.rating, d.text) for d in (answer, comment)] == [(Kind.NPS, 9, ""), (Kind.COMMENT, None, "hi")]


@pytest.mark.parametrize("rating", [9, 2.5, "many", True, None, [5], float("nan"), float("inf")])
def test_leaves_an_impossible_rating_out_of_an_event(rating: Any) -> None:
    found = read("Product Reviewed", rating=rating, review_body="good")
    assert found is not None
    assert found.rating is None


@pytest.mark.parametrize("properties", [{}, {"score": 11}, {"comment": 5}])
def test_an_event_without_usable_feedback_is_none(properties: dict[str, Any]) -> None:
    assert read("NPS Answered", **properties) is None


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_middle_and_stays_in_range(promoters: int, passives: int, detractors: int) -> None:
    score = nps(promoters, passives, detractors)
    if promoters + passives + detractors == 0:
        assert score is None
        return
    assert score is not None
    assert -100 <= score.low <= score.high <= 100
    assert -100 <= score.score <= 100
    mirrored = nps(detractors, passives, promoters)
    assert mirrored is not None
    assert mirrored.score == pytest.approx(-score.score)
    assert mirrored.low == pytest.approx(-score.high)


def test_more_answers_narrow_the_interval() -> None:
    few, many = nps(6, 2, 2), nps(600, 200, 200)
    assert few is not None
    assert many is not None
    assert few.score == many.score == pytest.approx(40)
    assert many.high - many.low < (few.high - few.low) / 5


def test_the_interval_of_a_worked_example() -> None:
    """Six promoters, two passives, two detractors: p = 6.75/13, d = 2.75/13, se² = (p + d - (p - d)²) / 13."""
    score = nps(6, 2, 2)
    assert score is not None
    assert score.low == pytest.approx(-12.59, abs=0.01)
    assert score.high == pytest.approx(74.12, abs=0.01)


def test_a_summary_divides_by_what_is_there() -> None:
    assert Summary(0, 0, 0, 0, 0, 0, 0, 0, 0).rating_mean is None
    assert Summary(3, 0, 0, 3, 2, 9, 0, 0, 0).rating_mean == 4.5
