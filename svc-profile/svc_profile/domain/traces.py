# SPDX-License-Identifier: Apache-2.0
"""What became of one event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fates import Fate
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.domain.views import RecentEvent


@dataclass(frozen=True)
class Statement:
    """A trait that an event states."""

    name: str
    old: Any
    """The value by the newest event before, in event time; None when there is none."""
    new: Any
    holds: bool
    """True when it is the customer's value now."""


@dataclass(frozen=True)
class LinkMade:
    """Two kinds of identifier that an event links, or would have linked."""

    namespace: str
    linked_namespace: str
    rule: str
    refused: bool


@dataclass(frozen=True)
class Repeated:
    """An event that came again; nothing is learnt from it but the first time."""

    message_count: int
    """Messages that brought it, though it was known already."""
    last_received_us: int
    """When the gateway received the latest of them."""


@dataclass(frozen=True)
class Trace:
    """An event as it was taken, and what followed from it."""

    source: str
    name: str
    received_us: int
    event: RecentEvent | None = None
    """None when only its key is kept."""
    fate: Fate | None = None
    """Why only its key is kept, where that was decided."""
    fragment: FragmentKey | None = None
    profile: FragmentKey | None = None
    statements: Sequence[Statement] = ()
    links: Sequence[LinkMade] = ()
    repeated: Repeated | None = None
    """None when it came once."""


@dataclass(frozen=True)
class Traces:
    """All that is known of the events with one message id."""

    taken: Sequence[Trace]
    rejected: Sequence[RejectedEvent]


def statements_of(
    stated: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]], now: Mapping[str, Any]
) -> list[Statement]:
    """Compare the traits of an event with those of earlier ones, newest first, and with what holds now."""
    before: dict[str, Any] = {}
    for traits in earlier:
        for name, value in traits.items():
            before.setdefault(name, value)
    return [Statement(name, before.get(name), value, now.get(name) == value) for name, value in sorted(stated.items())]
