# SPDX-License-Identifier: Apache-2.0
"""What answers mean for purposes: expiry, age, restriction, defaults, categories; and what devices repeat."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chassis.clock import from_us, to_us
from chassis.errors import Invalid
from hypothesis import given
from hypothesis import strategies as st
from svc_profile.domain.consent import RESTRICTION, Answer, Entry
from svc_profile.domain.purposes import (
    Notice,
    Purpose,
    Reason,
    born_of,
    expiry_us,
    is_too_young,
    judge,
    purposes_of_categories,
)
from svc_profile.domain.reports import Reports, report

EMAIL = Purpose("marketing_email", "E-mail", kind=3, expiry_months=24, minimum_age=14, categories=("C4", "ads"))
SUPPORT = Purpose("support", "Support", kind=4, granted_by_default=True)
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def said(answer: Answer, moment: datetime = NOON, purpose_id: str = EMAIL.purpose_id) -> Entry:
    return Entry(b"f" * 16, purpose_id, answer, to_us(moment), b"k" * 16)


@pytest.mark.parametrize(
    ("granted", "ends"),
    [
        (datetime(2024, 1, 15, 8, 30, tzinfo=UTC), datetime(2026, 1, 15, 8, 30, tzinfo=UTC)),
        (datetime(2024, 2, 29, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC)),
        (datetime(2024, 12, 31, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_grant_ends_so_many_months_later(granted: datetime, ends: datetime) -> None:
    """On the same day of the month, or on the last one of a shorter month."""
    end_us = expiry_us(EMAIL, to_us(granted))
    assert end_us is not None
    assert from_us(end_us) == ends
    moment_before = judge(EMAIL, {EMAIL.purpose_id: said(Answer.GRANTED, granted)}, None, end_us - 1)
    moment_after = judge(EMAIL, {EMAIL.purpose_id: said(Answer.GRANTED, granted)}, None, end_us)
    assert (moment_before.granted, moment_before.reason) == (True, Reason.ANSWERED)
    assert (moment_after.granted, moment_after.reason) == (False, Reason.EXPIRED)


def test_without_months_a_grant_does_not_end() -> None:
    assert expiry_us(SUPPORT, to_us(NOON)) is None
    assert expiry_us(Purpose("p", "P", expiry_months=1200), to_us(datetime(9990, 1, 1, tzinfo=UTC))) is None


@pytest.mark.parametrize(
    ("traits", "young"),
    [
        ({"birthday": "2012-11-27"}, True),
        ({"birthday": "2012-11-26"}, False),
        ({"birthday": "2012-11-27T00:00:00Z"}, True),
        ({"age": 13}, True),
        ({"age": 14}, False),
        ({"age": 13.9}, True),
        ({"birthday": "soon", "age": 12}, True),
        ({"birthday": "1990-01-01", "age": 5}, False),
        ({"age": True}, False),
        ({"age": -3}, False),
        ({"age": "12"}, False),
        ({}, False),
    ],
)
def test_only_who_is_surely_too_young_cannot_grant(traits: dict[str, Any], young: bool) -> None:
    """A date goes before an age in years; what nobody can read says nothing."""
    born = born_of({name: (value, to_us(NOON)) for name, value in traits.items()})
    assert is_too_young(EMAIL, born, to_us(NOON)) is young
    found = judge(EMAIL, {EMAIL.purpose_id: said(Answer.GRANTED)}, born, to_us(NOON))
    assert found.granted is not young
    assert (found.reason is Reason.MINIMUM_AGE) is young


def test_an_age_that_was_said_grows_with_time() -> None:
    """Thirteen two years ago is old enough now."""
    born = born_of({"age": (13, to_us(NOON - timedelta(days=2 * 366)))})
    assert not is_too_young(EMAIL, born, to_us(NOON))


def test_a_restriction_blocks_everything_but_serving() -> None:
    answers = {EMAIL.purpose_id: said(Answer.GRANTED), RESTRICTION: said(Answer.WITHDRAWN, purpose_id=RESTRICTION)}
    assert judge(EMAIL, answers, None, to_us(NOON)).reason is Reason.RESTRICTED
    assert judge(SUPPORT, answers, None, to_us(NOON)).granted
    lifted = {**answers, RESTRICTION: said(Answer.GRANTED, purpose_id=RESTRICTION)}
    assert judge(EMAIL, lifted, None, to_us(NOON)).granted


def test_a_no_in_one_category_is_a_no() -> None:
    """Several categories may answer for a purpose, and one category for several."""
    other = Purpose("other", "Other", categories=("ads",))
    assert purposes_of_categories([EMAIL, other], {"C4": True, "ads": False, "unknown": True}) == {
        "marketing_email": False,
        "other": False,
    }
    assert purposes_of_categories([EMAIL, other], {"marketing_email": True}) == {"marketing_email": True}


def test_what_customers_were_shown_stays() -> None:
    shown = Purpose("p", "P", notices=(Notice(1, "ko", "제목", "내용", 0),))
    newer = Purpose("p", "P", notices=(*shown.notices, Notice(2, "ko", "새 제목", "새 내용", 5)))
    newer.check_follows(shown)
    with pytest.raises(Invalid, match="version 1"):
        Purpose("p", "P", notices=newer.notices[1:]).check_follows(shown)
    with pytest.raises(Invalid, match="once in each locale"):
        Purpose("p", "P", notices=shown.notices * 2).check()
    with pytest.raises(Invalid, match="reserved"):
        Purpose(RESTRICTION, "R").check()


def test_silence_is_no_consent() -> None:
    """What rests on another legal basis may hold for a customer who said nothing."""
    with pytest.raises(Invalid, match="granted_by_default"):
        Purpose("p", "P", legal_basis=1, granted_by_default=True).check()
    Purpose("p", "P", legal_basis=4, granted_by_default=True).check()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=6), st.randoms())
def test_reports_are_the_same_in_every_order(given_reports: list[tuple[bool, int]], chance: Any) -> None:
    """And repeated."""
    shuffled = [*given_reports, *given_reports]
    chance.shuffle(shuffled)
    whole, again = Reports(), Reports()
    for granted, time_us in given_reports:
        whole = whole.joined(report(granted, time_us, time_us))
    for granted, time_us in shuffled:
        again = again.joined(report(granted, time_us, time_us))
    assert whole == again
    decision = whole.decision()
    assert decision is not None
    latest = max(time_us for _, time_us in given_reports)
    assert decision.time_us <= latest + 1
    if decision.answer is Answer.GRANTED:
        assert all(granted for granted, time_us in given_reports if time_us == latest)
    else:
        assert (False, latest) in given_reports


def test_a_device_that_changed_its_mind_once_is_known_to_the_moment() -> None:
    """Whatever it reported before and after, in every order."""
    reports = [report(True, 1, 1), report(True, 5, 5), report(False, 7, 7), report(False, 9, 9)]
    for order in itertools.permutations(reports):
        whole = Reports()
        for each in order:
            whole = whole.joined(each)
        decision = whole.decision()
        assert decision is not None
        assert (decision.answer, decision.time_us, decision.received_time_us) == (Answer.WITHDRAWN, 7, 7)
