# SPDX-License-Identifier: Apache-2.0
"""Files of customers and events, brought in through the service's real doors."""

import asyncio
import gzip
import io
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import grpc
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chassis.bus import Bus, Outgoing
from chassis.errors import Unavailable
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1 import profile_pb2
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from dangol.profile.v1.transfer_pb2_grpc import ImportServiceStub
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer
from svc_profile.domain.imports import BATCH_ROWS
from svc_profile.settings import Settings
from svc_profile.workers.importing import ImportWorker

numbers = itertools.count()

ORDERS = pb.ImportMapping(
    columns=[
        pb.ImportColumn(column="customer", field="user_id"),
        pb.ImportColumn(column="at", field="time"),
        pb.ImportColumn(column="total", field="properties.revenue", type=pb.IMPORT_TYPE_NUMBER),
        pb.ImportColumn(column="order", field="properties.order_id"),
    ],
    constants=[pb.ImportConstant(field="name", value="Order Completed")],
    time_zone="Asia/Seoul",
)
CUSTOMERS = pb.ImportMapping(
    columns=[
        pb.ImportColumn(column="id", field="user_id"),
        pb.ImportColumn(column="E-mail", field="traits.email"),
        pb.ImportColumn(column="name", field="traits.name"),
        pb.ImportColumn(column="age", field="traits.age", type=pb.IMPORT_TYPE_NUMBER),
    ]
)
EVENTS, PEOPLE = pb.IMPORT_KIND_EVENTS, pb.IMPORT_KIND_CUSTOMERS


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, stream_max_bytes=2**28) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"i{next(numbers)}"


def stub(service: RunningService) -> Any:
    return service.stub(ImportServiceStub)


async def create(service: RunningService, kind: Any, format: Any, **fields: Any) -> str:
    request = pb.CreateImportRequest(kind=kind, format=format, **{"source": "crm", **fields})
    answer: pb.CreateImportResponse = await stub(service).CreateImport(request)
    return answer.import_job.import_id


async def upload(
    service: RunningService, import_id: str, data: bytes, *, piece: int = 1000, start: bool = True
) -> None:
    for offset in range(0, len(data), piece):
        request = pb.UploadImportChunkRequest(import_id=import_id, offset=offset, data=data[offset : offset + piece])
        await stub(service).UploadImportChunk(request)
    if start:
        await stub(service).StartImport(pb.StartImportRequest(import_id=import_id, total_bytes=len(data)))


async def job(service: RunningService, import_id: str) -> pb.ImportJob:
    answer: pb.GetImportResponse = await stub(service).GetImport(pb.GetImportRequest(import_id=import_id))
    return answer.import_job


async def ended(service: RunningService, import_id: str) -> pb.ImportJob:
    """Wait until an import is over."""
    async with asyncio.timeout(60):
        while (now := await job(service, import_id)).state in (pb.IMPORT_STATE_RUNNING, pb.IMPORT_STATE_UPLOADING):
            await asyncio.sleep(0.05)
    return now


async def imported(service: RunningService, kind: Any, format: Any, data: bytes, **fields: Any) -> pb.ImportJob:
    import_id = await create(service, kind, format, **fields)
    await upload(service, import_id, data, piece=100_000)
    return await ended(service, import_id)


async def rejects(service: RunningService, import_id: str) -> list[tuple[int, str, str]]:
    answer = await stub(service).ListImportRejects(pb.ListImportRejectsRequest(import_id=import_id))
    return [(each.row, each.field, each.rule) for each in answer.rejects]


async def profile(service: RunningService, reference: str) -> profile_pb2.Profile:
    request = profile_pb2.GetProfileRequest(profile=reference)
    answer: profile_pb2.GetProfileResponse = await service.stub(ProfileServiceStub).GetProfile(request)
    return answer.profile


