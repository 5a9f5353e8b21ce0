# SPDX-License-Identifier: Apache-2.0
"""Event schemas: kept with their versions, tried on samples, and enforced before anything is learnt."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.database import Database
from chassis.errors import Invalid
from chassis.streams import Delivery
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import ingest_pb2 as pb
from dangol.profile.v1 import profile_pb2
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.json_format import MessageToDict, ParseDict
from svc_profile.app import build
from svc_profile.domain.schemas import Enforcement, EventSchema, Judge, Violation, judges_of
from svc_profile.settings import Settings
from svc_profile.usecases.schemas import SchemaBook

ORDER = {
    "type": "object",
    "required": ["order_id", "total"],
    "properties": {
        "order_id": {"type": "string"},
        "total": {"type": "number", "minimum": 0},
        "email": {"type": "string", "format": "email"},
        "products": {"type": "array", "items": {"type": "object", "properties": {"price": {"minimum": 0}}}},
    },
}
WARN, REJECT, OFF = pb.SCHEMA_ENFORCEMENT_WARN, pb.SCHEMA_ENFORCEMENT_REJECT, pb.SCHEMA_ENFORCEMENT_OFF
START_US = 1_760_000_000_000_000

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def name() -> str:
    """Name events that only one test sends."""
    return f"주문 / Order {next(numbers)}"


def track(name: str, properties: Any, **fields: Any) -> Event:
    number = next(numbers)
    return Event(
        type=EventType.EVENT_TYPE_TRACK,
        name=name,
        properties=json.dumps(properties).encode(),
        time_us=START_US + number,
        received_time_us=START_US + number,
        **{"source": "web", "message_id": f"s{number}", "user_id": f"u{number}", **fields},
    )


async def collect(service: RunningService, *events: Event, message_id: str | None = None) -> None:
    ids = [message_id] if message_id else None
    await service.deliver(EventBatch(events=events), subject="events.collected.1", message_ids=ids)


def stub(service: RunningService) -> Any:
    return service.stub(IngestServiceStub)


def written(name: str, schema: Any = ORDER, enforcement: Any = REJECT, **fields: Any) -> pb.EventSchema:
    return ParseDict({"schema": schema}, pb.EventSchema(name=name, enforcement=enforcement, **fields))


async def create(service: RunningService, *arguments: Any, **fields: Any) -> pb.EventSchema:
    request = pb.CreateEventSchemaRequest(event_schema=written(*arguments, **fields))
    answer: pb.CreateEventSchemaResponse = await stub(service).CreateEventSchema(request)
    return answer.event_schema


async def rejected(service: RunningService, message_id: str) -> list[tuple[str, str]]:
    request = pb.ListRejectedEventsRequest(message_id=message_id)
    answer = await stub(service).ListRejectedEvents(request)
    return [(event.reason, event.detail) for event in answer.rejected_events]


async def is_known(service: RunningService, reference: str) -> bool:
    request = profile_pb2.GetProfileRequest(profile=reference)
    call = service.stub(ProfileServiceStub).GetProfile(request)
    code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND)
    return code is grpc.StatusCode.OK


async def resolved(service: RunningService, message_id: str) -> int:
    batches = await service.sent(EventBatch, "events.resolved.*")
    return sum(event.message_id == message_id for batch in batches for event in batch.events)


class TestJudging:
    """What a schema says, free of any engine."""

    def test_a_breach_names_places_and_rules_and_never_a_value(self) -> None:
        judge = Judge(ORDER, version=3)
        secret = {"total": "secret", "email": "secret", "products": [{"price": 1}, {"price": -77}]}
        assert set(judge.violations(secret)) == {
            Violation("#", "required order_id"),
            Violation("#/total", "type number"),
            Violation("#/email", "format email"),
            Violation("#/products/1/price", "minimum 0"),
        }
        breach = judge.breach(secret)
        assert breach is not None
        assert breach.detail.startswith("schema version 3: #")
        assert "secret" not in breach.detail
        assert "77" not in breach.detail

    def test_names_with_slashes_and_tildes_are_escaped(self) -> None:
        judge = Judge({"properties": {"a/b~c": {"const": 1}}})
        assert judge.violations({"a/b~c": 2}) == [Violation("#/a~1b~0c", "const 1")]

    def test_rules_inside_the_schema_may_be_referred_to(self) -> None:
        judge = Judge({"$defs": {"sku": {"pattern": "^sku-"}}, "properties": {"id": {"$ref": "#/$defs/sku"}}})
        assert judge.violations({"id": "sku-1"}) == []
        assert [violation.pointer for violation in judge.violations({"id": "x"})] == ["#/id"]

    @pytest.mark.parametrize(
        ("schema", "part"),
        [
            ({"type": "nope"}, "#/type"),
            ({"pattern": "("}, "pattern"),
            ({"pattern": "(?=look)ahead"}, "cannot be compiled"),
            ({"$ref": "https://example.com/schema.json"}, "Retrieval is disabled"),
            ({"$ref": "file:///etc/passwd"}, "Retrieval is disabled"),
            ({"$ref": "#/$defs/missing"}, "does not exist"),
            ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
            ({"description": "x" * 70_000}, "at most 65536"),
        ],
    )
    def test_a_schema_that_cannot_be_compiled_is_refused_with_the_reason(self, schema: Any, part: str) -> None:
        with pytest.raises(Invalid) as refused:
            Judge(schema)
        assert refused.value.reason == "SCHEMA_INVALID"
        assert refused.value.violations[0].field == "schema"
        assert part in refused.value.violations[0].rule

    def test_a_schema_that_cannot_be_compiled_any_more_does_not_keep_the_others_from_working(self) -> None:
        kept = [EventSchema(name, {"type": kind}, Enforcement.WARN) for name, kind in (("a", "object"), ("b", "nope"))]
        judges, broken = judges_of([*kept, EventSchema("c", {}, Enforcement.OFF)])
        assert (list(judges), broken) == (["a"], ["b"])


class TestKeeping:
    """The schemas themselves."""

    async def test_each_change_is_a_version_and_all_stay_readable(self, service: RunningService, name: str) -> None:
        first = await create(service, name, description="an order")
        assert (first.version, first.created_by, first.enforcement) == (1, "test", REJECT)
        assert MessageToDict(first.schema)["properties"]["total"]["minimum"] == 0
        change = pb.UpdateEventSchemaRequest(event_schema=pb.EventSchema(name=name, enforcement=WARN))
        second = (await stub(service).UpdateEventSchema(change)).event_schema
        assert (second.version, second.enforcement, second.description) == (2, WARN, "an order")
        words = pb.UpdateEventSchemaRequest(event_schema=pb.EventSchema(name=name))
        words.update_mask.paths.append("description")
        third = (await stub(service).UpdateEventSchema(words)).event_schema
        assert (third.version, third.description) == (2, "")
        versions = (
            await stub(service).ListEventSchemaVersions(pb.ListEventSchemaVersionsRequest(name=name))
        ).event_schemas
        assert [(each.version, each.enforcement) for each in versions] == [(2, WARN), (1, REJECT)]
        earlier = await stub(service).GetEventSchema(pb.GetEventSchemaRequest(name=name, version=1))
        assert earlier.event_schema.enforcement == REJECT

    async def test_creating_the_same_again_answers_it_and_another_is_a_conflict(
        self, service: RunningService, name: str
    ) -> None:
        assert await create(service, name) == await create(service, name)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(service, name, {"type": "object"})
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS

    async def test_a_schema_that_is_deleted_and_made_again_goes_on_counting(
        self, service: RunningService, name: str
    ) -> None:
        await create(service, name)
        await stub(service).DeleteEventSchema(pb.DeleteEventSchemaRequest(name=name))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub(service).GetEventSchema(pb.GetEventSchemaRequest(name=name))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert (await create(service, name)).version == 2

    async def test_schemas_are_listed_by_name_page_by_page(self, service: RunningService) -> None:
        names = [f"list-{next(numbers):05}" for _ in range(5)]
        for each in names:
            await create(service, each, enforcement=OFF)
        found: list[str] = []
        request = pb.ListEventSchemasRequest(page_size=2)
        while True:
            answer = await stub(service).ListEventSchemas(request)
            assert len(answer.event_schemas) <= 2
            found += [schema.name for schema in answer.event_schemas]
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        assert found == sorted(found)
        assert set(names) <= set(found)

    async def test_samples_are_tried_without_keeping_anything(self, service: RunningService, name: str) -> None:
        await create(service, name)
        request = ParseDict(
            {"name": name, "samples": [{"order_id": "1", "total": 3}, {"order_id": 7, "total": -1}]},
            pb.TestEventSchemaRequest(),
        )
        verdicts = (await stub(service).TestEventSchema(request)).verdicts
        assert [verdict.valid for verdict in verdicts] == [True, False]
        assert {(each.pointer, each.rule) for each in verdicts[1].violations} == {
            ("#/order_id", "type string"),
            ("#/total", "minimum 0"),
        }
        other = ParseDict(
            {"schema": {"maxProperties": 1}, "samples": [{}, {"a": 1, "b": 2}]}, pb.TestEventSchemaRequest()
        )
        assert [verdict.valid for verdict in (await stub(service).TestEventSchema(other)).verdicts] == [True, False]

    async def test_what_cannot_be_compiled_is_answered_with_the_reason(
        self, service: RunningService, name: str
    ) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(service, name, {"type": "text"})
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "#/type" in (refused.value.details() or "")


class TestEnforcing:
    """What becomes of events."""

    async def test_an_event_that_breaks_a_rejecting_schema_teaches_nothing(
        self, service: RunningService, name: str
    ) -> None:
        await create(service, name)
        bad, good = track(name, {"total": "geheim"}), track(name, {"order_id": "o", "total": 1})
        await collect(service, bad, good)
        assert not await is_known(service, f"user_id:{bad.user_id}")
        assert await is_known(service, f"user_id:{good.user_id}")
        assert (await resolved(service, bad.message_id), await resolved(service, good.message_id)) == (0, 1)
        ((reason, detail),) = await rejected(service, bad.message_id)
        assert reason == "SCHEMA"
        assert "#/total: type number" in detail
        assert "geheim" not in detail
        assert await rejected(service, good.message_id) == []

    async def test_an_event_that_breaks_a_warning_schema_is_learnt_and_listed(
        self, service: RunningService, name: str
    ) -> None:
        await create(service, name, enforcement=WARN)
        bad = track(name, {"total": -1, "order_id": "o"})
        await collect(service, bad)
        assert await is_known(service, f"user_id:{bad.user_id}")
        assert await resolved(service, bad.message_id) == 1
        assert await rejected(service, bad.message_id) == [("SCHEMA_WARNING", "schema version 1: #/total: minimum 0")]

    async def test_the_schema_of_identify_is_about_traits(self, service: RunningService) -> None:
        await create(service, "identify", {"properties": {"age": {"type": "integer", "minimum": 0}}})
        number = next(numbers)
        bad = Event(
            type=EventType.EVENT_TYPE_IDENTIFY,
            source="web",
            message_id=f"s{number}",
            user_id=f"u{number}",
            traits=b'{"age": -3}',
            time_us=START_US,
            received_time_us=START_US,
        )
        try:
            await collect(service, bad)
            assert not await is_known(service, f"user_id:{bad.user_id}")
            assert [reason for reason, _ in await rejected(service, bad.message_id)] == ["SCHEMA"]
        finally:
            await stub(service).DeleteEventSchema(pb.DeleteEventSchemaRequest(name="identify"))

    async def test_a_verdict_stays_whatever_becomes_of_the_schema(self, service: RunningService, name: str) -> None:
        """Neither a repetition nor a redelivery brings a rejected event back, and none doubles a listed one."""
        await create(service, name)
        bad, good = track(name, {}), track(name, {"order_id": "o", "total": 1})
        await collect(service, bad, good, message_id=f"before-{name}")
        await stub(service).DeleteEventSchema(pb.DeleteEventSchemaRequest(name=name))
        await collect(service, bad, good)
        collecting = service.service.subscriptions[0].handler
        async with service.database.transaction() as tx:
            again = Delivery(EventBatch(events=[bad, good]), f"before-{name}", "events.collected.1", 1, 2)
            await collecting(tx, [again])
            (sent,) = [EventBatch.FromString(message.payload) for message in tx.outgoing()]
        assert [event.message_id for event in sent.events] == [good.message_id]
        assert not await is_known(service, f"user_id:{bad.user_id}")
        assert len(await rejected(service, bad.message_id)) == 1
        request = profile_pb2.GetProfileRequest(profile=f"user_id:{good.user_id}")
        profile = (await service.stub(ProfileServiceStub).GetProfile(request)).profile
        assert dict(profile.event_counts) == {name: 1}

    async def test_another_process_knows_of_a_change_within_a_second(self, service: RunningService, name: str) -> None:
        """A second replica on the same database reads the schemas again by itself."""
        database = Database(service.service.settings)
        book = SchemaBook(database)
        await book.open()
        stopping = asyncio.Event()
        watching = asyncio.create_task(book.run(stopping))
        try:
            await create(service, name)
            async with asyncio.timeout(10):
                while name not in book.judges:
                    await asyncio.sleep(0.01)
        finally:
            stopping.set()
            await watching
            await database.close()


class TestRejectedLog:
    """The list of what was not taken."""

    async def test_it_is_filtered_by_time_and_source_and_leads_to_the_trace(
        self, service: RunningService, name: str
    ) -> None:
        await create(service, name)
        source = f"shop-{next(numbers)}"
        early, late = (track(name, {}, source=source), track(name, {}, source=source))
        await collect(service, early, late)
        request = pb.ListRejectedEventsRequest(source=source)
        request.start_time.FromMicroseconds(late.received_time_us)
        (found,) = (await stub(service).ListRejectedEvents(request)).rejected_events
        assert found.message_id == late.message_id
        assert found.trace == f"/v1/events/{late.message_id}:trace?source={source}"
        request = pb.ListRejectedEventsRequest(source=source)
        request.end_time.FromMicroseconds(late.received_time_us)
        (found,) = (await stub(service).ListRejectedEvents(request)).rejected_events
        assert found.message_id == early.message_id
