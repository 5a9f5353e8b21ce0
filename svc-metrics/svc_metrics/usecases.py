# SPDX-License-Identifier: Apache-2.0
"""What svc-metrics does, one function per thing."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from chassis.errors import NotFound
from chassis.events import DEFAULT_CURRENCY
from chassis.identity import FragmentId
from prometheus_client import Gauge

from svc_metrics.domain import (
    DayRange,
    EventName,
    EventRow,
    FunnelQuestion,
    FunnelStep,
    KpiSeries,
    Mapping,
    Membership,
    Position,
    Timeline,
    funnel_of,
)
from svc_metrics.store import ClickHouse, EventStore, FigureStore, PeopleStore

log = logging.getLogger(__name__)

BROKEN_PARTS = Gauge("dangol_metrics_broken_parts", "Parts that ClickHouse found damaged and leaves out of answers")


@dataclass(frozen=True)
class Stores:
    """Everything that svc-metrics keeps."""

    events: EventStore
    people: PeopleStore
    figures: FigureStore

    @classmethod
    def on(cls, clickhouse: ClickHouse) -> "Stores":
        """Keep it all in one database."""
        return cls(EventStore(clickhouse), PeopleStore(clickhouse), FigureStore(clickhouse))


async def record_events(stores: Stores, events: pa.Table, mappings: Sequence[Mapping], *, token: str) -> None:
    """Keep events and where their customers belong; repetition changes nothing."""
    # Mappings first: an event is never counted before it is known whose it is.
    await stores.people.learn_mappings(mappings)
    await stores.events.append(events, token=token)


async def remap_fragments(stores: Stores, mappings: Sequence[Mapping]) -> None:
    """Count fragments under other profiles from now on, their past included."""
    await stores.people.learn_mappings(mappings)


async def change_memberships(stores: Stores, memberships: Sequence[Membership]) -> None:
    """Keep who entered and who left which segment."""
    if memberships:
        await stores.people.learn_memberships(memberships)


async def name_segments(stores: Stores, segments: Sequence[tuple[str, str, int]]) -> None:
    """Keep what segments are called: id, name, time of saving in microseconds."""
    await stores.people.name_segments(segments)


async def forget_segments(stores: Stores, segments: Sequence[tuple[str, str]]) -> None:
    """Let deleted segments be unknown."""
    await stores.people.forget_segments(segments)


async def query_kpis(stores: Stores, days: DayRange, *, segment: str, currency: str) -> KpiSeries:
    """Return the key figures of each day and of the whole range."""
    segment_id = await _segment_id(stores, segment)
    chosen = currency or await stores.figures.most_frequent_currency(days) or DEFAULT_CURRENCY
    found, total = await stores.figures.kpis(days, currency=chosen, segment_id=segment_id)
    return KpiSeries.of(days, chosen, found, total)


async def query_funnel(stores: Stores, question: FunnelQuestion, *, segment: str) -> list[FunnelStep]:
    """Return how many customers came how far."""
    segment_id = await _segment_id(stores, segment)
    return funnel_of(question.steps, await stores.figures.funnel(question, segment_id=segment_id))


async def list_profile_events(
    stores: Stores, fragment_id: FragmentId, *, before: Position | None, limit: int
) -> Timeline:
    """Return a page of what one customer did, under all names; raises `NotFound` when nobody is known by this one."""
    profile_id = await stores.people.profile_of(fragment_id)
    if profile_id is None:
        raise NotFound("nobody is known by this reference")
    fragment_ids = await stores.people.fragments_of(profile_id)
    events = await stores.events.timeline(fragment_ids, before=before, limit=limit + 1)
    return Timeline(profile_id, events[:limit], more=len(events) > limit)


async def rows_of_event(
    stores: Stores, message_id: str, places: Sequence[tuple[FragmentId, int]], source: str
) -> list[EventRow]:
    """Return the rows of an event: where svc-profile says that they are, of one source or of all."""
    rows = await stores.events.rows_of(message_id, places)
    return [row for row in rows if source in ("", row.source)]


async def list_event_names(stores: Stores, limit: int) -> list[EventName]:
    """Return the names that events are counted under, most frequent first."""
    return await stores.events.names(limit)


async def report_broken_parts(stores: Stores) -> None:
    """Raise the alarm when the engine left damaged parts out of every answer, which it does without an error."""
    parts = await stores.events.broken_parts()
    BROKEN_PARTS.set(len(parts))
    for part in parts:
        log.error(
            "data is missing from answers: table %s, partition %s, part %s is damaged (%s)",
            part.table, part.partition, part.name, part.reason,
        )  # fmt: skip


async def _segment_id(stores: Stores, name: str) -> str | None:
    if not name:
        return None
    segment_id = await stores.people.segment_id(name)
    if segment_id is None:
        raise NotFound(f"no segment is called {name}", reason="SEGMENT_NOT_FOUND")
    return segment_id