def csv(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


async def test_customers_come_from_csv_with_a_mapping(service: RunningService, tag: str) -> None:
    """A byte order mark, quotes, line breaks inside a value and empty cells are what spreadsheets write."""
    rows = [
        "id,E-mail,name,age,ignored",
        f'u1-{tag},Kim.{tag}@Example.com,"김, 단골",34,x',
        f'u2-{tag},,"two\nlines",,x',
    ]
    done = await imported(service, PEOPLE, pb.IMPORT_FORMAT_CSV, b"\xef\xbb\xbf" + csv(*rows), mapping=CUSTOMERS)
    assert (done.state, done.read_rows, done.taken_events, done.rejected_rows) == (pb.IMPORT_STATE_COMPLETED, 2, 2, 0)
    assert done.read_bytes == done.received_bytes > 0
    kim = await profile(service, f"email:kim.{tag}@example.com")
    assert (kim.traits["name"], kim.traits["age"]) == ("김, 단골", 34)
    assert kim == await profile(service, f"user_id:u1-{tag}")
    assert dict((await profile(service, f"user_id:u2-{tag}")).traits) == {"name": "two\nlines"}


async def test_a_customer_without_ids_is_known_by_mail(service: RunningService, tag: str) -> None:
    mapping = pb.ImportMapping(
        columns=[pb.ImportColumn(column="mail", field="traits.email")],
        other_columns=pb.IMPORT_OTHER_COLUMNS_TRAITS,
        delimiter=";",
    )
    data = csv("mail;city", f"{tag}@example.com;Seoul", ";Busan")
    done = await imported(service, PEOPLE, pb.IMPORT_FORMAT_CSV, data, mapping=mapping)
    assert (await profile(service, f"email:{tag}@example.com")).traits["city"] == "Seoul"
    assert [row for row, _, _ in await rejects(service, done.import_id)] == [2]


async def test_broken_rows_cost_only_themselves(service: RunningService, tag: str) -> None:
    """Each is listed with its number, its field and the rule."""
    rows = [
        "customer,at,total,order",
        f"u-{tag},2024-01-01 10:00,100,o1",
        f"u-{tag},yesterday,100,o2",
        f"u-{tag},2024-01-01 10:00,a lot,o3",
        ",2024-01-01 10:00,100,o4",
        "null,2024-01-01 10:00,100,o5",
        f"u-{tag},,100,o6",
        f"u-{tag},1812-01-01,100,o7",
        f"u-{tag},2024-01-01 10:00,100",
        f"{'u' * 600},2024-01-01 10:00,100,o8",
        f"u-{tag},2024-01-02T10:00:00+09:00,50.5,o9",
    ]
    data = csv(*rows[:5]) + b"u\xff,2024-01-01,1,o0\n" + csv(*rows[5:])
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_CSV, data, mapping=ORDERS)
    assert (done.state, done.read_rows, done.taken_events, done.rejected_rows) == (pb.IMPORT_STATE_COMPLETED, 11, 2, 9)
    assert await rejects(service, done.import_id) == [
        (2, "time", "is no time that can be read"),
        (3, "properties.revenue", "must be a number"),
        (4, "user_id, anonymous_id", "one of them must tell who the customer is"),
        (5, "row", "text must be utf-8"),
        (6, "user_id, anonymous_id", "one of them must tell who the customer is"),
        (7, "time", "is required"),
        (8, "time", "must lie between 1970 and a day after the import was prepared"),
        (9, "row", "has 3 values, the header has 4"),
        (10, "user_id", "must have at most 512 characters"),
    ]
    known = await profile(service, f"user_id:u-{tag}")
    assert dict(known.revenue) == {"KRW": 150.5}
    assert known.first_seen_time.ToJsonString() == "2024-01-01T01:00:00Z"


async def test_the_same_file_brings_nothing_twice(service: RunningService, tag: str) -> None:
    """With another source, or another meaning of its columns, it is another file."""
    data = csv("customer,at,total,order", *(f"u-{tag},2024-01-01,10,o{n}" for n in range(20)))
    first = await imported(service, EVENTS, pb.IMPORT_FORMAT_CSV, data, mapping=ORDERS)
    again = await imported(service, EVENTS, pb.IMPORT_FORMAT_CSV, data, mapping=ORDERS)
    assert (first.taken_events, first.repeated_events) == (20, 0)
    assert (again.taken_events, again.repeated_events) == (0, 20)
    assert dict((await profile(service, f"user_id:u-{tag}")).revenue) == {"KRW": 200}
    other = await imported(service, EVENTS, pb.IMPORT_FORMAT_CSV, data, mapping=ORDERS, source="till")
    assert other.taken_events == 20


