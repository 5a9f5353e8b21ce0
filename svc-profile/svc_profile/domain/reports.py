# SPDX-License-Identifier: Apache-2.0
"""What a device repeats with each event of what it was once told (Segment's `context.consent`).

Such a report is no new decision, or every page view would outvote what the customer said elsewhere in the meantime. Of
all reports of a device for one customer and purpose, four times are kept; from them follow the answer and when it was
given, whatever the order in which the events came.
"""

from dataclasses import dataclass

from svc_profile.domain.consent import Answer


@dataclass(frozen=True)
class Span:
    """When one answer was reported first and last, by event time and by when it was received."""

    first_us: int
    last_us: int
    first_received_us: int
    last_received_us: int

    def joined(self, other: "Span") -> "Span":
        """Return the span of both."""
        return Span(
            min(self.first_us, other.first_us),
            max(self.last_us, other.last_us),
            min(self.first_received_us, other.first_received_us),
            max(self.last_received_us, other.last_received_us),
        )


@dataclass(frozen=True)
class Reports:
    """All reports of one device for one customer and purpose."""

    granted: Span | None = None
    refused: Span | None = None

    def joined(self, other: "Reports") -> "Reports":
        """Return what both know."""
        return Reports(_joined(self.granted, other.granted), _joined(self.refused, other.refused))

    def decision(self) -> "Decision | None":
        """Return the answer of the latest report, and when it was given: with its first report, or right after the
        last report to the contrary if that came in between. None when nothing was reported."""
        if self.granted is None and self.refused is None:
            return None
        is_granted = self.refused is None or (self.granted is not None and self.granted.last_us > self.refused.last_us)
        own, other = (self.granted, self.refused) if is_granted else (self.refused, self.granted)
        if own is None:
            return None
        refusal = Answer.DENIED if other is None else Answer.WITHDRAWN
        answer = Answer.GRANTED if is_granted else refusal
        if other is None or own.first_us > other.last_us:
            return Decision(answer, own.first_us, own.first_received_us)
        received_us = max(own.first_received_us, other.last_received_us + 1)
        return Decision(answer, other.last_us + 1, min(received_us, own.last_received_us))


@dataclass(frozen=True)
class Decision:
    """What a device was told, and when."""

    answer: Answer
    time_us: int
    received_time_us: int


def report(is_granted: bool, time_us: int, received_us: int) -> Reports:
    """Return one report."""
    span = Span(time_us, time_us, received_us, received_us)
    return Reports(granted=span) if is_granted else Reports(refused=span)


def _joined(one: Span | None, other: Span | None) -> Span | None:
    if one is None or other is None:
        return one or other
    return one.joined(other)
