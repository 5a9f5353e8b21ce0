# SPDX-License-Identifier: Apache-2.0
"""What other services said about customers, as far as it is shown beside a profile."""

from collections.abc import Sequence
from dataclasses import dataclass

from svc_profile.domain.events import FragmentKey


@dataclass(frozen=True)
class MembershipChange:
    """A customer entered or left a segment."""

    segment_id: str
    segment_name: str
    profile: FragmentKey
    member: bool
    revision: int
    """The highest one of a segment and a profile holds."""
    change_time_us: int
    rule_version: int


@dataclass(frozen=True)
class Membership:
    """A segment that a customer is in."""

    segment_id: str
    name: str
    entered_time_us: int
    rule_version: int


@dataclass(frozen=True)
class StageChange:
    """A customer moved to a stage of a track."""

    profile: FragmentKey
    track: str
    old_stage: str
    new_stage: str
    """Empty: the customer has left the track."""
    rule_version: int
    revision: int
    """The highest one of a profile and a track holds."""
    change_time_us: int
    evidence: str


@dataclass(frozen=True)
class Standing:
    """Where a customer stands now."""

    segments: Sequence[Membership] = ()
    """By name."""
    stages: Sequence[StageChange] = ()
    """By track."""


@dataclass(frozen=True)
class Feedback:
    """That a customer said something; the words stay where they were said."""

    feedback_id: str
    fragment: FragmentKey
    kind: int
    rating: int | None
    sentiment: int
    sentiment_probability: float
    item_id: str
    language: str
    feedback_time_us: int
