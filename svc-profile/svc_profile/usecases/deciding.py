# SPDX-License-Identifier: Apache-2.0
"""Let people decide who is one customer, and say what a decision changes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid, NotFound
from chassis.identifiers import IdentifierTypes

from svc_profile.domain.claims import Pair
from svc_profile.domain.decisions import Note
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.identity import Component, as_resolved, rearrange
from svc_profile.domain.outcomes import Decided, Homes, Resolution, Showing, members_of
from svc_profile.domain.purposes import Consent
from svc_profile.domain.rulings import Ruling, rule_merge, rule_split, with_decisions
from svc_profile.store.conflicts import ConflictStore
from svc_profile.store.decisions import DecisionStore
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.heard import HeardStore
from svc_profile.store.links import LinkStore
from svc_profile.store.plans import look_up_by_index
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.relinking import write_change
from svc_profile.usecases.situations import read_situation


@dataclass(frozen=True)
class Bounds:
    """What a decision is bound by."""

    types: IdentifierTypes
    max_fragments: int


async def merge_profiles(
    tx: Transaction, bounds: Bounds, note: Note, *, keep: FragmentKey, absorb: Sequence[FragmentKey]
) -> Decided:
    """Make the customers of some fragments one; raises `NotFound` and `FailedPrecondition`."""
    await _begin(tx, {keep, *absorb})
    homes = await LinkStore(tx).profiles_of({keep, *absorb})
    if keep not in homes:
        raise NotFound("nobody is known by this reference")
    for place, fragment in enumerate(absorb):
        if fragment not in homes:
            raise NotFound(f"absorb[{place}]: nobody is known by this reference")
    profiles = set(homes.values())
    scene = await _load(tx, bounds, note, profiles)
    ruling = rule_merge(scene.component, homes[keep], profiles - {homes[keep]}, bounds.types)
    return await _conclude(tx, bounds, note, scene, await _decide(tx, note, scene.component, ruling))


async def split_profile(
    tx: Transaction, bounds: Bounds, note: Note, *, of: FragmentKey, chosen: Sequence[FragmentKey]
) -> Decided:
    """Let chosen identifiers leave the customer of a fragment; raises `NotFound`, `Invalid`, `FailedPrecondition`."""
    await _begin(tx, {of, *chosen})
    homes = await LinkStore(tx).profiles_of({of, *chosen})
    if of not in homes:
        raise NotFound("nobody is known by this reference")
    for place, fragment in enumerate(chosen):
        if homes.get(fragment) != homes[of]:
            raise Invalid.field(f"identifiers[{place}]", "must be an identifier of this customer")
    scene = await _load(tx, bounds, note, {homes[of]})
    ruling = rule_split(scene.component, homes[of], set(chosen), bounds.types)
    return await _conclude(tx, bounds, note, scene, await _decide(tx, note, scene.component, ruling))


async def resolve_conflict(
    tx: Transaction, bounds: Bounds, note: Note, *, pair: Pair, resolution: Resolution
) -> Decided:
    """Decide about a conflict; raises `NotFound` when there is none, or somebody has decided."""
    await _begin(tx, pair)
    conflict = await ConflictStore(tx).find(pair)
    if conflict is None:
        raise NotFound("there is no such conflict, or somebody has decided about it")
    scene = await _load(tx, bounds, note, {conflict.profile, conflict.claiming_profile})
    component = scene.component
    if resolution is Resolution.MOVE:
        return await _conclude(tx, bounds, note, scene, await _move(tx, bounds, note, component, pair))
    ruling = Ruling([tuple((end,) for end in pair)])
    if resolution is Resolution.MERGE:
        ruling = rule_merge(component, conflict.profile, {conflict.claiming_profile}, bounds.types)
    return await _conclude(tx, bounds, note, scene, await _decide(tx, note, component, ruling))


@dataclass(frozen=True)
class _Scene:
    """How things stand before a decision."""

    profiles: Collection[FragmentKey]
    """The customers whom it is about."""
    component: Component
    """All that is connected with them."""
    consents: Mapping[FragmentKey, Sequence[Consent]]


async def _begin(tx: Transaction, fragments: Collection[FragmentKey]) -> None:
    """Be the only one who decides who is who, until the end of the transaction.

    Whoever folds an event into a fragment without links asks nobody who is who, even if it makes the fragment older. So
    fragments that may get their first link here are locked first, as they are by events that link them.
    """
    await look_up_by_index(tx)
    await FragmentStore(tx).lock(fragments)
    await LinkStore(tx).lock()


async def _load(tx: Transaction, bounds: Bounds, note: Note, profiles: Collection[FragmentKey]) -> _Scene:
    """Load all that is connected with some profiles, unless they are too large together."""
    links = LinkStore(tx)
    size = await links.size(profiles)
    if size > bounds.max_fragments:
        raise FailedPrecondition(
            f"the customers have {size} identifiers together, and DANGOL_PROFILE_MAX_MERGE_FRAGMENTS allows "
            f"{bounds.max_fragments}",
            reason="TOO_MANY_FRAGMENTS",
        )
    component = await links.component(profiles)
    homes = {f: member.profile for f, member in component.members.items() if member.profile in profiles}
    situation = await read_situation(tx, members_of(homes))
    return _Scene(profiles, component, situation.consents(note.time_us))


async def _decide(tx: Transaction, note: Note, component: Component, ruling: Ruling) -> Component:
    """Write a ruling down, and return the component as it stands with it."""
    decisions = DecisionStore(tx)
    await decisions.revoke(ruling.revoked, note)
    return with_decisions(component, ruling, await decisions.put(ruling.new, note))


async def _move(tx: Transaction, bounds: Bounds, note: Note, component: Component, pair: Pair) -> Component:
    """Let the identifier leave the customer who has it, then join it to the one who claims it."""
    moved, claiming = pair
    home = component.members[moved].profile
    if sum(member.profile == home for member in component.members.values()) > 1:
        ruling = rule_split(component, home, {moved}, bounds.types)
        component = as_resolved(await _decide(tx, note, component, ruling), bounds.types)
    home, claimant = component.members[moved].profile, component.members[claiming].profile
    return await _decide(tx, note, component, rule_merge(component, claimant, {home}, bounds.types))


async def _conclude(tx: Transaction, bounds: Bounds, note: Note, scene: _Scene, after: Component) -> Decided:
    """Find out who is who after decisions, write it down, and say what changed for whom."""
    before = scene.component
    change = rearrange(replace(after, members=before.members), bounds.types, note.time_us)
    moved_from = {before.members[fragment].profile for fragment in change.moved}
    concerned = {*scene.profiles, *moved_from, *change.moved.values()}
    homes = {f: member.profile for f, member in before.members.items() if member.profile in concerned}
    await write_change(tx, change)
    settled = {fragment: change.moved.get(fragment, home) for fragment, home in homes.items()}
    placements = members_of(settled)
    now = await read_situation(tx, placements)
    shown = await _showing(tx, homes, concerned)
    taken, stood = ({decision.decision_id for decision in each.decisions} for each in (after, before))
    decisions = DecisionStore(tx)
    return Decided(
        before=shown.customers(homes, scene.consents),
        after=shown.customers(settled, now.consents(note.time_us)),
        made=await decisions.records(taken - stood),
        revoked=await decisions.records(stood - taken),
        placements=placements,
    )


async def _showing(tx: Transaction, homes: Homes, profiles: Collection[FragmentKey]) -> Showing:
    return Showing(
        learnt=await FragmentStore(tx).some(homes),
        segments=await HeardStore(tx).memberships_of(profiles),
        policies=(await TraitSchemaStore(tx).current()).policies,
        homes=homes,
    )