async def test_ndjson_reaches_into_objects(service: RunningService, tag: str) -> None:
    """Lines of JSON, gzipped; a line that is none costs only itself."""
    mapping = pb.ImportMapping(
        columns=[
            pb.ImportColumn(column="who.id", field="user_id"),
            pb.ImportColumn(column="at", field="time"),
            pb.ImportColumn(column="what", field="name"),
            pb.ImportColumn(column="id", field="message_id"),
        ],
        other_columns=pb.IMPORT_OTHER_COLUMNS_PROPERTIES,
    )
    lines = [
        {"who": {"id": 17, "x": 1}, "at": 1_700_000_000, "what": f"Played {tag}", "id": f"m-{tag}", "song": {"n": [1]}},
        {"who": {"id": 17}, "at": "2024-01-01T00:00:00Z", "what": f"Played {tag}", "id": f"m-{tag}"},
        {"who": None, "at": "2024-01-01T00:00:00Z", "what": "x"},
    ]
    text = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n\n[1]\n{"
    done = await imported(
        service, EVENTS, pb.IMPORT_FORMAT_NDJSON, gzip.compress(text), gzip=True, mapping=mapping, source=tag
    )
    assert (done.read_rows, done.taken_events, done.repeated_events, done.rejected_rows) == (5, 1, 1, 3)
    resolved = await service.sent(EventBatch, "events.resolved.*")
    event = next(event for batch in resolved for event in batch.events if event.source == tag)
    assert json.loads(event.properties) == {"song": {"n": [1]}}
    assert event.user_id == "17"


async def test_parquet_keeps_its_types(service: RunningService, tag: str) -> None:
    count = 2_500
    table = pa.table(
        {
            "customer": [f"u{n % 5}-{tag}" for n in range(count)],
            "at": pa.array([1_700_000_000_000_000_000 + n for n in range(count)], pa.timestamp("ns")),
            "total": pa.array([n / 2 for n in range(count)], pa.float64()),
            "order": pa.array(list(range(count)), pa.int64()),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=700)
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_PARQUET, file.getvalue(), mapping=ORDERS)
    assert (done.state, done.read_rows, done.taken_events) == (pb.IMPORT_STATE_COMPLETED, count, count)
    known = [await profile(service, f"user_id:u{n}-{tag}") for n in range(5)]
    assert sum(each.revenue["KRW"] for each in known) == sum(n / 2 for n in range(count))


async def test_an_archive_of_segment_needs_no_mapping(service: RunningService, tag: str) -> None:
    """`timestamp` is what Segment corrected; what was received by Segment keeps its time."""
    common = {"receivedAt": "2023-05-01T10:00:05.000Z", "sentAt": "2023-05-01T11:00:04Z", "channel": "client"}
    messages = [
        {
            "type": "identify", "messageId": f"a-{tag}", "anonymousId": f"d-{tag}", "userId": f"u-{tag}",
            "timestamp": "2023-05-01T10:00:01.000Z", "originalTimestamp": "2023-05-01T11:00:00.000Z",
            "traits": {"plan": "gold"}, "context": {"traits": {"city": "Seoul"}}, **common,
        },
        {
            "type": "track", "messageId": f"b-{tag}", "userId": f"u-{tag}", "event": "Order Completed",
            "timestamp": "2023-05-01T10:00:02.000Z", "properties": {"revenue": 25, "currency": "USD"}, **common,
        },
        {"type": "page", "messageId": f"c-{tag}", "anonymousId": f"d-{tag}", "name": "Home", **common},
        {"type": "track", "messageId": f"d-{tag}", "userId": f"u-{tag}", **common},
    ]  # fmt: skip
    data = gzip.compress(b"\n".join(json.dumps(message).encode() for message in messages))
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_SEGMENT_ARCHIVE, data, gzip=True)
    assert (done.read_rows, done.taken_events, done.rejected_rows) == (4, 3, 1)
    known = await profile(service, f"anonymous_id:d-{tag}")
    assert dict(known.event_counts) == {"identify": 1, "Order Completed": 1, "page": 1}
    assert dict(known.traits) == {"plan": "gold", "city": "Seoul"}
    assert dict(known.revenue) == {"USD": 25}
    assert known.first_seen_time.ToJsonString() == "2023-05-01T10:00:01Z"


