# SPDX-License-Identifier: Apache-2.0
"""Files of customers, taken out through the service's real doors."""

import asyncio
import csv
import io
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
from chassis.identity import parse_profile_id
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import consent_pb2
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.transfer_pb2_grpc import ExportServiceStub
from dangol.segmentation.v1 import segmentation_pb2
from svc_profile.app import build
from svc_profile.settings import Settings
from svc_profile.store.personal import personal_tables
from svc_profile.wire.exporting import DraftWriter, ParquetWriter
from svc_profile.workers.exporting import ExportWorker

START_US = 1_760_000_000_000_000
numbers = itertools.count()
ALL = [
    pb.EXPORT_FIELD_IDENTIFIERS, pb.EXPORT_FIELD_TIMES, pb.EXPORT_FIELD_TRAITS, pb.EXPORT_FIELD_EVENT_COUNTS,
    pb.EXPORT_FIELD_REVENUE, pb.EXPORT_FIELD_GROUPS, pb.EXPORT_FIELD_CONSENTS, pb.EXPORT_FIELD_COMPUTED_TRAITS,
]  # fmt: skip


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"x{next(numbers)}"


def event(kind: str, *, traits: Any = None, properties: Any = None, **fields: Any) -> Event:
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US,
        received_time_us=START_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


def stub(service: RunningService, scopes: Sequence[str] = ("*",)) -> Any:
    return service.stub(ExportServiceStub, scopes)


async def exported(service: RunningService, **fields: Any) -> tuple[pb.ExportJob, bytes]:
    """Run an export to its end, and return its file."""
    request = pb.CreateExportRequest(**{"format": pb.EXPORT_FORMAT_CSV, "fields": ALL, **fields})
    export_id = (await stub(service).CreateExport(request)).export_job.export_id
    async with asyncio.timeout(30):
        while (job := await get(service, export_id)).state == pb.EXPORT_STATE_RUNNING:
            await asyncio.sleep(0.02)
    assert job.state == pb.EXPORT_STATE_COMPLETED, job
    return job, await download(service, export_id)


async def get(service: RunningService, export_id: str) -> pb.ExportJob:
    answer: pb.GetExportResponse = await stub(service).GetExport(pb.GetExportRequest(export_id=export_id))
    return answer.export_job


async def download(service: RunningService, export_id: str, scopes: Sequence[str] = ("*",)) -> bytes:
    data = b""
    while True:
        request = pb.DownloadExportChunkRequest(export_id=export_id, offset=len(data))
        chunk: pb.DownloadExportChunkResponse = await stub(service, scopes).DownloadExportChunk(request)
        if not chunk.data:
            assert chunk.file_bytes == len(data)
            return data
        data += chunk.data


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


async def test_customers_go_into_a_csv_as_one_person_each(service: RunningService, tag: str) -> None:
    """Two ids of one customer are one row; a spreadsheet reads Korean and runs no formula."""
    await collect(
        service,
        event("identify", user_id=f"u-{tag}", anonymous_id=f"d-{tag}", traits={
            "email": f"{tag}@example.com", "phone": "+82 10-9000-1000", "name": "김단골", "note": "=1+1", "age": 34,
        }),
        event("track", user_id=f"u-{tag}", name="Order Completed", properties={"revenue": 12.5}),
    )  # fmt: skip
    job, data = await exported(
        service, profiles=[f"user_id:u-{tag}", f"anonymous_id:d-{tag}"], trait_names=["note", "age", "none"],
        byte_order_mark=True,
    )  # fmt: skip
    assert data.startswith(b"\xef\xbb\xbf")
    (row,) = rows(data)
    assert (row["user_id"], row["anonymous_id"], row["email"]) == (f"u-{tag}", f"d-{tag}", f"{tag}@example.com")
    assert (row["trait.note"], row["trait.age"], row["trait.none"]) == ("'=1+1", "34", "")
    assert row["phone"] == "+821090001000"
    assert json.loads(row["traits"])["name"] == "김단골"
    assert json.loads(row["event_counts"]) == {"identify": 1, "Order Completed": 1}
    assert json.loads(row["revenue"]) == {"KRW": "12.5"}
    assert json.loads(row["consents"])["analytics"] is True
    assert row["first_seen_time"] == "2025-10-09T08:53:20.000Z"
    assert (job.written_profiles, job.file_bytes) == (1, len(data))


