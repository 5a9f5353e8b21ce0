# SPDX-License-Identifier: Apache-2.0
"""Tell who a customer is."""

from chassis.database import Transaction
from chassis.errors import NotFound

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import Profile, fold_profile
from svc_profile.store.fragments import FragmentStore


async def get_profile(tx: Transaction, fragment: FragmentKey) -> Profile:
    """Return the customer whom a fragment belongs to."""
    found = await FragmentStore(tx).profile(fragment)
    if found is None:
        raise NotFound("nobody is known by this reference")
    profile, fragments = found
    return fold_profile(profile, fragments)
