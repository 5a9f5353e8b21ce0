# SPDX-License-Identifier: Apache-2.0
"""The tracking plan: what events really look like, counted exactly and without a value."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import grpc
import pytest
from chassis.streams import Delivery
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import ingest_pb2 as pb
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from svc_profile.app import build
from svc_profile.domain.planning import compare, planned_paths
from svc_profile.domain.schemas import Enforcement, EventSchema
from svc_profile.domain.tracking import (
    MAX_INSPECTED,
    MAX_NAMES,
    MAX_PROPERTIES,
    OTHERS,
    TYPES,
    EventSeen,
    Tally,
    inspect,
)
from svc_profile.settings import Settings
from svc_profile.store.tracking import TrackingStore
from svc_profile.wire.tracking import tally_of

START_US = 1_760_000_000_000_000

numbers = itertools.count()


def seen_of(*events: Any) -> EventSeen:
    """Inspect the properties of some events, a second apart."""
    tally = Tally()
    for number, values in enumerate(events):
        inspect(tally.add("x", "web", EventSeen(number, number, 1)), values, number)
    return tally.seen["x", "web"]


def types(seen: EventSeen, path: str) -> dict[str, int]:
    return {name: count for name, count in zip(TYPES, seen.properties[path].types, strict=True) if count}


class TestInspecting:
    """What is read off one event."""

    def test_paths_go_three_names_deep_and_into_lists(self) -> None:
        products = [{"price": 1}, {"price": "2", "sku": "x"}]
        seen = seen_of({"a": {"b": {"c": {"d": 1}}}, "products": products, "tags": ["a"]})
        assert sorted(seen.properties) == [
            "a",
            "a.b",
            "a.b.c",
            "products",
            "products[]",
            "products[].price",
            "products[].sku",
            "tags",
            "tags[]",
        ]
        assert types(seen, "products[].price") == {"integer": 1, "string": 1}
        assert seen.properties["products[].price"].count == 1

    def test_a_whole_number_is_an_integer_however_it_is_written(self) -> None:
        seen = seen_of({"n": 1}, {"n": 1.0}, {"n": 1.5}, {"n": None}, {"n": True}, {})
        assert types(seen, "n") == {"null": 1, "boolean": 1, "integer": 2, "number": 1}
        assert (seen.properties["n"].count, seen.inspected) == (5, 6)

    def test_a_name_that_looks_like_a_value_is_not_written(self) -> None:
        """Addresses and ids as keys are personal, and there is no end of them."""
        keys = ("kim@example.com", "01012345678", "x" * 300, "8b1f0d2a-9c3e-4f6a", "a.b")
        seen = seen_of({"by": dict.fromkeys(keys, 1)})
        assert sorted(seen.properties) == ["by", "by.*", "by.a\\.b"]

    def test_every_event_is_counted_though_only_some_are_opened(self) -> None:
        events = [
            Event(type=EventType.EVENT_TYPE_TRACK, name="x", source="web", received_time_us=n, properties=b'{"a": 1}')
            for n in range(1, MAX_INSPECTED + 31)
        ]
        halves = (EventBatch(events=events[:20]), EventBatch(events=events[20:]))
        tally = tally_of([Delivery(half, f"resolved:{n}", "events.resolved.0", n, 1) for n, half in enumerate(halves)])
        seen = tally.seen["x", "web"]
        assert (seen.count, seen.inspected) == (MAX_INSPECTED + 30, MAX_INSPECTED)
        assert seen.properties["a"].count == MAX_INSPECTED
        assert (seen.first_us, seen.last_us) == (1, MAX_INSPECTED + 30)

    @given(st.lists(st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=2))), st.data())
    def test_how_events_are_divided_into_batches_makes_no_difference(self, events: list[Any], data: Any) -> None:
        events = events[:MAX_INSPECTED]
        if len(events) < 2:
            return
        at = data.draw(st.integers(1, len(events) - 1))
        whole, parts = seen_of(*events), seen_of(*events[:at])
        parts.absorb(seen_of(*events[at:]))
        assert (parts.count, parts.inspected) == (whole.count, whole.inspected)
        assert {path: (each.count, each.types) for path, each in parts.properties.items()} == {
            path: (each.count, each.types) for path, each in whole.properties.items()
        }


class TestComparing:
    """What is planned beside what is seen."""

    SCHEMA: ClassVar[Any] = {
        "$defs": {"product": {"properties": {"price": {"type": "number"}, "sku": {"type": "string"}}}},
        "properties": {
            "total": {"type": ["number", "null"]},
            "products": {"type": "array", "items": {"$ref": "#/$defs/product"}},
            "never": {"type": "string"},
        },
        "anyOf": [{"properties": {"coupon": {"type": "string"}}}],
    }

    def test_paths_of_a_schema_follow_references_and_branches(self) -> None:
        assert planned_paths(self.SCHEMA) == {
            "total": {"number", "null"},
            "products": {"array"},
            "products[]": set(),
            "products[].price": {"number"},
            "products[].sku": {"string"},
            "never": {"string"},
            "coupon": {"string"},
        }

    def test_a_schema_that_refers_to_itself_ends(self) -> None:
        found = planned_paths({"properties": {"child": {"$ref": "#"}}, "allOf": [{"$ref": "#"}]})
        assert set(found) == {"child", "child.child", "child.child.child"}

    def test_unplanned_missing_and_surprising_properties_are_told_apart(self) -> None:
        seen = seen_of({"total": 3, "extra": 1, "products": [{"price": "1"}]})
        schema = EventSchema("x", self.SCHEMA, Enforcement.OFF)
        found = {each.path: each for each in compare(seen.properties, schema)}
        assert [path for path, each in found.items() if not each.is_planned] == ["extra"]
        assert [path for path, each in found.items() if each.seen is None] == ["coupon", "never", "products[].sku"]
        assert found["total"].unplanned_types == ()
        assert found["products[].price"].unplanned_types == ("string",)


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def name() -> str:
    """Name events that only one test sends."""
    return f"상품 조회 / Viewed {next(numbers)}"


def track(name: str, properties: Any = None, **fields: Any) -> Event:
    number = next(numbers)
    return Event(
        type=EventType.EVENT_TYPE_TRACK,
        name=name,
        properties=json.dumps(properties or {}).encode(),
        time_us=START_US + number,
        **{
            "received_time_us": START_US + number,
            "source": "web",
            "message_id": f"p{number}",
            "user_id": "u",
            **fields,
        },
    )


async def collect(service: RunningService, *events: Event) -> None:
    """Have events collected, and wait until the plan has heard of them too."""
    await service.deliver(EventBatch(events=events), subject="events.collected.1")
    await service.settled()


async def tracked(service: RunningService, name: str, source: str = "") -> pb.TrackedEvent:
    request = pb.GetTrackedEventRequest(name=name, source=source)
    answer: pb.GetTrackedEventResponse = await service.stub(IngestServiceStub).GetTrackedEvent(request)
    return answer.tracked_event


async def listed(service: RunningService, **fields: Any) -> Sequence[pb.TrackedEvent]:
    found: list[pb.TrackedEvent] = []
    request = pb.ListTrackedEventsRequest(**fields)
    while True:
        answer = await service.stub(IngestServiceStub).ListTrackedEvents(request)
        assert len(answer.tracked_events) <= (request.page_size or 100)
        found += answer.tracked_events
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


class TestThroughTheDoors:
    """The running service."""

    async def test_what_was_collected_is_in_the_plan_by_source(self, service: RunningService, name: str) -> None:
        web = [track(name, {"sku": "a", "price": 1.5}), track(name, {"sku": "b"})]
        app = track(name, {"sku": 7}, source="app")
        await collect(service, *web, app)
        event = await tracked(service, name)
        assert (event.event_count, event.inspected_count) == (3, 3)
        assert [(source.source, source.event_count) for source in event.sources] == [("app", 1), ("web", 2)]
        assert event.first_seen_time.ToMicroseconds() == web[0].received_time_us
        assert event.last_seen_time.ToMicroseconds() == app.received_time_us
        price, sku = event.properties
        assert (price.path, price.event_count, round(price.share, 3)) == ("price", 1, 0.333)
        assert {kind.type: kind.event_count for kind in sku.types} == {"integer": 1, "string": 2}
        only_app = await tracked(service, name, "app")
        assert (only_app.event_count, [each.path for each in only_app.properties]) == (1, ["sku"])

    async def test_a_repeated_event_and_a_redelivered_message_count_once(
        self, service: RunningService, name: str
    ) -> None:
        event = track(name)
        await collect(service, event)
        await collect(service, event)
        # Subjects are part of what the broker takes for a repetition, so that both deliveries reach the service.
        for subject in ("events.resolved.0", "events.resolved.1"):
            again = EventBatch(events=[event])
            await service.deliver(again, subject=subject, message_ids=[f"resolved:again-{name}"])
        assert (await tracked(service, name)).event_count == 2

    async def test_events_that_are_only_told_anew_are_not_counted_again(self, name: str) -> None:
        """What is derived again goes out under another kind of message id."""
        batch = EventBatch(events=[track(name)])
        assert tally_of([Delivery(batch, "rebuilt:1", "events.resolved.0", 1, 1)]).seen == {}
        assert tally_of([Delivery(batch, "resolved:1", "events.resolved.0", 1, 1)]).seen.keys() == {(name, "web")}

    async def test_a_schema_that_nobody_follows_is_in_the_plan_too(self, service: RunningService, name: str) -> None:
        schema = ParseDict({"schema": {"properties": {"sku": {"type": "string"}}}}, pb.EventSchema(name=name))
        await service.stub(IngestServiceStub).CreateEventSchema(pb.CreateEventSchemaRequest(event_schema=schema))
        event = await tracked(service, name)
        assert (event.event_count, event.schema_version, event.enforcement) == (0, 1, pb.SCHEMA_ENFORCEMENT_WARN)
        assert [(each.path, each.planned, each.event_count) for each in event.properties] == [("sku", True, 0)]
        assert name in [each.name for each in await listed(service)]
        await collect(service, track(name, {"sku": 1, "colour": "red"}))
        colour, sku = (await tracked(service, name)).properties
        assert (colour.planned, sku.planned, list(sku.unplanned_types)) == (False, True, ["integer"])

    async def test_what_is_unplanned_and_what_is_unseen_can_be_asked_for(
        self, service: RunningService, name: str
    ) -> None:
        unplanned, unseen = f"{name} unplanned", f"{name} unseen"
        for each in (unseen, name):
            schema = ParseDict({"schema": {"type": "object"}}, pb.EventSchema(name=each))
            await service.stub(IngestServiceStub).CreateEventSchema(pb.CreateEventSchemaRequest(event_schema=schema))
        await collect(service, track(name), track(unplanned))
        mine = {name, unplanned, unseen}
        by_filter = {
            only: {event.name for event in await listed(service, filter=only)} & mine
            for only in (pb.TRACKED_EVENT_FILTER_UNPLANNED, pb.TRACKED_EVENT_FILTER_UNSEEN)
        }
        assert by_filter == {
            pb.TRACKED_EVENT_FILTER_UNPLANNED: {unplanned},
            pb.TRACKED_EVENT_FILTER_UNSEEN: {unseen},
        }

    async def test_the_plan_is_listed_by_name_page_by_page(self, service: RunningService) -> None:
        names = [f"list {number:03}" for number in range(7)]
        await collect(service, *(track(each, source=f"s{number % 2}") for number, each in enumerate(names)))
        every = [event.name for event in await listed(service, page_size=2)]
        assert every == sorted(every)
        assert len(every) == len(set(every))
        assert set(names) <= set(every)
        assert [event.name for event in await listed(service, source="s1", page_size=1)] == names[1::2]

    async def test_a_name_that_nobody_sent_or_planned_is_not_found(self, service: RunningService) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await tracked(service, "nobody sends this")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


class TestLimits:
    """A flood of names does not grow the plan without end."""

    async def test_names_beyond_the_limit_are_counted_together(self, engines: Engines) -> None:
        async with running(build, Settings, engines) as service, service.database.transaction() as tx:
            plan = TrackingStore(tx)
            await plan.add({(f"n{number}", "web"): EventSeen(1, 1, 1, 1) for number in range(MAX_NAMES - 1)})
            await plan.add({(f"late{number}", "web"): EventSeen(1, 1, 2, 0) for number in range(4)})
            await plan.add({("late9", "web"): EventSeen(1, 1, 1, 0), ("n1", "web"): EventSeen(1, 5, 1, 0)})
            assert (await plan.of_name("late0", source=""))["web"].count == 2
            assert await plan.of_name("late1", source="") == {}
            assert (await plan.of_name(OTHERS, source=""))["web"].count == 7
            assert (await plan.of_name("n1", source=""))["web"].count == 2

    async def test_the_longest_names_fit_into_the_plan(self, service: RunningService) -> None:
        """Whatever the alphabet; what would not fit is counted with the others, or left out."""
        deep = {"감" * 100: {"🍊" * 100: {"귤" * 100: 1}}, "귤" * 101: 2}
        longest, too_long = "🍊" * 250, "🍊" * 251
        await collect(service, track(longest, deep, source="s" * 100), track(too_long, deep))
        event = await tracked(service, longest)
        assert event.event_count == 1
        assert [each.path for each in event.properties] == ["*", "감" * 100, "감" * 100 + "." + "🍊" * 100]
        assert OTHERS in [each.name for each in await listed(service)]

    async def test_paths_beyond_the_limit_are_left_out(self, engines: Engines) -> None:
        async with running(build, Settings, engines) as service, service.database.transaction() as tx:
            plan = TrackingStore(tx)
            for batch in range(0, MAX_PROPERTIES + 300, 100):
                await plan.add({("x", "web"): seen_of({f"p{number:05}": 1 for number in range(batch, batch + 100)})})
            await plan.add({("x", "web"): seen_of({"p00000": 1, "p99999": 1})})
            found = (await plan.of_name("x", source=""))["web"].properties
            assert len(found) == MAX_PROPERTIES
            assert found["p00000"].count == 2
