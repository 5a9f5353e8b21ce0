# SPDX-License-Identifier: Apache-2.0
"""Know which customers belong together: learn groups from events, let staff declare households."""

from collections.abc import Sequence
from dataclasses import dataclass

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, NotFound
from chassis.ids import new_id

from svc_profile.domain.customer_groups import HOUSEHOLD, STAFF, Group, Member, Membership, Ruling, learn_groups
from svc_profile.domain.events import Event, FragmentKey, event_key
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.traits import Trait
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.groups import GroupStore
from svc_profile.usecases.profiles import fragments_of
from svc_profile.wire.groups import household_changed


async def learn_groups_of(tx: Transaction, events: Sequence[Event]) -> None:
    """Learn from the `group` events among others; without any, nothing is asked of the store."""
    grouping = [event for event in events if event.group_id]
    if grouping:
        await GroupStore(tx).learn(learn_groups(grouping))


@dataclass(frozen=True)
class Household:
    """A household as staff declares it."""

    household_id: str
    """Empty: a new one."""
    display_name: str
    """Empty: as it is."""
    members: Sequence[tuple[FragmentKey, str]]
    """A fragment and the role of each customer; of a customer who is named twice, the last role."""


async def put_household(tx: Transaction, wanted: Household, *, actor: str, now_us: int) -> tuple[Group, int]:
    """Declare a household, or further members of one, or other roles; returns it with the number of its members."""
    store = GroupStore(tx)
    group_id = wanted.household_id or new_id("hh")
    known = await store.find(group_id)
    if known is not None and known.kind != HOUSEHOLD:
        raise FailedPrecondition(f"the group {group_id} is of the kind {known.kind}, no household")
    roles = dict(wanted.members)
    known_fragments = await FragmentStore(tx).existing(roles)
    for place, (fragment, _) in enumerate(wanted.members):
        if fragment not in known_fragments:
            raise NotFound(f"members[{place}].profile: nobody is known by this reference")
    rulings = [
        Ruling(group_id, fragment, member=True, role=role, decided_us=now_us) for fragment, role in roles.items()
    ]
    key = event_key(STAFF, new_id("stm")).hex()
    traits = {"kind": Trait(HOUSEHOLD, now_us, key, STAFF)}
    if wanted.display_name:
        traits["name"] = Trait(storable_text(wanted.display_name), now_us, key, STAFF)
    if known is None or wanted.display_name or not known.is_declared:
        await store.absorb({group_id: Group(group_id, now_us, now_us, traits)})
    await store.rule(rulings)
    tx.publish(household_changed(rulings, group_id, actor, now_us))
    return await get_group(tx, group_id)


async def remove_from_household(
    tx: Transaction, household_id: str, fragment: FragmentKey, *, actor: str, now_us: int
) -> None:
    """Take a customer out of a household, under all names; putting them in again undoes it."""
    store = GroupStore(tx)
    group = await store.find(household_id)
    if group is None or group.kind != HOUSEHOLD:
        raise NotFound(f"no household {household_id}")
    members = await store.fragments_in(household_id, await fragments_of(tx, fragment))
    if not members:
        raise NotFound(f"the customer is not in the household {household_id}")
    rulings = [Ruling(household_id, member, member=False, role="", decided_us=now_us) for member in members]
    await store.rule(rulings)
    tx.publish(household_changed(rulings, household_id, actor, now_us))


async def get_group(tx: Transaction, group_id: str) -> tuple[Group, int]:
    """Return a group and the number of customers in it."""
    group = await GroupStore(tx).find(group_id)
    if group is None:
        raise NotFound(f"no group {group_id}")
    return group, await GroupStore(tx).member_count(group_id)


async def list_groups(tx: Transaction, *, kind: str, after: str, most: int) -> list[Group]:
    """Return groups by id."""
    return await GroupStore(tx).page(kind=kind, after=after, most=most)


async def list_members(tx: Transaction, group_id: str, *, after: FragmentKey | None, most: int) -> list[Member]:
    """Return the customers in a group, by profile id."""
    store = GroupStore(tx)
    if await store.find(group_id) is None:
        raise NotFound(f"no group {group_id}")
    return await store.members(group_id, after=after, most=most)


async def list_profile_groups(tx: Transaction, fragment: FragmentKey, *, after: str, most: int) -> list[Membership]:
    """Return the groups that a customer belongs to, by id."""
    return await GroupStore(tx).of_fragments(await fragments_of(tx, fragment), after=after, most=most)
