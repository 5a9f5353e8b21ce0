# SPDX-License-Identifier: Apache-2.0
"""Let old grants end, and say beforehand which will: consent to advertising has to be given again every two years."""

from collections import defaultdict

from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.store.consents import ConsentStore
from svc_profile.usecases.settling import lock_customers, settle
from svc_profile.wire.consent import consents_expiring

_AT_ONCE = 200


async def expire_some(tx: Transaction, now_us: int) -> bool:
    """Let some grants that have ended count as refused, and announce it; tells whether there may be more."""
    fragments = await ConsentStore(tx).expired(now_us, _AT_ONCE)
    if fragments:
        await settle(tx, await lock_customers(tx, fragments), now_us)
    return len(fragments) == _AT_ONCE


async def announce_some(tx: Transaction, now_us: int, until_us: int) -> bool:
    """Announce some grants that end by a time, each once; tells whether there may be more."""
    store = ConsentStore(tx)
    expiring = await store.take_expiring(now_us, until_us, _AT_ONCE)
    profiles = {
        f: profile for profile, members in (await store.customers({e[0] for e in expiring})).items() for f in members
    }
    of_profile: dict[FragmentKey, list[tuple[str, int]]] = defaultdict(list)
    for fragment, purpose_id, expires_us in expiring:
        of_profile[profiles[fragment]].append((purpose_id, expires_us))
    for profile, expiries in of_profile.items():
        tx.publish(consents_expiring(profile, expiries))
    return len(expiring) == _AT_ONCE
