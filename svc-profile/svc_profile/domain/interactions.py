# SPDX-License-Identifier: Apache-2.0
"""Contacts of staff with customers."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import IntEnum

from chassis.errors import Invalid

from svc_profile.domain.events import FragmentKey


class Kind(IntEnum):
    """How staff and customer met; the numbers are those of the contract."""

    NOTE = 1
    TICKET = 2
    CALL = 3
    CHAT = 4
    EMAIL = 5
    VISIT = 6


class Status(IntEnum):
    """Whether something remains to be done; the numbers are those of the contract."""

    OPEN = 1
    PENDING = 2
    CLOSED = 3


@dataclass(frozen=True)
class Draft:
    """What staff says of a contact."""

    kind: Kind
    subject: str
    text: str
    outcome: str
    status: Status | None
    interaction_time_us: int | None
    """None: now."""


@dataclass(frozen=True)
class Interaction:
    """One contact, as it is kept."""

    interaction_id: str
    fragment: FragmentKey
    """The identifier that it was created for."""
    kind: Kind
    status: Status
    subject: str
    text: str
    outcome: str
    actor: str
    updated_by: str
    interaction_time_us: int
    created_time_us: int
    updated_time_us: int
    closed_time_us: int | None


@dataclass(frozen=True)
class Change:
    """What is to become of a contact; None leaves a part as it is."""

    subject: str | None = None
    text: str | None = None
    outcome: str | None = None
    status: Status | None = None
    interaction_time_us: int | None = None


@dataclass(frozen=True)
class Kept:
    """An interaction, and whose it is now."""

    interaction: Interaction
    profile: FragmentKey


@dataclass(frozen=True)
class Choice:
    """Which interactions are wanted; None and empty are all."""

    fragments: Collection[FragmentKey] | None = None
    statuses: Collection[int] = ()
    kinds: Collection[int] = ()
    actor: str = ""
    before: tuple[int, str] | None = None
    """Time and id of the last one of the page before."""


def begin(draft: Draft, *, interaction_id: str, fragment: FragmentKey, actor: str, now_us: int) -> Interaction:
    """Make an interaction of a draft; a ticket begins open, everything else is over when it is written down."""
    _check_words(draft.subject, draft.text)
    status = draft.status or (Status.OPEN if draft.kind is Kind.TICKET else Status.CLOSED)
    return Interaction(
        interaction_id=interaction_id,
        fragment=fragment,
        kind=draft.kind,
        status=status,
        subject=draft.subject,
        text=draft.text,
        outcome=draft.outcome,
        actor=actor,
        updated_by=actor,
        interaction_time_us=now_us if draft.interaction_time_us is None else draft.interaction_time_us,
        created_time_us=now_us,
        updated_time_us=now_us,
        closed_time_us=now_us if status is Status.CLOSED else None,
    )


def amend(interaction: Interaction, change: Change, *, actor: str, now_us: int) -> Interaction:
    """Return an interaction after a change; it stays closed since it was closed first."""
    given = {name: value for name, value in vars(change).items() if value is not None}
    amended = replace(interaction, **given, updated_by=actor, updated_time_us=now_us)
    if change.subject is not None or change.text is not None:
        _check_words(amended.subject, amended.text)
    if amended.status is not Status.CLOSED:
        return replace(amended, closed_time_us=None)
    return replace(amended, closed_time_us=now_us if interaction.closed_time_us is None else interaction.closed_time_us)


def _check_words(subject: str, text: str) -> None:
    if not subject.strip() and not text.strip():
        raise Invalid.field("interaction", "needs a subject or a text")