async def test_a_backup_of_rudderstack_holds_events_or_whole_requests(service: RunningService, tag: str) -> None:
    def message(number: int, **fields: Any) -> dict[str, Any]:
        return {
            "type": "track", "messageId": f"m{number}-{tag}", "userId": f"u-{tag}", "event": "Product Viewed",
            "originalTimestamp": "2024-02-01T00:00:00Z", "sentAt": "2024-02-01T00:00:01Z", **fields,
        }  # fmt: skip

    lines = [
        {"userId": f"u-{tag}", "payload": message(1), "createdAt": "2024-02-01T00:00:02Z", "messageId": f"m1-{tag}"},
        {"payload": {"batch": [message(2), message(3, event=""), message(4)], "receivedAt": "2024-02-01T00:00:02Z"}},
        {"event_payload": message(5), "createdAt": "2024-02-01T00:00:02Z"},
        message(6, receivedAt="2024-02-01T00:00:02Z"),
        {"payload": 1},
    ]
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_RUDDERSTACK_ARCHIVE, data)
    assert (done.read_rows, done.taken_events, done.rejected_rows) == (5, 5, 2)
    assert [row for row, _, _ in await rejects(service, done.import_id)] == [2, 5]
    assert dict((await profile(service, f"user_id:u-{tag}")).event_counts) == {"Product Viewed": 5}
    assert (await profile(service, f"user_id:u-{tag}")).first_seen_time.ToJsonString() == "2024-02-01T00:00:01Z"


async def test_archives_are_repaired_as_the_gateway_does(service: RunningService, tag: str) -> None:
    """Empty lists of PHP are empty objects, half an emoji is no emoji, and a bad event costs only itself."""
    common = {"userId": f"u-{tag}", "timestamp": "2023-05-01T10:00:02.000Z"}
    viewed = {"type": "track", "event": "Product Viewed", **common}
    identified = {"type": "identify", "messageId": f"a-{tag}", "traits": [], "context": [], **common}
    lines = [identified, {**viewed, "messageId": f"b-{tag}", "properties": {"note": "\ud83d", "score": float("nan")}}]
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_SEGMENT_ARCHIVE, data)
    assert (done.taken_events, done.rejected_rows) == (2, 0)
    bad = {**viewed, "properties": "none"}
    request = {"batch": [bad, 7, {**viewed, "messageId": f"c-{tag}", "properties": []}]}
    data = json.dumps({"payload": request}).encode()
    done = await imported(service, EVENTS, pb.IMPORT_FORMAT_RUDDERSTACK_ARCHIVE, data)
    assert (done.read_rows, done.taken_events, done.rejected_rows) == (1, 1, 2)
    assert "$.properties" in (await rejects(service, done.import_id))[0][2]
    assert dict((await profile(service, f"user_id:u-{tag}")).event_counts) == {"identify": 1, "Product Viewed": 2}
    data = json.dumps({**viewed, "userId": f"u\x00-{tag}", "messageId": f"d-{tag}"}).encode()
    await imported(service, EVENTS, pb.IMPORT_FORMAT_SEGMENT_ARCHIVE, data)
    assert dict((await profile(service, f"user_id:u\ufffd-{tag}")).event_counts) == {"Product Viewed": 1}
    joined = {**common, "type": "group", "groupId": f"g\x00-{tag}", "messageId": f"e-{tag}"}
    data = json.dumps(joined).encode()
    assert (await imported(service, EVENTS, pb.IMPORT_FORMAT_SEGMENT_ARCHIVE, data)).rejected_rows == 0
    assert list((await profile(service, f"user_id:u-{tag}")).groups) == [f"g\ufffd-{tag}"]


async def test_an_upload_goes_on_where_it_stopped(service: RunningService, tag: str) -> None:
    """Bytes may come again, may overlap, and may not leave a gap."""
    data = csv("customer,at,total,order", *(f"u-{tag},2024-01-01,1,o{n}" for n in range(50)))
    import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)

    async def send(start: int, end: int) -> int:
        request = pb.UploadImportChunkRequest(import_id=import_id, offset=start, data=data[start:end])
        answer: pb.UploadImportChunkResponse = await stub(service).UploadImportChunk(request)
        return answer.received_bytes

    assert await send(0, 100) == await send(0, 100) == 100
    assert await send(50, 200) == 200
    with pytest.raises(grpc.aio.AioRpcError, match="has 200 bytes so far"):
        await send(201, 300)
    with pytest.raises(grpc.aio.AioRpcError, match="200 of"):
        await stub(service).StartImport(pb.StartImportRequest(import_id=import_id, total_bytes=len(data)))
    assert (await job(service, import_id)).received_bytes == 200
    assert await send(200, len(data)) == len(data)
    for _ in range(2):
        await stub(service).StartImport(pb.StartImportRequest(import_id=import_id, total_bytes=len(data)))
    assert (await ended(service, import_id)).taken_events == 50
    assert dict((await profile(service, f"user_id:u-{tag}")).revenue) == {"KRW": 50}


