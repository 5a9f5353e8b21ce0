# SPDX-License-Identifier: Apache-2.0
"""Take customers out: start an export, write one batch after the other, hand the file over, delete it in time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid, NotFound

from svc_profile.domain.computed import ComputedTrait, evaluate
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.exports import COMPUTED_TRAITS, CONSENTS, Customer, ExportJob, ExportPlan, State
from svc_profile.store.events import EventStore
from svc_profile.store.exports import ExportStore
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.computed import MOST_EVENTS, compute, occurrence
from svc_profile.usecases.personal_traits import personal_names
from svc_profile.usecases.profiles import get_profiles

_DAY_US = 86_400_000_000
PIECE_BYTES = 2**20


async def create_export(
    tx: Transaction, plan: ExportPlan, *, request_id: str, now_us: int, expire_time_us: int, key: bytes
) -> ExportJob:
    """Start an export; a repeated request is answered with the export that it made."""
    store = ExportStore(tx)
    if plan.segment_id and not await store.knows_segment(plan.segment_id):
        raise NotFound("no such segment was heard of")
    if plan.purpose and not await store.knows_purpose(plan.purpose):
        raise Invalid.field("purpose", "must be one of the purposes of this platform")
    existing = await store.add(
        plan, request_id=request_id, create_time_us=now_us, expire_time_us=expire_time_us, key=key
    )
    if existing is not None and _asked(existing.plan) != _asked(plan):
        raise Invalid.field("request_id", "was used for another export")
    return existing or await get_export(tx, plan.export_id)


def _asked(plan: ExportPlan) -> ExportPlan:
    """Return what is the same when a request is repeated; the list is forgotten when the export ends."""
    return replace(plan, export_id="", fragments=())


async def get_export(tx: Transaction, export_id: str) -> ExportJob:
    """Return an export."""
    return _found(await ExportStore(tx).find(export_id))


async def list_exports(tx: Transaction, *, before: str, most: int) -> list[ExportJob]:
    """Return exports, newest first."""
    return await ExportStore(tx).page(before=before, most=most)


async def cancel_export(tx: Transaction, export_id: str, *, now_us: int) -> ExportJob:
    """End an export for good and delete its file."""
    store = ExportStore(tx)
    _found(await store.find(export_id, lock=True))
    await store.end(export_id, State.CANCELLED, end_time_us=now_us)
    await store.forget_file(export_id)
    return await get_export(tx, export_id)


async def read_file(tx: Transaction, export_id: str, offset: int) -> tuple[ExportJob, bytes]:
    """Return a piece of a complete file from a byte on, empty at its end."""
    store = ExportStore(tx)
    job = _found(await store.find(export_id))
    if job.state is not State.COMPLETED:
        raise FailedPrecondition(f"an export that is {job.state.name.lower()} has no file", reason="NO_FILE")
    found = await store.chunk(export_id, offset)
    if found is None or offset >= job.file_bytes:
        return job, b""
    first, data = found
    return job, data[offset - first : offset - first + PIECE_BYTES]


async def read_batch(
    tx: Transaction, plan: ExportPlan, after: FragmentKey, *, most: int, now_us: int
) -> tuple[list[FragmentKey], list[Customer]]:
    """Return the next profiles of an export, and what is known of those that may be in it."""
    store = ExportStore(tx)
    looked_at = await store.next_profiles(plan, after, most)
    chosen = await _granted(store, looked_at, plan.purpose)
    profiles = await get_profiles(tx, chosen) if chosen else {}
    consents = await store.consents(profiles) if CONSENTS in plan.fields else {}
    computed = await _computed(tx, list(profiles), now_us) if COMPUTED_TRAITS in plan.fields else {}
    customers = [
        Customer(profiles[key], consents.get(key, {}), computed.get(key, {})) for key in chosen if key in profiles
    ]
    return looked_at, customers


async def _granted(store: ExportStore, profiles: Sequence[FragmentKey], purpose: str) -> list[FragmentKey]:
    if not purpose:
        return list(profiles)
    granted = await store.consents(profiles, purpose)
    return [profile for profile in profiles if granted.get(profile, {}).get(purpose)]


async def _computed(tx: Transaction, profiles: Sequence[FragmentKey], now_us: int) -> dict[FragmentKey, dict[str, Any]]:
    """Work out the computed traits of some customers."""
    traits = (await TraitSchemaStore(tx).current()).computed
    return await _computed_of(tx, profiles, traits, now_us) if traits and profiles else {}


async def _computed_of(
    tx: Transaction, profiles: Sequence[FragmentKey], traits: Sequence[ComputedTrait], now_us: int
) -> dict[FragmentKey, dict[str, Any]]:
    """Read the events of all at once; where they are too many, of half of the customers at a time."""
    profile_of = await ExportStore(tx).fragments_of(profiles)
    if len(profiles) == 1:
        return {profiles[0]: await compute(tx, list(profile_of), traits, now_us)}
    names = {name for trait in traits for name in trait.event_names}
    opened = {name for trait in traits if trait.reads_properties for name in trait.event_names}
    events = await EventStore(tx).of_fragments(list(profile_of), names=names, most=MOST_EVENTS)
    if len(events) == MOST_EVENTS:
        middle = len(profiles) // 2
        first = await _computed_of(tx, profiles[:middle], traits, now_us)
        return first | await _computed_of(tx, profiles[middle:], traits, now_us)
    by_profile: dict[FragmentKey, list[Any]] = {profile: [] for profile in profiles}
    for event in events:
        if event.message is not None and event.fragment in profile_of:
            by_profile[profile_of[event.fragment]].append(occurrence(event, opened))
    return {profile: evaluate(traits, found, now_us) for profile, found in by_profile.items()}


async def personal_traits(tx: Transaction) -> list[str]:
    """Return the traits that are personal, besides those that carry identifiers."""
    return sorted(personal_names(await TraitSchemaStore(tx).current()))


async def forget_exports(tx: Transaction, *, now_us: int, kept_days: int) -> None:
    """Delete files whose time is over, and forget exports that were made long ago."""
    store = ExportStore(tx)
    await store.expire(now_us=now_us)
    await store.forget(before_us=now_us - kept_days * _DAY_US)


def _found(job: ExportJob | None) -> ExportJob:
    if job is None:
        raise NotFound("no such export")
    return job
