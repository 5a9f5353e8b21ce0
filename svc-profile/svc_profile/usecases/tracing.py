# SPDX-License-Identifier: Apache-2.0
"""Tell what became of one event: the truth call."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from chassis.database import Transaction

from svc_profile.domain.events import Event, FragmentKey, Namer, event_key
from svc_profile.domain.fates import Fate
from svc_profile.domain.profiles import Profile
from svc_profile.domain.traces import LinkMade, Statement, Trace, Traces, statements_of
from svc_profile.store.events import EventStore, StoredEvent
from svc_profile.store.rejected import Filter, RejectedStore
from svc_profile.store.repetitions import RepetitionStore
from svc_profile.store.tracing import TraceStore
from svc_profile.usecases.profiles import find_profile
from svc_profile.wire.collecting import read_event
from svc_profile.wire.recent import read_recent

_IDENTIFY = "identify"
_MOST_REJECTED = 100
_MOST_EARLIER = 200


async def trace(
    tx: Transaction, namer: Namer, message_id: str, *, source: str, known_sources: Collection[str]
) -> Traces:
    """Return all that is known of the events with a message id, of one source or of all that were ever heard of."""
    sources = {source} if source else {*known_sources, *await TraceStore(tx).sources(message_id)}
    source_of = {event_key(each, message_id): each for each in sources}
    rejected = await RejectedStore(tx).page(Filter(message_id, source=source), before=None, most=_MOST_REJECTED)
    found = await EventStore(tx).find(source_of)
    repeated = await RepetitionStore(tx).of(source_of)
    taken = [
        replace(await _trace(tx, namer, stored, source_of[stored.event_key]), repeated=repeated.get(stored.event_key))
        for stored in found
    ]
    return Traces(sorted(taken, key=lambda each: each.source), [event for _, event in reversed(rejected)])


async def _trace(tx: Transaction, namer: Namer, stored: StoredEvent, source: str) -> Trace:
    """Follow one event; a message id that came from several sources is rare."""
    if stored.message is None or stored.fragment is None:
        return Trace(source, stored.name, stored.received_time_us, fate=_fate(stored))
    profile = await find_profile(tx, stored.fragment)
    return Trace(
        source,
        stored.name,
        stored.received_time_us,
        event=read_recent(stored.name, stored.message),
        fragment=stored.fragment,
        profile=profile.profile if profile else stored.fragment,
        statements=await _statements(tx, stored, profile) if stored.name == _IDENTIFY and profile else (),
        links=await _links(tx, read_event(stored.message, namer)),
    )


def _fate(stored: StoredEvent) -> Fate | None:
    """Erasure leaves nothing but the key, so nothing but the key tells of it."""
    return stored.fate or (None if stored.name or stored.received_time_us else Fate.ERASED)


async def _statements(tx: Transaction, stored: StoredEvent, profile: Profile) -> Sequence[Statement]:
    fragments = [known.fragment for known in profile.known_as]
    earlier = await EventStore(tx).of_fragments(
        fragments, names=[_IDENTIFY], before=(stored.time_us, stored.event_key), most=_MOST_EARLIER
    )
    traits = [read_recent(each.name, each.message).traits for each in (stored, *earlier) if each.message is not None]
    return statements_of(traits[0], traits[1:], profile.traits)


async def _links(tx: Transaction, event: Event) -> Sequence[LinkMade]:
    former = event.names.former_user
    fragments: list[FragmentKey] = [name.fragment for name in event.names.seen]
    return await TraceStore(tx).evidence(event.key, [*fragments, former.fragment] if former else fragments)