@pytest.mark.parametrize("format", [pb.EXPORT_FORMAT_CSV, pb.EXPORT_FORMAT_PARQUET])
async def test_a_trait_may_be_called_like_a_time_of_the_customer(
    service: RunningService, tag: str, format: int
) -> None:
    """It is what the customer's system wrote, text or any number."""
    await collect(
        service,
        event("identify", user_id=f"a-{tag}", traits={"last_seen_time": "어제", "shop_seen_time": 10**20}),
        event("identify", user_id=f"b-{tag}", traits={"last_seen_time": 7}),
    )
    _, data = await exported(
        service, format=format, fields=[pb.EXPORT_FIELD_TIMES], trait_names=["last_seen_time", "shop_seen_time"],
        profiles=[f"user_id:a-{tag}", f"user_id:b-{tag}"],
    )  # fmt: skip
    found = rows(data) if format == pb.EXPORT_FORMAT_CSV else pq.read_table(io.BytesIO(data)).to_pylist()
    assert {row["trait.last_seen_time"] for row in found} == {"어제", "7"}
    assert {row["trait.shop_seen_time"] or "" for row in found} == {"", str(10**20)}


async def test_all_customers_go_into_parquet(service: RunningService, tag: str) -> None:
    """Gathered batch by batch, each customer once."""
    count = 2_300
    events = [event("identify", user_id=f"u{n}-{tag}", traits={"age": n}) for n in range(count)]
    for start in range(0, count, 500):
        await collect(service, *events[start : start + 500])
    job, data = await exported(service, format=pb.EXPORT_FORMAT_PARQUET, trait_names=["age"])
    file = pq.ParquetFile(io.BytesIO(data))
    table = file.read().to_pydict()
    ours = {
        ids[0]: age
        for ids, age in zip(table["user_id"], table["trait.age"], strict=True)
        if ids and ids[0].endswith(f"-{tag}")
    }
    assert ours == {f"u{n}-{tag}": str(n) for n in range(count)}
    assert file.num_row_groups == 1
    assert len(set(table["profile_id"])) == file.metadata.num_rows == job.written_profiles == job.total_profiles


async def test_pseudonyms_hide_who_somebody_is(service: RunningService, tag: str) -> None:
    """The same customer has one pseudonym within an export and another in the next; personal traits are left out."""
    traits = {
        "email": f"{tag}@example.com", "name": "Kim", "plan": "gold", "contact": {"city": "Seoul"},
        "billing": {"e_mail": "x", "other": f"{tag}@example.org", "level": 3}, "tel2": "010-1234-5678",
    }  # fmt: skip
    await collect(service, event("identify", user_id=f"u-{tag}", traits=traits))
    await collect(service, event("group", user_id=f"u-{tag}", group_id=f"g-{tag}"))
    files = [
        (await exported(service, profiles=[f"user_id:u-{tag}"], pseudonymise=True, trait_names=["name", "plan"]))[1]
        for _ in range(2)
    ]
    first, second = (rows(data)[0] for data in files)
    assert tag not in files[0].decode()
    assert json.loads(first["traits"]) == {"plan": "gold", "billing": {"level": 3}}
    assert (first["trait.name"], first["trait.plan"]) == ("", "gold")
    assert first["first_seen_time"].endswith("T00:00:00.000Z")
    for name in ("profile_id", "user_id", "email", "groups"):
        assert len(first[name]) == 32
        assert first[name] != second[name]
    async with service.database.snapshot() as tx:
        assert not await tx.value("SELECT count(*) FROM export_jobs WHERE state <> 1 AND key <> ''")


async def test_an_audience_holds_only_who_agreed(service: RunningService, tag: str) -> None:
    """Marketing is denied until it is granted, and a withdrawn consent takes effect."""
    people = [f"user_id:u{n}-{tag}" for n in range(3)]
    await collect(service, *(event("identify", user_id=f"u{n}-{tag}") for n in range(3)))
    for person in people[:2]:
        await decide(service, person, consent_pb2.CONSENT_ANSWER_GRANTED)
    await decide(service, people[1], consent_pb2.CONSENT_ANSWER_WITHDRAWN)
    job, data = await exported(service, profiles=people, purpose="marketing_email")
    assert [row["user_id"] for row in rows(data)] == [f"u0-{tag}"]
    assert (job.written_profiles, job.withheld_profiles) == (1, 2)
    with pytest.raises(grpc.aio.AioRpcError, match="purpose"):
        await exported(service, purpose="nonsense")


async def decide(service: RunningService, person: str, answer: Any) -> None:
    decision = consent_pb2.ConsentDecision(purpose_id="marketing_email", answer=answer)
    request = consent_pb2.RecordConsentRequest(profile=person, decisions=[decision], channel="web")
    await service.stub(ConsentServiceStub).RecordConsent(request)


