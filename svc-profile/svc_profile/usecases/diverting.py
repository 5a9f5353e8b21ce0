# SPDX-License-Identifier: Apache-2.0
"""What becomes of the events of flagged fragments: dropped, or learnt under another fragment."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from chassis.database import Transaction

from svc_profile.domain.events import Event, FragmentKey


@dataclass(frozen=True)
class Diversion:
    """Events as they are to be learnt from."""

    events: Sequence[Event]
    dropped: Set[bytes] = frozenset()
    """Keys of events that nobody may learn from."""


async def divert(tx: Transaction, events: Sequence[Event], flags: Mapping[FragmentKey, int]) -> Diversion:
    """Decide about the events whose owners have flags; the others pass."""
    return Diversion(events)