async def test_a_paused_import_goes_on_and_a_cancelled_one_never(service: RunningService, tag: str) -> None:
    rows = BATCH_ROWS + 6_000
    data = csv("customer,at,total,order", *(f"u{n % 100}-{tag},2024-01-01,1,o{n}" for n in range(rows)))
    import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)
    await upload(service, import_id, data, piece=2**20)
    await stub(service).PauseImport(pb.PauseImportRequest(import_id=import_id))
    paused = await job(service, import_id)
    assert paused.state == pb.IMPORT_STATE_PAUSED
    await stub(service).ResumeImport(pb.ResumeImportRequest(import_id=import_id))
    done = await ended(service, import_id)
    assert (done.state, done.read_rows) == (pb.IMPORT_STATE_COMPLETED, rows)
    # What a batch had learnt when it was paused is known when it is done again.
    assert sum([(await profile(service, f"user_id:u{n}-{tag}")).revenue["KRW"] for n in range(100)]) == rows
    with pytest.raises(grpc.aio.AioRpcError, match="is completed cannot become cancelled"):
        await stub(service).CancelImport(pb.CancelImportRequest(import_id=import_id))
    other = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)
    await upload(service, other, data[:1000], start=False)
    await stub(service).CancelImport(pb.CancelImportRequest(import_id=other))
    with pytest.raises(grpc.aio.AioRpcError, match="is cancelled cannot become running"):
        await stub(service).ResumeImport(pb.ResumeImportRequest(import_id=other))
    async with service.database.snapshot() as tx:
        assert not await tx.value("SELECT count(*) FROM import_chunks")


@pytest.mark.parametrize(
    ("format", "data", "fields", "why"),
    [
        (pb.IMPORT_FORMAT_CSV, b"a,b\n1,2\n", {"mapping": ORDERS}, "the file has no column customer"),
        (pb.IMPORT_FORMAT_CSV, b"no gzip", {"mapping": ORDERS, "gzip": True}, "is no complete gzip"),
        (pb.IMPORT_FORMAT_CSV, gzip.compress(b"customer,at,total,order\n" * 9, mtime=0)[:-9],
         {"mapping": ORDERS, "gzip": True}, "is no complete gzip"),
        (pb.IMPORT_FORMAT_PARQUET, b"PAR1 is not enough", {"mapping": ORDERS}, "is no readable Parquet"),
    ],
)  # fmt: skip
async def test_a_file_that_cannot_be_read_fails_in_words(
    service: RunningService, format: int, data: bytes, fields: dict[str, Any], why: str
) -> None:
    done = await imported(service, EVENTS, format, data, **fields)
    assert done.state == pb.IMPORT_STATE_FAILED
    assert why in done.failure


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"mapping": pb.ImportMapping()}, "mapping.columns"),
        ({"mapping": pb.ImportMapping(columns=[pb.ImportColumn(column="a", field="nonsense")])}, "mapping.columns"),
        ({"mapping": ORDERS, "source": "No Source"}, "source"),
        ({"mapping": ORDERS, "source": "privacy"}, "source"),
        ({"mapping": ORDERS, "format": 0}, "format"),
        ({"mapping": ORDERS, "format": pb.IMPORT_FORMAT_PARQUET, "gzip": True}, "gzip"),
        ({"mapping": ORDERS, "format": pb.IMPORT_FORMAT_SEGMENT_ARCHIVE}, "mapping"),
    ],
)
async def test_an_import_that_cannot_work_is_refused_at_once(
    service: RunningService, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=named) as refused:
        await create(service, EVENTS, **{"format": pb.IMPORT_FORMAT_CSV, **fields})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_zone_that_nobody_knows_is_refused(service: RunningService) -> None:
    mapping = pb.ImportMapping()
    mapping.CopyFrom(ORDERS)
    mapping.time_zone = "Mars/Olympus"
    with pytest.raises(grpc.aio.AioRpcError, match="time_zone"):
        await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=mapping)