async def test_a_segment_is_what_was_heard_of_it(service: RunningService, tag: str) -> None:
    await collect(service, *(event("identify", user_id=f"u{n}-{tag}") for n in range(3)))
    _, everybody = await exported(service, profiles=[f"user_id:u{n}-{tag}" for n in range(3)])
    ids = {row["user_id"]: row["profile_id"] for row in rows(everybody)}
    members = [ids[f"u{n}-{tag}"] for n in range(2)]
    segment_id = f"seg_{tag}"
    await service.deliver(*heard(segment_id, members))
    job, data = await exported(service, segment_id=segment_id)
    assert {row["profile_id"] for row in rows(data)} == set(members)
    assert job.total_profiles == 2
    with pytest.raises(grpc.aio.AioRpcError, match="segment"):
        await exported(service, segment_id="seg_nobody")


def heard(segment_id: str, members: Sequence[str]) -> list[Any]:
    """Say what svc-segmentation says of a segment and its members."""
    changed = segmentation_pb2.MembershipsChanged()
    for number, written in enumerate(members):
        profile_id = parse_profile_id(written).bytes
        change = changed.changes.add(segment_id=segment_id, segment_name=segment_id, profile_id=profile_id)
        change.member, change.revision = True, number + 1
        change.change_time.FromMicroseconds(START_US)
    return [changed]


async def test_who_may_not_see_names_gets_pseudonyms_or_nothing(service: RunningService, tag: str) -> None:
    await collect(service, event("identify", user_id=f"u-{tag}"))
    job, _ = await exported(service, profiles=[f"user_id:u-{tag}"])
    some = ("exports.write", "exports.file")
    request = pb.CreateExportRequest(format=pb.EXPORT_FORMAT_CSV, fields=[pb.EXPORT_FIELD_TRAITS])
    with pytest.raises(grpc.aio.AioRpcError, match=r"profile\.pii"):
        await stub(service, some).CreateExport(request)
    with pytest.raises(grpc.aio.AioRpcError, match=r"profile\.pii"):
        await download(service, job.export_id, some)
    request.pseudonymise = True
    assert (await stub(service, some).CreateExport(request)).export_job.pseudonymise


async def test_a_file_goes_when_its_time_is_over(service: RunningService, tag: str) -> None:
    await collect(service, event("identify", user_id=f"u-{tag}"))
    job, _ = await exported(service, profiles=[f"user_id:u-{tag}"])
    await stub(service).CancelExport(pb.CancelExportRequest(export_id=job.export_id))
    with pytest.raises(grpc.aio.AioRpcError, match="cancelled has no file"):
        await download(service, job.export_id)
    other, _ = await exported(service, profiles=[f"user_id:u-{tag}"])
    async with service.database.transaction() as tx:
        await tx.execute("UPDATE export_jobs SET expire_time_us = 1 WHERE export_id = :id", id=other.export_id)
    job_of = {runner.name: runner for runner in service.service.jobs}
    await job_of["forget-exports"].run()
    assert (await get(service, other.export_id)).state == pb.EXPORT_STATE_EXPIRED
    with pytest.raises(grpc.aio.AioRpcError, match="expired has no file"):
        await download(service, other.export_id)


async def test_a_file_goes_when_somebody_in_it_is_erased(service: RunningService, tag: str) -> None:
    """As a whole, because a file cannot lose one line; the files of others stay."""
    await collect(service, *(event("identify", user_id=f"u{n}-{tag}") for n in range(2)))
    job, data = await exported(service, profiles=[f"user_id:u0-{tag}", f"user_id:u1-{tag}"])
    other, _ = await exported(service, profiles=[f"user_id:u1-{tag}"])
    (gone,) = [parse_profile_id(row["profile_id"]) for row in rows(data) if row["user_id"] == f"u0-{tag}"]
    async with service.database.transaction() as tx:
        await personal_tables().erase(tx, [gone])
    assert (await get(service, job.export_id)).state == pb.EXPORT_STATE_EXPIRED
    assert await download(service, other.export_id)
    async with service.database.snapshot() as tx:
        assert not await tx.value("SELECT count(*) FROM export_chunks WHERE export_id = :id", id=job.export_id)


def test_a_parquet_file_has_its_rows_in_large_groups() -> None:
    """However small the drafts are that it is made of."""
    columns = ["profile_id", "groups"]
    drafts, writer = DraftWriter(columns), ParquetWriter(columns)
    rows = [[f"prf_{n}", ["a", "b"][: n % 3]] for n in range(45_500)]
    pieces = [writer.add(drafts.write(rows[start : start + 1_000])) for start in range(0, len(rows), 1_000)]
    assert [n for n, piece in enumerate(pieces) if piece] == [19, 39]
    file = pq.ParquetFile(io.BytesIO(b"".join([*pieces, writer.end()])))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [20_000, 20_000, 5_500]
    read = file.read().to_pydict()
    assert list(zip(*read.values(), strict=True)) == list(map(tuple, rows))


