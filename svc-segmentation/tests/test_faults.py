# SPDX-License-Identifier: Apache-2.0
"""Several replicas, and one that is killed: every event counts exactly once, every change is announced once."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from chassis.clock import now, to_us
from chassis.ids import new_ulid
from chassis.service import Runner
from chassis.testing import Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from dangol.segmentation.v1 import segmentation_pb2 as pb
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

CUSTOMERS = 60
FRAGMENTS = [UUID(int=random.Random(n).getrandbits(128)) for n in range(CUSTOMERS)]


def batches(count: int, seed: int) -> list[EventBatch]:
    """Draw batches of 50 events of a few customers, so that replicas meet on the same rows."""
    draw, start = random.Random(seed), to_us(now())
    return [
        EventBatch(
            events=[
                Event(
                    message_id=f"{seed}-{number}-{position}",
                    source="test",
                    type=EventType.EVENT_TYPE_TRACK,
                    name=draw.choice(["Visited", "Ordered"]),
                    properties=b'{"value": 2}',
                    time_us=start - draw.randrange(3 * 86_400_000_000),
                    fragment_id=(fragment := draw.choice(FRAGMENTS).bytes),
                    profile_id=fragment,
                    mapping_revision=1,
                )
                for position in range(50)
            ]
        )
        for number in range(count)
    ]


def expected(sent: Sequence[EventBatch]) -> Counter[tuple[UUID, str]]:
    return Counter((UUID(bytes=e.fragment_id), e.name) for batch in sent for e in batch.events)


async def publish(service: RunningService, sent: Sequence[EventBatch]) -> None:
    for number, batch in enumerate(sent):
        await service.bus.publish(
            f"events.resolved.{number % 2}", batch.SerializeToString(), message_id=f"resolved:{new_ulid()}"
        )


async def evaluated(service: RunningService) -> None:
    """Wait until everything was heard, evaluated and announced."""
    await service.settled()
    async with asyncio.timeout(60):
        while True:
            async with service.database.snapshot() as tx:
                if not await tx.value("SELECT EXISTS (SELECT FROM changed_fragments)"):
                    break
            await asyncio.sleep(0.02)
    await service.settled()


async def check(service: RunningService, counts: Counter[tuple[UUID, str]]) -> None:
    """Compare what is stored, who is a member, and what was announced, with what was sent."""
    stub = service.stub(SegmentationServiceStub)
    for name in ("Visited", "Ordered"):
        for most in {count for (_, counted), count in counts.items() if counted == name}:
            rule = f"count('{name}') == {most} && sum('{name}', 'value') == {2 * most}"
            preview = await stub.PreviewSegment(pb.PreviewSegmentRequest(rule=rule, sample_size=100))
            assert preview.count == sum(count == most for (_, n), count in counts.items() if n == name), rule
    announced: dict[bytes, pb.MembershipChange] = {}
    revisions: Counter[int] = Counter()
    for message in await service.published(pb.MembershipsChanged):
        for change in message.changes:
            revisions[change.revision] += 1
            if change.revision > announced.get(change.profile_id, pb.MembershipChange()).revision:
                announced[change.profile_id] = change
    assert set(revisions.values()) == {1}
    async with service.database.snapshot() as tx:
        members = {row[0].bytes for row in await tx.rows("SELECT profile_id FROM memberships")}
    assert {profile for profile, change in announced.items() if change.member} == members
    busy = {fragment.bytes for fragment in FRAGMENTS if counts[fragment, "Visited"] >= 20}
    assert members == busy


async def create(service: RunningService) -> None:
    segment = pb.Segment(name="busy", rule="count('Visited') >= 20")
    await service.stub(SegmentationServiceStub).CreateSegment(pb.CreateSegmentRequest(segment=segment))


async def test_replicas_share_the_work_without_waiting_for_each_other(engines: Engines) -> None:
    """Three processes' worth of consumers and evaluation on the same rows, with merges and splits in between."""
    async with running(build, Settings, engines, batch_messages=4, evaluation_pause_ms=1) as service:
        await create(service)
        settings = Settings.model_validate(service.service.settings.model_dump())
        others = [Runner(build(settings), ("consumers", "jobs")) for _ in range(2)]
        for other in others:
            await other.start()
        sent = batches(60, seed=1)
        await publish(service, sent[:30])
        for revision, target in ((2, FRAGMENTS[0]), (3, None)):
            mappings = [
                FragmentMapping(fragment_id=f.bytes, profile_id=(target or f).bytes, revision=revision)
                for f in FRAGMENTS
            ]
            await service.deliver(FragmentsRemapped(mappings=mappings))
        await publish(service, sent[30:])
        await evaluated(service)
        await check(service, expected(sent))
        for other in others:
            await other.stop()


async def test_nothing_is_lost_or_counted_twice_when_a_process_is_killed(engines: Engines) -> None:
    """`kill -9` while events flow; whoever comes next goes on where the dead one was."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        await create(service)
        parts = [batches(120, seed) for seed in (2, 3)]
        for part, alive_s in zip(parts, (0.05, 0.2), strict=True):
            process = await _start(service)
            await _wait_for_consumer(service)
            await publish(service, part)
            await asyncio.sleep(alive_s)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            # Instead of waiting until the broker misses the answers, it forgets them all: everything comes again.
            await service.bus.jetstream.delete_consumer(service.bus.stream("EVENTS"), "segmentation-events-resolved")
        process = await _start(service)
        await evaluated(service)
        await check(service, expected([batch for part in parts for batch in part]))
        process.terminate()
        await process.wait()


async def _start(service: RunningService) -> asyncio.subprocess.Process:
    settings = service.service.settings
    environment = {
        **os.environ,
        "DANGOL_POSTGRES_URL": settings.postgres_url.get_secret_value(),
        "DANGOL_POSTGRES_DATABASE": settings.postgres_database,
        "DANGOL_NATS_URL": settings.nats_url,
        "DANGOL_STREAM_PREFIX": settings.stream_prefix,
        "DANGOL_STREAM_MAX_BYTES": str(settings.stream_max_bytes),
        "DANGOL_IDENTITY_KEY": settings.identity_key.get_secret_value(),
        "DANGOL_TOKEN_KEY": settings.token_key.get_secret_value(),
        "DANGOL_SEGMENTATION_PORT": "0",
        "DANGOL_SEGMENTATION_BATCH_MESSAGES": "4",
        "DANGOL_LOG_LEVEL": "ERROR",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "svc_segmentation", "consumers", env=environment, stderr=asyncio.subprocess.DEVNULL
    )


async def _wait_for_consumer(service: RunningService) -> None:
    """Wait until the process listens; only then is killing it of interest."""
    stream = service.bus.stream("EVENTS")
    async with asyncio.timeout(30):
        while not any(c.num_waiting for c in await service.bus.jetstream.consumers_info(stream)):
            await asyncio.sleep(0.05)