async def test_a_repeated_request_makes_one_import(service: RunningService, tag: str) -> None:
    first = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS, request_id=tag)
    assert await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS, request_id=tag) == first
    with pytest.raises(grpc.aio.AioRpcError, match="request_id"):
        await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS, request_id=tag, source="else")
    page = await stub(service).ListImports(pb.ListImportsRequest(page_size=1))
    assert [each.import_id for each in page.import_jobs] == [first]
    rest = await stub(service).ListImports(pb.ListImportsRequest(page_token=page.next_page_token))
    assert first not in [each.import_id for each in rest.import_jobs]


class BrokenBus(Bus):
    """A broker that stores nothing, as a process sees it that dies between its commit and its announcement."""

    async def publish_all(self, messages: Iterable[Outgoing]) -> None:
        """Fail."""
        raise Unavailable("the process is gone")


@pytest.mark.parametrize("attempts", [1, 3])
async def test_what_was_committed_and_not_announced_is_announced_later(engines: Engines, attempts: int) -> None:
    """Profiles learnt once, and each event is resolved once, however often a process died in between."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        rows = BATCH_ROWS + 1_000
        data = csv("customer,at,total,order", *(f"u{n % 50},2024-01-01,1,o{n}" for n in range(rows)))
        import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)
        await upload(service, import_id, data, piece=2**20)
        for _ in range(attempts):
            await work(service, BrokenBus(service.service.settings, "broken"), lambda: learnt(service))
        assert (await job(service, import_id)).read_rows == 0
        assert not await service.sent(EventBatch, "events.resolved.*")
        await work(service, service.bus, lambda: is_over(service, import_id))
        done = await job(service, import_id)
        assert (done.state, done.taken_events, done.repeated_events) == (pb.IMPORT_STATE_COMPLETED, rows, 0)
        assert done.rows_per_second > 0
        assert {(await profile(service, f"user_id:u{n}")).revenue["KRW"] for n in range(50)} == {rows / 50}
        resolved = [e.message_id for batch in await service.sent(EventBatch, "events.resolved.*") for e in batch.events]
        assert len(resolved) == len(set(resolved)) == rows


async def work(service: RunningService, bus: Bus, until: Callable[[], Awaitable[bool]]) -> None:
    """Let a worker work until something is so."""
    settings, database = service.service.settings, service.database
    assert isinstance(settings, Settings)
    namer = Namer(settings.identity())
    if bus is not service.bus:
        await bus.open()
    stopping = asyncio.Event()
    worker = asyncio.create_task(ImportWorker(database, bus, Collecting(namer).learn, settings, namer).run(stopping))
    async with asyncio.timeout(60):
        while not await until():
            await asyncio.sleep(0.02)
    stopping.set()
    await worker
    if bus is not service.bus:
        await bus.close()


async def learnt(service: RunningService) -> bool:
    async with service.database.snapshot() as tx:
        return bool(await tx.value("SELECT EXISTS (SELECT FROM events)"))


async def is_over(service: RunningService, import_id: str) -> bool:
    return (await job(service, import_id)).state != pb.IMPORT_STATE_RUNNING


async def test_an_import_waits_while_the_stream_is_full(engines: Engines) -> None:
    """What happens now has the right of way; the import goes on when there is room."""
    async with running(build, Settings, engines, stream_max_bytes=2**21) as service:
        for number in range(20):
            await service.bus.publish("events.rejected", b"", message_id=f"{number}")
            await service.bus.publish("events.replay.x", bytes(2**16), message_id=f"x{number}")
        data = csv("customer,at,total,order", *(f"u{n % 50},2024-01-01,1,o{n}" for n in range(100)))
        import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)
        await upload(service, import_id, data, piece=2**20)
        async with service.database.snapshot() as tx:
            async with asyncio.timeout(30):
                while not await tx.value("SELECT file_key FROM import_jobs"):
                    await asyncio.sleep(0.02)
        assert (await job(service, import_id)).read_rows == 0
        await service.bus.jetstream.purge_stream(service.bus.stream("EVENTS"))
        assert (await ended(service, import_id)).taken_events == 100


async def test_a_file_that_kills_its_process_again_and_again_is_given_up(service: RunningService, tag: str) -> None:
    """Until somebody resumes it, it takes nobody's time; resumed, it is tried anew."""
    data = csv("customer,at,total,order", f"u-{tag},2024-01-01,1,o1")
    import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS, source=tag)
    await upload(service, import_id, data, start=False)
    async with service.database.transaction() as tx:
        await tx.execute("UPDATE import_jobs SET state = 2, attempts = :n WHERE import_id = :id", n=99, id=import_id)
    failed = await ended(service, import_id)
    assert failed.state == pb.IMPORT_STATE_FAILED
    assert "were tried" in failed.failure
    await stub(service).ResumeImport(pb.ResumeImportRequest(import_id=import_id))
    assert (await ended(service, import_id)).taken_events == 1


