# SPDX-License-Identifier: Apache-2.0
"""Which events may be learnt from: none of somebody who has not granted analytics, or has restricted processing."""

from collections.abc import Mapping, Sequence

from chassis.database import Transaction

from svc_profile.domain.consent import ANALYTICS, OPEN, Admission, Timeline, decide
from svc_profile.domain.events import OWN_WISH, Event, FragmentKey
from svc_profile.domain.flags import REFUSED, RESTRICTED
from svc_profile.store.consents import ConsentStore
from svc_profile.usecases.consenting import foresee, listen
from svc_profile.usecases.situations import read_situation

_CLOSED = REFUSED | RESTRICTED


async def refused(
    tx: Transaction,
    events: Sequence[Event],
    flags: Mapping[FragmentKey, int],
    later_users: Mapping[bytes, FragmentKey],
) -> dict[bytes, Admission]:
    """Return the keys of events that nobody may learn from, and what may become of each.

    Each is judged by what was known of the consent of its customer when it was received, and by what it says itself.
    While analytics is granted by default, only the customers of flagged fragments are looked at, and `later_users` of
    shared devices, by event key.
    """
    statements = await listen(tx, events)
    granted_by_default = await ConsentStore(tx).is_granted_by_default(ANALYTICS)
    if granted_by_default and not statements and not flags:
        return {}
    said = {statement.event.key: statement.answers.get(ANALYTICS) for statement in statements}
    judged = [event for event in events if event.source != OWN_WISH]
    owners = {event.key: later_users.get(event.key, event.names.seen[0].fragment) for event in judged}
    asked = judged
    if granted_by_default:
        asked = [each for each in judged if each.key in later_users or flags.get(owners[each.key], 0) & _CLOSED]
    timelines: Mapping[FragmentKey, Timeline] = {}
    if asked:
        customers = await ConsentStore(tx).customers({owners[event.key] for event in asked})
        timelines = (await read_situation(tx, customers, await foresee(tx, statements))).timelines()
    admissions = {
        event.key: decide(
            event.received_time_us, timelines.get(owners[event.key], OPEN), Admission.ANONYMISE, said.get(event.key)
        )
        for event in judged
    }
    return {key: admission for key, admission in admissions.items() if admission is not Admission.KEEP}
