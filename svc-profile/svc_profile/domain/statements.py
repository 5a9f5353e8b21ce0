# SPDX-License-Identifier: Apache-2.0
"""What events say of consent: decisions, and what devices repeat of them with every event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chassis.identifiers import ANONYMOUS_ID
from msgspec.structs import replace

from svc_profile.domain.consent import Answer
from svc_profile.domain.events import WITHHELD, Event, FragmentKey
from svc_profile.domain.ledger import Record
from svc_profile.domain.purposes import Purpose, purposes_of_categories
from svc_profile.domain.reports import Reports, report

DECISIONS = frozenset({"Segment Consent Preference Updated", "Consent Updated"})
"""Names of events that tell of a decision; any other event only repeats what was once said."""

ReportKey = tuple[FragmentKey, FragmentKey, str]
"""Fragment, device and purpose."""

_LAST = 2**62
"""Place of a row that is not written yet: after all others."""


@dataclass(frozen=True)
class Statement:
    """What one event says of consent."""

    event: Event
    answers: Mapping[str, bool]
    """Whether each purpose is granted."""

    @property
    def fragment(self) -> FragmentKey:
        """For whom it is said: whoever owns the event."""
        diverted = self.event.diverted
        return self.event.names.seen[0].fragment if diverted is None or diverted is WITHHELD else diverted.fragment

    @property
    def is_decision(self) -> bool:
        """True when it was said now."""
        return self.event.counted_name in DECISIONS

    @property
    def device(self) -> FragmentKey:
        """The device that repeats it."""
        device = next((name for name in self.event.names.seen if name.namespace == ANONYMOUS_ID), None)
        return (device or self.event.names.seen[0]).fragment


def statements_of(events: Iterable[Event], purposes: Sequence[Purpose]) -> list[Statement]:
    """Collect what events say about purposes of the catalogue."""
    found = (
        Statement(event, purposes_of_categories(purposes, event.consent))
        for event in events
        if event.consent and event.names.seen
    )
    return [statement for statement in found if statement.answers]


def reports_of(statements: Iterable[Statement]) -> dict[ReportKey, Reports]:
    """Collect what devices repeat."""
    reports: dict[ReportKey, Reports] = {}
    for statement in statements:
        if statement.is_decision:
            continue
        event = statement.event
        for purpose_id, is_granted in statement.answers.items():
            key = statement.fragment, statement.device, purpose_id
            said = report(is_granted, event.time_us, event.received_time_us)
            reports[key] = reports[key].joined(said) if key in reports else said
    return reports


def decided_rows(statements: Iterable[Statement]) -> list[Record]:
    """Return the rows of decisions."""
    return [
        _row(statement, purpose_id, Answer.GRANTED if is_granted else Answer.DENIED)
        for statement in statements
        if statement.is_decision
        for purpose_id, is_granted in sorted(statement.answers.items())
    ]


def repeated_rows(statements: Iterable[Statement], known: Mapping[ReportKey, tuple[Reports, Reports]]) -> list[Record]:
    """Return the rows of what devices were told, where that is news: `known` holds reports before and now."""
    latest: dict[ReportKey, Statement] = {}
    for statement in statements:
        if statement.is_decision:
            continue
        for purpose_id in statement.answers:
            key = statement.fragment, statement.device, purpose_id
            if key not in latest or _order(latest[key]) < _order(statement):
                latest[key] = statement
    rows = []
    for key in sorted(latest):
        before, now = known[key]
        decision = now.decision()
        if decision is not None and decision != before.decision():
            row = _row(latest[key], key[2], decision.answer)
            times = {"time_us": decision.time_us, "received_time_us": decision.received_time_us}
            rows.append(replace(row, device=key[1], **times))
    return rows


def _order(statement: Statement) -> tuple[int, bytes]:
    return statement.event.time_us, statement.event.key


def _row(statement: Statement, purpose_id: str, answer: Answer) -> Record:
    event = statement.event
    return Record(
        fragment=statement.fragment,
        purpose_id=purpose_id,
        answer=answer,
        time_us=event.time_us,
        received_time_us=event.received_time_us,
        event_key=event.key,
        channel="event",
        source=event.source,
        message_id=event.message_id,
        sequence=_LAST,
    )
