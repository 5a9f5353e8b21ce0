# SPDX-License-Identifier: Apache-2.0
"""All that is shown of a customer at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.heard import Membership, StageChange
from svc_profile.domain.interactions import Kept
from svc_profile.domain.profiles import Profile
from svc_profile.domain.purposes import Consent

CONSENTS, SEGMENTS, STAGES = "consents", "segments", "stages"
EVENTS, CASES, COMPUTED = "recent_events", "open_cases", "computed_traits"
ON_REQUEST = frozenset({CONSENTS, SEGMENTS, STAGES, EVENTS, CASES, COMPUTED})
"""Parts of a customer that are read when they are asked for; all others come with the fragments."""


@dataclass(frozen=True)
class RecentEvent:
    """An event as it was collected."""

    message_id: str
    name: str
    time_us: int
    received_time_us: int
    source: str
    properties: Mapping[str, Any]
    traits: Mapping[str, Any]


@dataclass(frozen=True)
class View:
    """A customer, as far as was asked."""

    profile_id: FragmentKey
    profile: Profile | None = None
    consents: Sequence[Consent] = ()
    segments: Sequence[Membership] = ()
    stages: Sequence[StageChange] = ()
    recent_events: Sequence[RecentEvent] = ()
    open_cases: Sequence[Kept] = ()
    computed_traits: Mapping[str, Any] | None = None
