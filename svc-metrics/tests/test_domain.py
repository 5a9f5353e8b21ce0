# SPDX-License-Identifier: Apache-2.0
"""Ranges, ratios and funnels, without any engine."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from chassis.errors import Invalid
from svc_metrics.domain import DayRange, FunnelQuestion, FunnelStep, Kpis, KpiSeries, funnel_of

EVENING = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)


def test_nothing_asked_means_the_last_thirty_days_in_seoul() -> None:
    """At 15:30 UTC it is tomorrow already in Seoul."""
    days = DayRange.of("", "", "", EVENING)
    assert (days.first, days.last, days.time_zone) == (date(2026, 10, 25), date(2026, 11, 23), "Asia/Seoul")
    assert len(days.days()) == 30


def test_today_is_today_in_the_zone_that_was_asked_for() -> None:
    """The last day depends on the zone, the first on the last."""
    assert DayRange.of("", "", "America/Los_Angeles", EVENING).last == date(2026, 11, 22)
    assert DayRange.of("", "2026-03-01", "", EVENING).first == date(2026, 1, 31)


@pytest.mark.parametrize(
    ("start", "end", "zone", "field", "words"),
    [
        ("2026-02-30", "2026-03-01", "", "start_date", "day of the calendar"),
        ("2026-02-01", "2026-13-01", "", "end_date", "day of the calendar"),
        ("1969-12-31", "1970-01-01", "", "end_date", "from 1971-01-01"),
        ("2026-03-02", "2026-03-01", "", "start_date", "not be after the last day, 2026-03-01"),
        ("2026-12-24", "", "", "start_date", "not be after the last day, 2026-11-23"),
        ("2024-01-01", "2026-01-01", "", "start_date", "732 days, at most 731"),
        ("", "", "Asia/Atlantis", "time_zone", "IANA"),
        ("", "", "../../etc/passwd", "time_zone", "IANA"),
        ("", "", "localtime", "time_zone", "IANA"),
        ("", "", "asia/seoul", "time_zone", "IANA"),
    ],
)
def test_a_range_that_cannot_be_names_the_field_and_the_rule(
    start: str, end: str, zone: str, field: str, words: str
) -> None:
    """The caller learns what to change."""
    with pytest.raises(Invalid) as refused:
        DayRange.of(start, end, zone, EVENING)
    assert refused.value.violations[0].field == field
    assert words in refused.value.violations[0].rule


def test_two_years_fit() -> None:
    """731 days are two years, one of them a leap year."""
    assert len(DayRange.of("2024-01-01", "2025-12-31", "UTC", EVENING).days()) == 731


def test_ratios_are_absent_without_anything_to_divide_by() -> None:
    """No division by nothing, and no zero that means unknown."""
    nothing = Kpis(date(2026, 1, 1))
    assert (nothing.conversion, nothing.average_order_value) == (None, None)
    something = Kpis(date(2026, 1, 1), 4, 9, 2, 1, Decimal(50), Decimal(90), 2)
    assert (something.conversion, something.average_order_value) == (0.25, 45.0)


def test_every_day_of_the_range_is_there() -> None:
    """Days without events are zeros, in order."""
    days = DayRange.of("2026-02-27", "2026-03-01", "", EVENING)
    busy = Kpis(date(2026, 2, 28), 1, 1)
    series = KpiSeries.of(days, "KRW", [busy], None)
    assert series.days == [Kpis(date(2026, 2, 27)), busy, Kpis(date(2026, 3, 1))]
    assert series.total == Kpis(date(2026, 2, 27))


def test_a_funnel_has_two_to_twenty_steps_and_a_week_by_default() -> None:
    """Fewer is no funnel."""
    days = DayRange.of("", "", "", EVENING)
    for steps in (["a"], ["a"] * 21):
        with pytest.raises(Invalid, match="2 to 20"):
            FunnelQuestion.of(steps, 0, days)
    assert FunnelQuestion.of(["a", "b"], 0, days).window == timedelta(days=7)
    assert FunnelQuestion.of(["a", "b"], 60, days).window == timedelta(minutes=1)


def test_who_got_far_also_got_less_far() -> None:
    """Shares of the step before and of the first; absent after an empty step and when nobody entered."""
    assert funnel_of(["a", "b", "c", "d"], {0: 7, 1: 6, 2: 2}) == [
        FunnelStep("a", 8, None, 1.0),
        FunnelStep("b", 2, 0.25, 0.25),
        FunnelStep("c", 0, 0.0, 0.0),
        FunnelStep("d", 0, None, 0.0),
    ]
    assert funnel_of(["a", "b"], {}) == [FunnelStep("a", 0, None, None), FunnelStep("b", 0, None, None)]
