# SPDX-License-Identifier: Apache-2.0
"""Tell who a customer is."""

from collections.abc import Collection, Sequence

from chassis.database import Transaction
from chassis.errors import NotFound

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import Profile, fold_profile
from svc_profile.domain.traits import NO_POLICIES
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.members import Members, find_members
from svc_profile.store.profiles import Whole, find_whole
from svc_profile.store.trait_schema import TraitSchemaStore


async def find_profile(tx: Transaction, fragment: FragmentKey) -> Profile | None:
    """Return the customer whom a fragment belongs to, None when nobody is known by it."""
    whole = await find_whole(tx, fragment)
    return fold_profile(whole.profile, whole.fragments, whole.schema.policies) if whole else None


async def get_whole(tx: Transaction, fragment: FragmentKey) -> Whole:
    """Return all that is known of the customer whom a fragment belongs to."""
    whole = await find_whole(tx, fragment)
    if whole is None:
        raise NotFound("nobody is known by this reference")
    return whole


async def get_members(tx: Transaction, fragment: FragmentKey) -> Members:
    """Return the customer whom a fragment belongs to, by fragments."""
    members = await find_members(tx, fragment)
    if members is None:
        raise NotFound("nobody is known by this reference")
    return members


async def fragments_of(tx: Transaction, fragment: FragmentKey) -> Sequence[FragmentKey]:
    """Return all fragments of the customer whom a fragment belongs to."""
    return (await get_members(tx, fragment)).fragments


async def get_profiles(tx: Transaction, profiles: Collection[FragmentKey]) -> dict[FragmentKey, Profile]:
    """Return some customers by profile id; one that does not exist is left out."""
    found = await FragmentStore(tx).profiles(profiles)
    policies = (await TraitSchemaStore(tx).current()).policies if found else NO_POLICIES
    return {profile: fold_profile(profile, fragments, policies) for profile, fragments in found.items()}
