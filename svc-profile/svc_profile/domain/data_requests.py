# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects: what is asked for, until when, and how far it is."""

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from svc_profile.domain.events import FragmentKey

PIPA_DAYS = 10
MOST_ROUNDS = 3
"""How often a customer is erased anew because a probe found something; then the certificate tells what is left."""


class Kind(IntEnum):
    """What is asked for; the numbers are those of the contract."""

    ACCESS = 1
    RECTIFY = 2
    RESTRICT = 3
    OBJECT = 4
    ERASE = 5
    UNRESTRICT = 6


class Regime(IntEnum):
    """The law that sets the due time."""

    PIPA = 1
    GDPR = 2


class Requester(IntEnum):
    """Who files a request."""

    SELF = 1
    AGENT = 2
    PARENT = 3


class State(IntEnum):
    """How far a request is."""

    RECEIVED = 1
    RUNNING = 2
    DONE = 3
    REFUSED = 4
    CANCELLED = 5


class Step(StrEnum):
    """What a request waits for, or has come to."""

    WAITING = "waiting"
    EXPORTING = "exporting"
    PACKING = "packing"
    ERASING = "erasing"
    DRAINING = "draining"
    CLEANING = "cleaning"
    PROBING = "probing"
    SIGNING = "signing"
    FINISHED = "finished"


ASKED = {Step.EXPORTING: "export", Step.ERASING: "erase", Step.PROBING: "probe"}
"""What the services are asked in a step."""


@dataclass(frozen=True)
class Draft:
    """A request as it is filed."""

    kind: Kind
    regime: Regime
    requester: Requester
    channel: str
    filed_time: datetime
    not_before_time: datetime
    traits: Mapping[str, Any] = field(default_factory=dict)
    purposes: Sequence[str] = ()


@dataclass(frozen=True)
class Subject:
    """Whom a running request is about: fragments, and the texts that name the customer."""

    fragments: Sequence[FragmentKey] = ()
    shared: Sequence[FragmentKey] = ()
    """Those that are somebody else's too: erased, but neither searched for nor suppressed."""
    traces: Sequence[str] = ()
    hash: str = ""
    """Names the customer to nobody but who knows the customer's id."""


@dataclass(frozen=True)
class DataRequest:
    """A request of a data subject."""

    data_request_id: str
    draft: Draft
    state: State
    step: Step
    step_time: datetime
    due_time: datetime
    actor: str
    profile: FragmentKey | None
    """The fragment that the request names: with it the request follows the customer through merges and splits."""
    round: int = 0
    refusal_reason: str = ""
    done_time: datetime | None = None
    subject: Subject = Subject()
    stream_ends: Mapping[str, int] | None = None
    """Last messages of the streams that every consumer has to get past before the customer's are removed."""

    @property
    def kind(self) -> Kind:
        """What is asked for."""
        return self.draft.kind

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether it should have been done by now."""
        return self.state in (State.RECEIVED, State.RUNNING) and now > self.due_time


@dataclass(frozen=True)
class Answer:
    """What one service answered."""

    service: str
    asked: str
    round: int
    answered_time: datetime
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of what one service exports."""

    data_request_id: str
    service: str
    attempt: str
    number: int
    file: str
    last: bool
    rows: bytes
    stream_sequence: int


def due_time(regime: Regime, filed: datetime) -> datetime:
    """Return until when a request has to be done: ten days, or the same day of the next month (or its last)."""
    if regime is Regime.PIPA:
        return filed + timedelta(days=PIPA_DAYS)
    year, month = (filed.year + 1, 1) if filed.month == 12 else (filed.year, filed.month + 1)
    return filed.replace(year=year, month=month, day=min(filed.day, calendar.monthrange(year, month)[1]))
