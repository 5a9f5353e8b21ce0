# SPDX-License-Identifier: Apache-2.0
"""Learn nothing more about erased customers."""

from collections.abc import Mapping, Sequence

from chassis.database import Transaction
from chassis.errors import NotFound
from dangol.profile.v1.privacy_pb2 import SuppressionsLifted

from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.fates import Fate
from svc_profile.domain.flags import SUPPRESSED
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.store.events import EventStore
from svc_profile.store.rejected import RejectedStore
from svc_profile.store.suppressions import SuppressionStore

REASON = "SUPPRESSED"


def part_suppressed(
    events: Sequence[Event], flags: Mapping[FragmentKey, int]
) -> tuple[Sequence[Event], Sequence[Event]]:
    """Part the events that may be learnt from and those that are owned by suppressed identifiers."""
    suppressed = {fragment for fragment, each in flags.items() if each & SUPPRESSED}
    if not suppressed:
        return events, ()
    return (
        [event for event in events if event.owner.fragment not in suppressed],
        [event for event in events if event.owner.fragment in suppressed],
    )


async def reject_suppressed(tx: Transaction, events: Sequence[Event]) -> None:
    """Keep no more of events than their keys, and tell that they came, without what they said."""
    await EventStore(tx).withhold([event.key for event in events], Fate.SUPPRESSED)
    await RejectedStore(tx).put([_rejected(event) for event in events])


def _rejected(event: Event) -> RejectedEvent:
    return RejectedEvent(
        message_id=event.message_id,
        source=event.source,
        reason=REASON,
        detail="the customer was erased and has not come back",
        position=0,
        received_time_us=event.received_time_us,
        body=b"",
    )


async def lift_suppression(tx: Transaction, fragment: FragmentKey) -> None:
    """Let an identifier be collected again, in every service; raises `NotFound`."""
    if not await SuppressionStore(tx).lift(fragment):
        raise NotFound("the identifier is not suppressed")
    tx.publish(SuppressionsLifted(fragment_ids=[fragment]))
