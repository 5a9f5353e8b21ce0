# SPDX-License-Identifier: Apache-2.0
"""Learn from collected events, and know who is who."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from chassis.clock import now, to_us
from chassis.database import Transaction

from svc_profile.domain.definitions import TraitSchema
from svc_profile.domain.events import Batch, Event, FragmentKey, Namer
from svc_profile.domain.identity import Placement
from svc_profile.domain.rejects import objection
from svc_profile.store.events import Bringing, EventStore
from svc_profile.store.folding import FlaggedError
from svc_profile.store.links import LinkStore
from svc_profile.store.rejected import RejectedStore
from svc_profile.store.repetitions import Repetition, RepetitionStore
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.consenting import listen, note_ages, write_down
from svc_profile.usecases.diverting import divert
from svc_profile.usecases.indexing import note_changes
from svc_profile.usecases.learning import Learner
from svc_profile.usecases.rebuilding import share_devices
from svc_profile.usecases.suppressing import part_suppressed, reject_suppressed

_FORGET_AT_ONCE = 20_000


@dataclass(frozen=True)
class Collected:
    """What became of collected messages."""

    kept: Sequence[Sequence[int]]
    """For each message, the positions of the events that it was the first to bring and that others may hear of."""
    owners: Mapping[bytes, FragmentKey]
    """By event key, the fragment that owns an event where that is not the one of its strongest name."""
    placements: Mapping[FragmentKey, Placement]
    """Where the fragments that own those events belong; one that is not there belongs to itself."""
    schema: TraitSchema
    """What was decided about traits at that moment."""
    repeats: bool
    """Whether some of the events had been brought before."""


async def collect(
    tx: Transaction,
    batches: Sequence[Batch],
    namer: Namer,
    anonymous_properties: Collection[str] | None = None,
    *,
    perhaps_known: bool = True,
) -> Collected:
    """Learn from the events that are new, and say which events each message was the first to bring.

    A message that comes again after a crash is answered as the first time and teaches nothing. `perhaps_known` says
    whether some of the events may well have been brought before; it is right either way, and costs less when it is.
    """
    schema = await TraitSchemaStore(tx).hold()
    first = _first_bringers(batches)
    known = await EventStore(tx).remember(first, perhaps_known=perhaps_known)
    fresh = (
        [event for key, (_, event) in first.items() if key not in known] if known else [e for _, e in first.values()]
    )
    all_new = not known and len(first) == sum(len(batch.events) for batch in batches)
    if not all_new:
        await RepetitionStore(tx).put(_repetitions(batches, first, known))
    await RejectedStore(tx).put([objection(each) for each in fresh if each.breach is not None or not each.names.seen])
    learner = Learner(namer, schema, anonymous_properties)
    dropped, owners = await _learn(tx, [event for event in fresh if event.names.seen], learner)
    owners |= {key: each.fragment for key, each in known.items() if each.fragment is not None}
    dropped |= {key for key, each in known.items() if each.fragment is None}
    bringers = {key: each.batch_id for key, each in known.items()}
    if all_new and not dropped:
        kept: Sequence[Sequence[int]] = [_seen(batch) for batch in batches]
    else:
        kept = [_kept(batch, first, bringers, dropped) for batch in batches]
    placements = await LinkStore(tx).placements(_owning(batches, kept, owners))
    return Collected(kept, owners, placements, schema, bool(known))


def _first_bringers(batches: Sequence[Batch]) -> dict[bytes, tuple[bytes, Event]]:
    first: dict[bytes, tuple[bytes, Event]] = {}
    for batch in batches:
        for event in batch.events:
            first.setdefault(event.key, (batch.batch_id, event))
    return first


def _repetitions(
    batches: Sequence[Batch], first: Mapping[bytes, tuple[bytes, Event]], known: Mapping[bytes, Bringing]
) -> list[Repetition]:
    """Return what messages brought though it was known; that a message is delivered once more is no repetition."""
    repetitions = []
    for batch in batches:
        own: set[bytes] = set()
        for event in batch.events:
            bringer = known[event.key].batch_id if event.key in known else first[event.key][0]
            if bringer != batch.batch_id or event.key in own:
                repetitions.append(Repetition(event.key, batch.batch_id, event.received_time_us))
            own.add(event.key)
    return repetitions


def _seen(batch: Batch) -> list[int]:
    """Return the positions of the events that are somebody's."""
    return [position for position, event in enumerate(batch.events) if event.names.seen]


def _kept(
    batch: Batch, first: Mapping[bytes, tuple[bytes, Event]], bringers: Mapping[bytes, bytes], dropped: Set[bytes]
) -> list[int]:
    """Return the positions of the events that this message was the first to bring, now or before a crash."""
    positions: dict[bytes, int] = {}
    for position, event in enumerate(batch.events):
        key = event.key
        if event.names.seen and key not in dropped and (bringers.get(key) or first[key][0]) == batch.batch_id:
            positions.setdefault(key, position)
    return list(positions.values())


def _owning(
    batches: Sequence[Batch], kept: Sequence[Sequence[int]], owners: Mapping[bytes, FragmentKey]
) -> set[FragmentKey]:
    events = (batch.events[position] for batch, positions in zip(batches, kept, strict=True) for position in positions)
    return {owners.get(event.key) or event.names.seen[0].fragment for event in events}


async def _learn(
    tx: Transaction, events: Sequence[Event], learner: Learner
) -> tuple[set[bytes], dict[bytes, FragmentKey]]:
    """Fold events and relink; returns the keys of dropped events, and the owners of diverted ones."""
    flags: dict[FragmentKey, int] = {}
    statements = await listen(tx, events)
    while True:
        allowed, suppressed = part_suppressed(events, flags)
        diversion = await divert(tx, allowed, flags)
        try:
            folded = await learner.fold(tx, diversion, flags)
            break
        except FlaggedError as error:
            flags |= error.flags
    await learner.record(tx, diversion)
    await EventStore(tx).move(diversion.owners)
    await EventStore(tx).withhold(diversion.dropped)
    learner.count(tx, diversion)
    devices = await learner.link(tx, diversion, folded)
    here = {event.key for event in allowed}
    await write_down(tx, [each for each in statements if each.event.key in here], to_us(now()))
    await note_ages(tx, diversion.learnt)
    await note_changes(tx, diversion.learnt, folded)
    await reject_suppressed(tx, suppressed)
    if devices:
        await share_devices(tx, learner, _first_times(events, devices))
    return {*diversion.dropped, *(event.key for event in suppressed)}, diversion.owners


def _first_times(events: Sequence[Event], devices: Set[FragmentKey]) -> dict[FragmentKey, int]:
    """Return the earliest time at which some devices were seen."""
    times: dict[FragmentKey, int] = {}
    for event in events:
        for name in event.names.seen:
            if name.fragment in devices:
                times[name.fragment] = min(event.time_us, times.get(name.fragment, event.time_us))
    return times


async def forget_keys(tx: Transaction, days: int) -> bool:
    """Forget some keys of dropped events, and some repetitions, after so long; tells whether there may be more."""
    forgotten = await EventStore(tx).forget(days=days, most=_FORGET_AT_ONCE)
    repetitions = await RepetitionStore(tx).forget(days=days, most=_FORGET_AT_ONCE)
    return _FORGET_AT_ONCE in (forgotten, repetitions)
