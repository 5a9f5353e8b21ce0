# SPDX-License-Identifier: Apache-2.0
"""Events that were not taken, kept with the reason."""

from dataclasses import dataclass

NOBODY = "NO_USABLE_IDENTIFIER"
"""Reason of an event whose every identifier is junk, such as `null` or `[object Object]`."""


@dataclass(frozen=True)
class RejectedEvent:
    """An event that was not taken."""

    message_id: str
    source: str
    reason: str
    detail: str
    position: int
    received_time_us: int
    body: bytes
