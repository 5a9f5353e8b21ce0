# SPDX-License-Identifier: Apache-2.0
"""Which events may be learnt from: none of somebody who has not granted analytics, or has restricted processing."""

from collections.abc import Mapping, Sequence

from chassis.database import Transaction

from svc_profile.domain.consent import ANALYTICS, OPEN, Admission, Timeline, decide
from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.flags import REFUSED, RESTRICTED
from svc_profile.store.consents import ConsentStore
from svc_profile.usecases.consenting import foresee, listen
from svc_profile.usecases.settling import read_situation


async def refused(tx: Transaction, events: Sequence[Event], flags: Mapping[FragmentKey, int]) -> set[bytes]:
    """Return the keys of events that nobody may learn from.

    Each is judged by what was known of the consent of its customer when it was received, and by what it says itself.
    While analytics is granted by default, only the customers of flagged fragments are looked at.
    """
    statements = await listen(tx, events)
    said = {statement.event.key: statement.answers.get(ANALYTICS) for statement in statements}
    asked = events if not await _granted_by_default(tx) else [each for each in events if _is_flagged(each, flags)]
    timelines: Mapping[FragmentKey, Timeline] = {}
    if asked:
        customers = await ConsentStore(tx).customers({_owner(event) for event in asked})
        timelines = (await read_situation(tx, customers, await foresee(tx, statements))).timelines()
    return {
        event.key
        for event in events
        if _decide(event, timelines.get(_owner(event), OPEN), said.get(event.key)) is Admission.DROP
    }


def _decide(event: Event, timeline: Timeline, said: bool | None) -> Admission:
    return decide(event.received_time_us, timeline, Admission.DROP, said)


def _owner(event: Event) -> FragmentKey:
    return event.names.seen[0].fragment


def _is_flagged(event: Event, flags: Mapping[FragmentKey, int]) -> bool:
    return bool(flags.get(_owner(event), 0) & (REFUSED | RESTRICTED))


async def _granted_by_default(tx: Transaction) -> bool:
    return await ConsentStore(tx).is_granted_by_default(ANALYTICS)
