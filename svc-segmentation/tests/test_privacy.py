# SPDX-License-Identifier: Apache-2.0
"""Data subjects: behaviour and memberships are erased, exported and searched."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from chassis.identity import Identifier, IdentityKey
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.identity_pb2 import (
    FORGET_REASON_REBUILT,
    FragmentMapping,
    FragmentsForgotten,
    FragmentsRemapped,
)
from dangol.segmentation.v1 import segmentation_pb2
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
TIME_US = 1_760_000_000_000_000


def fragment(user: str) -> bytes:
    """Return the fragment of a user."""
    return KEY.fragment_id(Identifier("user_id", user)).bytes


def events_of(user: str, number: int) -> list[Event]:
    """Return a trait and an order of a user."""
    same = {"source": "web", "fragment_id": fragment(user), "profile_id": fragment(user), "time_us": TIME_US}
    traits = msgspec.json.encode({"city": "Seoul", "email": f"{user}@example.com"})
    return [
        Event(type=EventType.EVENT_TYPE_IDENTIFY, message_id=f"{user}-i{number}", traits=traits, **same),  # type: ignore[arg-type]
        Event(
            type=EventType.EVENT_TYPE_TRACK,
            message_id=f"{user}-t{number}",
            name="Order Completed",
            properties=b'{"revenue": 5}',
            **same,  # type: ignore[arg-type]
        ),
    ]


@pytest.fixture
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    """A service that knows two customers, both in a segment."""
    async with running(build, Settings, engines) as started:
        segment = segmentation_pb2.Segment(name="in-seoul", rule="traits.city == 'Seoul'")
        stub = started.stub(SegmentationServiceStub)
        await stub.CreateSegment(segmentation_pb2.CreateSegmentRequest(segment=segment))
        batch = EventBatch(events=[*events_of("kim", 1), *events_of("lee", 1)])
        await started.deliver(batch, subject="events.resolved.0")
        while await rows(started, "memberships") < 2:
            await asyncio.sleep(0.05)
        yield started


async def rows(service: RunningService, table: str) -> int:
    """Count the rows of a table."""
    async with service.database.snapshot() as tx:
        return int(await tx.value(f"SELECT count(*) FROM {table}"))


async def test_an_erased_customer_is_in_no_table_and_others_stay(service: RunningService) -> None:
    """Every column of every table is searched."""
    erasing = pb.ErasureRequested(data_request_id="dsr_1", round=1, fragment_ids=[fragment("kim")])
    await service.deliver(erasing)
    (report,) = await service.published(pb.ErasureReported)
    assert report.service == "segmentation"
    assert {r.what for r in report.removed} >= {"event_days", "fragment_traits", "memberships", "membership_history"}
    probing = pb.ProbeRequested(
        data_request_id="dsr_1", round=1, fragment_ids=[fragment("kim")], values=["kim", "kim@example.com"]
    )
    await service.deliver(probing)
    (probe,) = await service.published(pb.ProbeReported)
    assert list(probe.leftovers) == []
    assert probe.searched_columns > 10
    assert [await rows(service, name) for name in ("event_days", "fragment_traits", "memberships")] == [2, 1, 1]


async def test_the_probe_finds_what_an_erasure_would_have_left(service: RunningService) -> None:
    """A probe that never finds anything proves nothing."""
    async with service.database.transaction() as tx:
        await tx.execute("UPDATE segments SET description = 'wanted by kim@example.com'")
    await service.deliver(pb.ProbeRequested(data_request_id="dsr_2", round=1, values=["kim@example.com", "im"]))
    (probe,) = await service.published(pb.ProbeReported)
    assert {(each.what, each.count) for each in probe.leftovers} == {
        ("segments.description", 1),
        ("fragment_traits.traits", 1),
    }


async def test_events_that_were_on_their_way_bring_nobody_back(service: RunningService) -> None:
    """Events of forgotten fragments are dropped, those of others beside them are not."""
    await service.deliver(pb.ErasureRequested(data_request_id="dsr_3", round=1, fragment_ids=[fragment("kim")]))
    await asyncio.sleep(1.1)  # what this process knows is at most a second old
    before = await rows(service, "event_days")
    batch = EventBatch(events=[*events_of("kim", 2), *events_of("park", 1)])
    await service.deliver(batch, subject="events.resolved.0")
    assert await rows(service, "event_days") == before + 2


async def test_a_rebuilt_fragment_loses_its_data_and_keeps_its_customer(service: RunningService) -> None:
    """The mapping stays, because other fragments hold the data now."""
    mapping = FragmentMapping(fragment_id=fragment("kim"), profile_id=fragment("lee"), revision=7)
    await service.deliver(FragmentsRemapped(mappings=[mapping]))
    await service.deliver(FragmentsForgotten(fragment_ids=[fragment("kim")], reason=FORGET_REASON_REBUILT))
    assert await rows(service, "fragment_traits") == 1
    async with service.database.snapshot() as tx:
        assert await tx.value("SELECT count(*) FROM fragment_profiles WHERE revision = 7") == 1


async def test_an_export_holds_all_and_nothing_of_others(service: RunningService) -> None:
    """Rows come in numbered parts, the last of which says so."""
    await service.deliver(pb.ExportRequested(data_request_id="dsr_4", fragment_ids=[fragment("kim")]))
    parts = await service.published(pb.ExportPart)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    files = {part.file: [msgspec.json.decode(line) for line in part.rows.splitlines()] for part in parts[:-1]}
    assert [row["city"] for row in files["fragment_traits"]] == ["Seoul"]
    assert files["event_days"][0]["day"] == "2025-10-09"
    assert b"lee" not in b"".join(part.rows for part in parts)


async def test_every_table_says_whether_it_is_personal(service: RunningService) -> None:
    """Whoever adds a table says in store/personal.py what becomes of it when a customer is erased."""
    assert await service.undeclared_tables() == set()
