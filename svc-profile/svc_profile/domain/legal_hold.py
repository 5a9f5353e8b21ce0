# SPDX-License-Identifier: Apache-2.0
"""What a law demands to be kept of a customer who is erased."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Hold:
    """Events of one name, and how long a law demands them."""

    event: str
    days: int
    law: str


@dataclass(frozen=True)
class HeldRecord:
    """An event on hold."""

    data_request_id: str
    """The erasure that it was kept from; empty when a rule of retention would have destroyed it."""
    event: str
    event_time_us: int
    law: str
    expire_time_us: int
    payload: bytes
    """The event as it was collected."""
    record_id: int = 0
    held_time_us: int = 0


class Holds:
    """All holds by name of event."""

    def __init__(self, holds: Iterable[Hold]) -> None:
        self._holds: Mapping[str, Hold] = {hold.event: hold for hold in holds}

    @property
    def names(self) -> list[str]:
        """Names of the events that some law demands."""
        return list(self._holds)

    def record(self, request_id: str, name: str, time_us: int, payload: bytes, now_us: int) -> HeldRecord | None:
        """Return what is to be held of an event, None when no law demands it any more."""
        hold = self._holds.get(name)
        if hold is None or not payload or time_us + hold.days * _DAY_US <= now_us:
            return None
        return HeldRecord(request_id, name, time_us, hold.law, time_us + hold.days * _DAY_US, payload)