def worker_of(service: RunningService) -> ExportWorker:
    """Return a worker as another process would have it."""
    settings = service.service.settings
    assert isinstance(settings, Settings)
    return ExportWorker(service.database, settings, settings.identity().types)


class _StopsAfter(asyncio.Event):
    """Tells its worker to stop at the n-th time that it looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    async def wait(self) -> Any:
        """Let nobody wait between two looks."""


@pytest.mark.parametrize("format", [pb.EXPORT_FORMAT_CSV, pb.EXPORT_FORMAT_PARQUET])
async def test_an_export_that_is_stopped_anywhere_is_finished_by_another(engines: Engines, format: Any) -> None:
    """It goes on behind the last batch, so that each customer is in the file once and no batch is read again."""
    async with running(build, Settings, engines, ("rpc", "consumers")) as service:
        for start in range(0, 2_500, 500):
            await collect(service, *(event("identify", user_id=f"u{n}") for n in range(start, start + 500)))
        files, states = [], []
        for looks in range(1, 12):
            request = pb.CreateExportRequest(format=format, fields=ALL)
            export_id = (await stub(service).CreateExport(request)).export_job.export_id
            await worker_of(service).run(_StopsAfter(looks))
            left = await get(service, export_id)
            states.append((left.state, left.written_profiles))
            if left.state == pb.EXPORT_STATE_RUNNING:
                await worker_of(service).run(_StopsAfter(12))
            done = await get(service, export_id)
            assert (done.state, done.written_profiles) == (pb.EXPORT_STATE_COMPLETED, 2_500)
            files.append(await download(service, export_id))
            async with service.database.snapshot() as tx:
                assert not await tx.value("SELECT count(*) FROM export_drafts")
    assert set(files) == {files[0]}
    assert {written for _, written in states} == {0, 1_000, 2_000, 2_500}
    assert states[-1][0] == pb.EXPORT_STATE_COMPLETED
    if format == pb.EXPORT_FORMAT_PARQUET:
        # Also while the file was made of what had been gathered.
        assert (pb.EXPORT_STATE_RUNNING, 2_500) in states
        assert pq.read_table(io.BytesIO(files[0])).num_rows == 2_500


async def test_an_export_begins_again_without_who_is_erased_while_it_is_made(engines: Engines) -> None:
    """Gathered rows name customers as a file does."""
    async with running(build, Settings, engines, ("rpc", "consumers")) as service:
        await collect(service, *(event("identify", user_id=f"u{n}") for n in range(3)))
        worker = worker_of(service)
        request = pb.CreateExportRequest(format=pb.EXPORT_FORMAT_PARQUET, fields=ALL)
        export_id = (await stub(service).CreateExport(request)).export_job.export_id
        await worker.run(_StopsAfter(2))
        assert (await get(service, export_id)).written_profiles == 3
        gone = service.service.settings.identity().resolve("user_id:u1")
        async with service.database.transaction() as tx:
            await personal_tables().erase(tx, [gone])
            assert not await tx.value("SELECT count(*) FROM export_drafts")
        await worker.run(_StopsAfter(12))
        table = pq.read_table(io.BytesIO(await download(service, export_id)))
        assert sorted(table["user_id"].to_pylist()) == [["u0"], ["u2"]]


async def test_a_repeated_request_makes_one_export(service: RunningService, tag: str) -> None:
    request = pb.CreateExportRequest(format=pb.EXPORT_FORMAT_CSV, fields=ALL, request_id=tag)
    first = (await stub(service).CreateExport(request)).export_job.export_id
    assert (await stub(service).CreateExport(request)).export_job.export_id == first
    request.pseudonymise = True
    with pytest.raises(grpc.aio.AioRpcError, match="request_id"):
        await stub(service).CreateExport(request)
    page = await stub(service).ListExports(pb.ListExportsRequest(page_size=1))
    assert [job.export_id for job in page.export_jobs] == [first]
    assert page.next_page_token


@pytest.mark.parametrize(
    "fields",
    [
        {"fields": []}, {"format": 0}, {"segment_id": "s", "profiles": ["user_id:u"]}, {"profiles": ["nonsense"]},
        {"format": pb.EXPORT_FORMAT_PARQUET, "byte_order_mark": True}, {"trait_names": [""]},
    ],
)  # fmt: skip
async def test_an_export_that_contradicts_itself_is_refused(service: RunningService, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await exported(service, **fields)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