def parsers() -> list[psutil.Process]:
    """Find the processes that parse for this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        # One that has just ended has no command line any more.
        with suppress(psutil.Error):
            if "svc_profile.workers.parsing" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def parser_at_work() -> psutil.Process:
    async with asyncio.timeout(30):
        while not (found := parsers()):
            await asyncio.sleep(0.005)
    return found[0]


async def test_a_file_is_parsed_apart_without_a_secret_and_goes_on_when_its_parser_is_killed(
    service: RunningService, tag: str
) -> None:
    os.environ["DANGOL_SECRET_OF_THIS_TEST"] = "nobody-who-parses-needs-this"
    rows = BATCH_ROWS + 2_000
    data = csv("customer,at,total,order", *(f"u{n % 100}-{tag},2024-01-01,1,o{n}" for n in range(rows)))
    import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS)
    await upload(service, import_id, data, piece=2**20)
    parser = await parser_at_work()
    del os.environ["DANGOL_SECRET_OF_THIS_TEST"]
    assert not [name for name in parser.environ() if name.startswith("DANGOL_")]
    parser.kill()
    done = await ended(service, import_id)
    assert (done.state, done.read_rows, done.rejected_rows) == (pb.IMPORT_STATE_COMPLETED, rows, 0)
    assert sum([(await profile(service, f"user_id:u{n}-{tag}")).revenue["KRW"] for n in range(100)]) == rows
    async with asyncio.timeout(10):
        while parsers():
            await asyncio.sleep(0.01)


async def test_a_parser_ends_with_the_process_that_it_parses_for() -> None:
    """Also with one that is killed: then nobody is left to end it."""
    script = """
import asyncio, sys
from svc_profile.domain.imports import ImportJob, ImportPlan, Progress, State
from svc_profile.wire.parsing import Task
from svc_profile.workers.parsing import Parser

async def main():
    plan = ImportPlan("imp_1", 2, 2, False, "crm", b"")
    job = ImportJob(plan, State.RUNNING, Progress(received_bytes=1), 0, None, "", 10, "file-1")
    async def fetch(offset):
        print(parser._process.pid, flush=True)
        await asyncio.Event().wait()
    parser = await Parser.start(Task(job, (), 1), fetch)
    await parser.next()

asyncio.run(main())
"""
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert service.stdout is not None
    parser = psutil.Process(int(await service.stdout.readline()))
    service.kill()
    await service.wait()
    await asyncio.to_thread(parser.wait, 10)


async def test_an_upload_that_nobody_went_on_with_is_forgotten(service: RunningService, tag: str) -> None:
    """First its file, and when its time is over the import itself, with its rejected rows."""
    import_id = await create(service, EVENTS, pb.IMPORT_FORMAT_CSV, mapping=ORDERS, source=tag)
    await upload(service, import_id, b"customer", start=False)
    forget = next(each for each in service.service.jobs if each.name == "forget-imports")
    await forget.run()
    assert (await job(service, import_id)).state == pb.IMPORT_STATE_UPLOADING
    await age(service, import_id, "create_time_us", days=8)
    await forget.run()
    assert (await job(service, import_id)).state == pb.IMPORT_STATE_CANCELLED
    async with service.database.snapshot() as tx:
        assert not await tx.value("SELECT count(*) FROM import_chunks WHERE import_id = :id", id=import_id)
    await age(service, import_id, "end_time_us", days=91)
    await forget.run()
    with pytest.raises(grpc.aio.AioRpcError, match="no such import"):
        await job(service, import_id)


async def age(service: RunningService, import_id: str, column: str, *, days: int) -> None:
    """Let something have happened some days earlier."""
    past = {"create_time_us": "create_time_us = create_time_us - :us", "end_time_us": "end_time_us = end_time_us - :us"}
    async with service.database.transaction() as tx:
        update = f"UPDATE import_jobs SET {past[column]} WHERE import_id = :id"
        await tx.execute(update, us=days * 86_400_000_000, id=import_id)
