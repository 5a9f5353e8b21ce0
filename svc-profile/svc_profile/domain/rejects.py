# SPDX-License-Identifier: Apache-2.0
"""Events that were not taken, kept with the reason."""

from dataclasses import dataclass

from svc_profile.domain.events import Event

NOBODY = "NO_USABLE_IDENTIFIER"
"""Reason of an event whose every identifier is junk, such as `null` or `[object Object]`."""

SCHEMA = "SCHEMA"
"""Reason of an event that breaks a schema that rejects."""

SCHEMA_WARNING = "SCHEMA_WARNING"
"""Reason of an event that breaks a schema that only warns; it is learnt from all the same."""


@dataclass(frozen=True)
class RejectedEvent:
    """An event that was not taken, or breaks a schema that only warns."""

    message_id: str
    source: str
    reason: str
    detail: str
    position: int
    received_time_us: int
    body: bytes


def objection(event: Event) -> RejectedEvent:
    """Say why an event is nobody's, or what its schema says against it."""
    breach = event.breach
    if breach is None:
        reason, detail = NOBODY, "userId, anonymousId: no value by which anybody can be known"
    else:
        reason, detail = SCHEMA if breach.rejects else SCHEMA_WARNING, breach.detail
    return RejectedEvent(
        message_id=event.message_id,
        source=event.source,
        reason=reason,
        detail=detail,
        position=0,
        received_time_us=event.received_time_us,
        body=b"",
    )
