# SPDX-License-Identifier: Apache-2.0
"""Tell all that is known of a customer, and read no more than was asked for."""

from collections.abc import Collection, Sequence, Set

from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.heard import Standing
from svc_profile.domain.interactions import Choice, Kept, Status
from svc_profile.domain.profiles import fold_profile
from svc_profile.domain.views import CASES, COMPUTED, CONSENTS, EVENTS, ON_REQUEST, SEGMENTS, STAGES, RecentEvent, View
from svc_profile.store.events import EventStore
from svc_profile.store.heard import HeardStore
from svc_profile.store.interactions import InteractionStore
from svc_profile.usecases.computed import compute
from svc_profile.usecases.consent import consents_of
from svc_profile.usecases.profiles import get_whole
from svc_profile.wire.recent import read_recent

RECENT_EVENTS = 20
OPEN_CASES = 20


async def read_profile(tx: Transaction, fragment: FragmentKey, parts: Set[str], now_us: int) -> View:
    """Return some parts of a customer; what the fragments hold takes one round trip, however much of it is asked."""
    whole = await get_whole(tx, fragment)
    fragments = [each.name.fragment for each in whole.fragments]
    standing = await _standing(tx, whole.profile, parts)
    return View(
        profile_id=whole.profile,
        profile=(fold_profile(whole.profile, whole.fragments, whole.schema.policies) if parts - ON_REQUEST else None),
        consents=await consents_of(tx, whole.fragments, now_us) if CONSENTS in parts else (),
        segments=standing.segments,
        stages=standing.stages,
        recent_events=await _recent_events(tx, fragments) if EVENTS in parts else (),
        open_cases=await _open_cases(tx, fragments) if CASES in parts else (),
        computed_traits=await compute(tx, fragments, whole.schema.computed, now_us) if COMPUTED in parts else None,
    )


async def _standing(tx: Transaction, profile: FragmentKey, parts: Set[str]) -> Standing:
    if parts.isdisjoint({SEGMENTS, STAGES}):
        return Standing()
    return await HeardStore(tx).standing(profile, segments=SEGMENTS in parts, stages=STAGES in parts)


async def _recent_events(tx: Transaction, fragments: Collection[FragmentKey]) -> Sequence[RecentEvent]:
    stored = await EventStore(tx).of_fragments(fragments, most=RECENT_EVENTS)
    return [read_recent(each.name, each.message) for each in stored if each.message is not None]


async def _open_cases(tx: Transaction, fragments: Collection[FragmentKey]) -> Sequence[Kept]:
    choice = Choice(fragments=fragments, statuses=[Status.OPEN, Status.PENDING])
    return await InteractionStore(tx).page(choice, OPEN_CASES)
