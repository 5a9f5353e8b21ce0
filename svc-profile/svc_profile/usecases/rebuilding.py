# SPDX-License-Identifier: Apache-2.0
"""Derive again what identifiers own, when it becomes known late that some of it is another's, or may not be kept.

Whatever is found to be in the wrong place leaves its fragment, and with it everything else that the fragment held: the
rest is learnt again under the next generation. Other services forget the old fragment and hear the events anew, so they
need no way of taking back a single event. Who calls has locked the identifiers' fragments.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from chassis.database import Transaction
from dangol.events.v1 import events_pb2
from dangol.profile.v1 import identity_pb2

from svc_profile.domain.derived import Home, derived_name
from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.flags import REBUILT, SHARED
from svc_profile.store.derived import DerivedStore, Placed
from svc_profile.store.events import EventStore
from svc_profile.store.folding import FlaggedError, Folded
from svc_profile.store.groups import GroupStore
from svc_profile.store.links import LinkStore
from svc_profile.usecases.diverting import Diversion, divert
from svc_profile.usecases.indexing import reindex
from svc_profile.usecases.learning import REPLAYED, Learner
from svc_profile.wire.collecting import read_event, replayed_batches
from svc_profile.wire.identity import fragments_forgotten
from svc_profile.wire.traits import without_refused_traits


@dataclass(frozen=True)
class Family:
    """The fragments that hold what some identifiers own."""

    homes: Mapping[FragmentKey, Home]
    generations: Mapping[Home, int]

    def next_generations(self, losing: Collection[FragmentKey]) -> dict[Home, int]:
        """Return the generations with which fragments are derived again."""
        return {self.homes[fragment]: self.generations.get(self.homes[fragment], -1) + 1 for fragment in losing}


async def share_devices(tx: Transaction, learner: Learner, since_us: Mapping[FragmentKey, int]) -> None:
    """Let what is done on devices from a time on belong to their later users, where there are any."""
    store = DerivedStore(tx)
    shared = await store.shared(since_us)
    if shared:
        flags = await store.flag(shared, SHARED)
        await rebuild(tx, learner, flags, min(since_us[device] for device in shared))


async def rebuild(tx: Transaction, learner: Learner, flags: Mapping[FragmentKey, int], since_us: int) -> None:
    """Put in order what flagged identifiers own, given that it was right before some time."""
    store = DerivedStore(tx)
    family = await _family(store, flags)
    placed = await store.placed(family.homes, since_us)
    if not placed:
        return
    events = await _read(store, learner, [each.event_key for each in placed], ())
    losing = _losing(placed, await divert(tx, events, flags))
    if losing:
        await _derive_again(tx, learner, family, losing, events, flags)


async def _family(store: DerivedStore, bases: Collection[FragmentKey]) -> Family:
    generations = await store.generations(bases)
    homes = {base: (base, base) for base in bases}
    homes |= {derived_name(home, generation).fragment: home for home, generation in generations.items()}
    return Family(homes, generations)


async def _read(
    store: DerivedStore, learner: Learner, keys: Collection[bytes], fragments: Collection[FragmentKey]
) -> list[Event]:
    payloads = await store.payloads(keys, fragments)
    return [read_event(events_pb2.Event.FromString(payload), learner.namer) for _, payload in payloads]


def _losing(placed: Sequence[Placed], diversion: Diversion) -> dict[FragmentKey, set[bytes]]:
    """Return the fragments that hold something of another's, or that may not be kept, with the keys of it."""
    due = {event.key: event.owner.fragment for event in diversion.events}
    losing: dict[FragmentKey, set[bytes]] = defaultdict(set)
    for each in placed:
        if each.event_key in diversion.dropped or due[each.event_key] != each.fragment:
            losing[each.fragment].add(each.event_key)
    return losing


async def _derive_again(
    tx: Transaction,
    learner: Learner,
    family: Family,
    losing: Mapping[FragmentKey, set[bytes]],
    events: Sequence[Event],
    flags: Mapping[FragmentKey, int],
) -> None:
    store, bases = DerivedStore(tx), {fragment for fragment in losing if family.homes[fragment][0] == fragment}
    moving = {key for keys in losing.values() for key in keys}
    everything = {event.key: event for event in await _read(store, learner, (), losing)}
    everything |= {event.key: event for event in events if event.key in moving}
    await store.keep(family.next_generations(losing))
    flags = {**flags, **await store.flag(bases, REBUILT)}
    diversion = await divert(tx, list(everything.values()), flags)
    await store.empty(bases, losing.keys() - bases)
    await GroupStore(tx).leave(losing)
    await EventStore(tx).withhold(diversion.dropped)
    learner.count(tx, diversion)
    await _tell_again(tx, learner, diversion, flags)
    for message in fragments_forgotten(losing, identity_pb2.FORGET_REASON_REBUILT):
        tx.publish(message)
    await reindex(tx, {*losing, *diversion.owners.values()})


async def _tell_again(
    tx: Transaction, learner: Learner, diversion: Diversion, flags: Mapping[FragmentKey, int]
) -> None:
    """Learn from events under the fragments that they belong to, and let other services hear them again."""
    owners = {event.key: event.owner.fragment for event in diversion.events if event.key not in diversion.dropped}
    await DerivedStore(tx).replay(owners, os.urandom(16))
    await learner.link(tx, diversion, await _fold_again(tx, learner, diversion, flags))
    placements = await LinkStore(tx).placements(set(owners.values()))
    kept = [event for event in diversion.events if event.key in owners]
    for batch in replayed_batches(kept, placements):
        tx.publish(without_refused_traits(batch, learner.schema), REPLAYED)


async def _fold_again(
    tx: Transaction, learner: Learner, diversion: Diversion, flags: Mapping[FragmentKey, int]
) -> Folded:
    """Fold events that were diverted; who has flags and only came with them changes nothing about that."""
    while True:
        try:
            return await learner.fold_again(tx, diversion, flags)
        except FlaggedError as error:
            flags = {**flags, **error.flags}
