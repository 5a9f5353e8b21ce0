# SPDX-License-Identifier: Apache-2.0
"""What personal data may be used for, and what a customer's answers mean for each purpose now."""

import calendar
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from chassis.clock import from_us, to_us
from chassis.errors import Invalid

from svc_profile.domain.consent import RESTRICTION, Answers, Entry

AGES = ("birthday", "age")
"""Traits that say how old somebody is."""

SERVING = 4
"""The kind that nobody can refuse, `dangol.options.v1.PURPOSE_SERVICE`: a purpose of it stays while restricted."""

CONSENT = 1
"""The legal basis `dangol.profile.v1.LEGAL_BASIS_CONSENT`."""

MINIMUM_AGE = "MINIMUM_AGE"
"""Why a grant was written as denied."""


@dataclass(frozen=True)
class Notice:
    """A text with which consent is asked for."""

    version: int
    locale: str
    title: str
    body: str
    effective_us: int


@dataclass(frozen=True)
class Purpose:
    """One entry of the catalogue."""

    purpose_id: str
    display_name: str
    kind: int = 0
    """Number of `dangol.options.v1.Purpose`."""
    legal_basis: int = 0
    """Number of `dangol.profile.v1.LegalBasis`."""
    granted_by_default: bool = False
    expiry_months: int = 0
    minimum_age: int = 0
    categories: tuple[str, ...] = ()
    """Categories of Segment's `context.consent` that answer for it besides its own id."""
    notices: tuple[Notice, ...] = ()
    updated_us: int = 0
    default_since_us: int = 0
    """When what is granted by default became so; 0 when it always was."""

    def check(self) -> None:
        """Raise `Invalid` when it breaks a rule that needs more than one field to see."""
        if self.purpose_id == RESTRICTION:
            raise Invalid.field("purpose.purpose_id", f"{RESTRICTION} is reserved")
        if self.granted_by_default and self.legal_basis == CONSENT:
            raise Invalid.field(
                "purpose.granted_by_default", "must be false on the legal basis of consent: silence is none"
            )
        texts = [(notice.version, notice.locale) for notice in self.notices]
        if len(texts) != len(set(texts)):
            raise Invalid.field("purpose.notices", "a version may come once in each locale")

    def check_follows(self, old: "Purpose") -> None:
        """Raise `Invalid` when a notice that customers may have seen is gone or says something else."""
        kept = {(notice.version, notice.locale): notice for notice in self.notices}
        for notice in old.notices:
            now = kept.get((notice.version, notice.locale))
            if now is None or (now.title, now.body) != (notice.title, notice.body):
                raise Invalid.field(
                    "purpose.notices",
                    f"version {notice.version} ({notice.locale}) is kept as it was; add a newer version",
                )


class Reason(StrEnum):
    """Why a consent is what it is."""

    ANSWERED = "answered"
    DEFAULT = "default"
    EXPIRED = "expired"
    MINIMUM_AGE = "minimum_age"
    RESTRICTED = "restricted"


@dataclass(frozen=True)
class Consent:
    """The state of one purpose for one customer."""

    purpose_id: str
    granted: bool
    reason: Reason
    entry: Entry | None = None
    expires_us: int | None = None
    """When a grant ends; None when it does not."""


@dataclass(frozen=True)
class State:
    """What holds for a customer whatever the defaults are, by id of the purpose."""

    granted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    restricted: bool = False


@dataclass(frozen=True)
class Born:
    """What is known of a customer's age: born not before, and not after, two days."""

    earliest: date
    latest: date

    def is_surely_below(self, years: int, moment: datetime) -> bool:
        """Tell whether somebody has surely not reached an age."""
        return _years_between(self.earliest, moment.date()) < years


def judge(purpose: Purpose, answers: Answers, born: Born | None, now_us: int) -> Consent:
    """Say what a customer's answers mean for a purpose at a moment."""
    restriction, entry = answers.get(RESTRICTION), answers.get(purpose.purpose_id)
    if restriction is not None and restriction.is_refusal and purpose.kind != SERVING:
        return Consent(purpose.purpose_id, False, Reason.RESTRICTED, restriction)
    if entry is None:
        return Consent(purpose.purpose_id, purpose.granted_by_default, Reason.DEFAULT)
    if entry.is_refusal:
        return Consent(purpose.purpose_id, False, Reason.ANSWERED, entry)
    if is_too_young(purpose, born, entry.time_us):
        return Consent(purpose.purpose_id, False, Reason.MINIMUM_AGE, entry)
    expires_us = expiry_us(purpose, entry.time_us)
    if expires_us is not None and expires_us <= now_us:
        return Consent(purpose.purpose_id, False, Reason.EXPIRED, entry, expires_us)
    return Consent(purpose.purpose_id, True, Reason.ANSWERED, entry, expires_us)


def judge_all(purposes: Iterable[Purpose], answers: Answers, born: Born | None, now_us: int) -> list[Consent]:
    """Say what a customer's answers mean for every purpose."""
    return [judge(purpose, answers, born, now_us) for purpose in purposes]


def is_restricted(answers: Answers) -> bool:
    """Tell whether processing is restricted or was objected to."""
    entry = answers.get(RESTRICTION)
    return entry is not None and entry.is_refusal


def is_too_young(purpose: Purpose, born: Born | None, time_us: int) -> bool:
    """Tell whether somebody surely had not reached the age to grant a purpose at a time."""
    return (
        bool(purpose.minimum_age) and born is not None and born.is_surely_below(purpose.minimum_age, from_us(time_us))
    )


def expiry_us(purpose: Purpose, granted_us: int) -> int | None:
    """Return when a grant ends: so many months later, at the end of a shorter month."""
    if not purpose.expiry_months:
        return None
    moment = from_us(granted_us)
    months = moment.year * 12 + moment.month - 1 + purpose.expiry_months
    year, month = months // 12, months % 12 + 1
    if year > date.max.year:
        return None
    return to_us(moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1])))


AGE_TRAITS = ("birthday", "age")
"""Traits that tell how old a customer is, the better one first."""


def born_of(traits: Mapping[str, tuple[Any, int]]) -> Born | None:
    """Find out when somebody was born from the traits `birthday` or `age`, each with when it was said."""
    value, _ = traits.get("birthday", (None, 0))
    birthday = _date(value)
    if birthday is not None:
        return Born(birthday, birthday)
    age, said_us = traits.get("age", (None, 0))
    if isinstance(age, bool) or not isinstance(age, (int, float)) or not 0 <= age <= 150:
        return None
    said = from_us(said_us).date()
    years = int(age)
    if said.year - years - 1 < date.min.year:
        return None
    return Born(_years_before(said, years + 1) + timedelta(days=1), _years_before(said, years))


def _date(value: Any) -> date | None:
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value.strip()).replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _years_between(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def _years_before(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28) + timedelta(days=1)


def purposes_of_categories(purposes: Sequence[Purpose], said: Mapping[str, bool]) -> dict[str, bool]:
    """Translate Segment's categories into purposes; where several answer for one purpose, a no is a no."""
    by_category: dict[str, list[str]] = {}
    for purpose in purposes:
        for category in {purpose.purpose_id, *purpose.categories}:
            by_category.setdefault(category, []).append(purpose.purpose_id)
    answers: dict[str, bool] = {}
    for category, granted in said.items():
        for purpose_id in by_category.get(category, ()):
            answers[purpose_id] = answers.get(purpose_id, True) and granted
    return answers
