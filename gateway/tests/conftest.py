# SPDX-License-Identifier: Apache-2.0
"""A gateway at work on a real NATS server, in front of real gRPC services that answer from memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
import httpx
import pytest
from chassis.bus import EVENTS, Bus
from chassis.engines import NatsEngine, free_ports
from chassis.errors import Conflict, NotFound, Unavailable
from chassis.keys import sha256
from chassis.rpc import RpcServer, Servicer
from chassis.settings import ServiceSettings
from chassis.testing import TOKEN_KEY
from dangol.events.v1.events_pb2 import Event, EventBatch, RejectedEvent, RejectedEventBatch
from dangol.metrics.v1 import metrics_pb2, metrics_pb2_grpc
from dangol.profile.v1 import identity_pb2, identity_pb2_grpc, profile_pb2, profile_pb2_grpc
from dangol.recommend.v1 import recommend_pb2, recommend_pb2_grpc
from dangol.segmentation.v1 import segmentation_pb2, segmentation_pb2_grpc
from gateway.app import build
from gateway.server import Server, server
from gateway.settings import SERVICES, Settings
from google.protobuf.message import Message
from nats.js.api import ConsumerConfig, DeliverPolicy

from .chromium import browser, shared_browser

__all__ = ["browser", "shared_browser"]

_numbers = itertools.count()

WRITE = "dk_write_local"
SECRET = "dk_secret_local"
KEYS: list[dict[str, Any]] = [
    {"id": "shop", "kind": "write", "sha256": [sha256("shop-key")], "origins": ["https://shop.example"]},
    {"id": "reader", "kind": "secret", "sha256": [sha256("reader-key")], "scopes": ["profile.read"]},
    {"id": "importer", "kind": "secret", "sha256": [sha256("importer-key")], "scopes": ["events.write"]},
    {"id": "old", "kind": "write", "sha256": [sha256("old-key")], "expires": 1.0},
    {"id": "big", "kind": "write", "sha256": [sha256("big-key")], "max_event_bytes": 2**20},
    {"id": "slow", "kind": "write", "sha256": [sha256("slow-key")], "requests_per_second": 0.004},
    {"id": "slow-browser", "kind": "write", "sha256": [sha256("slow-browser-key")], "requests_per_second": 0.004},
    {"id": "paced", "kind": "write", "sha256": [sha256("paced-key")], "requests_per_second": 0.5},
    {"id": "slow-visitor", "kind": "write", "sha256": [sha256("slow-visitor-key")], "requests_per_second": 0.01},
    {"id": "few", "kind": "write", "sha256": [sha256("few-key")], "events_per_second": 10},
]


class _QuietServer(Server):
    """A server inside a test process, which keeps its own signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class RunningGateway:
    """A gateway at work, and what a test does with it."""

    url: str
    bus: Bus
    http: httpx.AsyncClient

    async def post(self, path: str, body: Any, *, key: str | None = WRITE, **arguments: Any) -> httpx.Response:
        """Send JSON (or bytes as they are) with a key the way Segment's clients do."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        auth = httpx.BasicAuth(key, "") if key else httpx.USE_CLIENT_DEFAULT
        return await self.http.post(path, content=content, auth=auth, **arguments)

    async def collected(self) -> list[Event]:
        """Return every event that was taken so far."""
        return [event for batch in await self.batches() for event in batch.events]

    async def batches(self) -> list[EventBatch]:
        """Return every message of taken events."""
        return await self._stored(EventBatch, "events.collected.*")

    async def rejected(self) -> list[RejectedEvent]:
        """Return every event that was not taken so far."""
        return [event for batch in await self._stored(RejectedEventBatch, "events.rejected") for event in batch.events]

    async def messages(self, subject: str) -> list[Any]:
        """Return every message of a subject as NATS has it."""
        manager = self.bus.jetstream
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, filter_subject=self.bus.subject(subject))
        subscription = await manager.pull_subscribe(
            self.bus.subject(subject), stream=self.bus.stream(EVENTS), config=config
        )
        try:
            pending = (await subscription.consumer_info()).num_pending or 0
            found: list[Any] = []
            while len(found) < pending:
                found += await subscription.fetch(pending - len(found), timeout=30)
            return found
        finally:
            await subscription.unsubscribe()

    async def _stored(self, message_type: type[Message], subject: str) -> list[Any]:
        return [message_type.FromString(message.data) for message in await self.messages(subject)]


@asynccontextmanager
async def running_gateway(nats_url: str, *, is_ready: bool = True, **overrides: Any) -> AsyncIterator[RunningGateway]:
    """Serve a gateway on a free port, with streams of its own."""
    values: dict[str, Any] = {
        "nats_url": nats_url,
        "stream_prefix": f"gw{next(_numbers)}.",
        "stream_max_bytes": 2**28,
        "event_shards": 4,
        "token_key": TOKEN_KEY,
        "api_keys": json.dumps(KEYS),
        "local": True,
        "port": 0,
        "prometheus_port": 0,
        "drain_seconds": 5,
        **overrides,
    }
    settings = Settings(**values)
    web = server(build(settings), settings)
    web.__class__ = _QuietServer
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    bus = Bus(settings, "test")
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        try:
            if is_ready:
                await bus.open()
                await until_ready(http)
            yield RunningGateway(url, bus, http)
        finally:
            await bus.close()
            web.should_exit = True
            await serving


async def until_ready(http: httpx.AsyncClient) -> None:
    """Wait until the gateway says that it is ready."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a NATS server for all tests of the gateway, which needs no database."""
    with NatsEngine(tmp_path_factory.mktemp("nats"), free_ports(1)[0]) as engine:
        yield engine.url


@pytest.fixture(scope="session")
async def shared_gateway(nats_url: str, services: str) -> AsyncIterator[RunningGateway]:
    """Serve one gateway for all tests that need nothing special of it."""
    async with running_gateway(nats_url, **addresses(services)) as started:
        yield started


@pytest.fixture
async def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    """Return a gateway whose streams are empty."""
    await shared_gateway.bus.jetstream.purge_stream(shared_gateway.bus.stream(EVENTS))
    return shared_gateway


def addresses(target: str) -> dict[str, Any]:
    """Let every service be at one address."""
    names = ("profile", "segmentation", "recommend", "feedback", "metrics")
    return {f"{name}_address": target for name in names}


class _ServiceSettings(ServiceSettings):
    service: ClassVar[str] = "sample"


class _Profiles(profile_pb2_grpc.ProfileServiceServicer):
    """Knows `known` and everything spelt like the reference; fails in several ways."""

    async def GetProfile(
        self, request: profile_pb2.GetProfileRequest, context: grpc.aio.ServicerContext
    ) -> profile_pb2.GetProfileResponse:
        name = request.profile.removeprefix("user_id:")
        if name == "nobody":
            raise NotFound("no such profile")
        if name == "busy":
            raise Unavailable("a store cannot be reached now", retry_after_seconds=7)
        if name == "bug":
            raise KeyError("secret detail")
        if name == "slow":
            await asyncio.sleep(30)
        profile = profile_pb2.Profile(profile_id="prf_1", event_counts={"Order Completed": 3})
        profile.groups.extend(request.read_mask.paths)
        profile.identifiers.add(namespace="user_id", value=request.profile)
        profile.traits.update({"name": "김단골", "age": 31, "tags": ["a", None, True], "scale": 1.5})
        profile.first_seen_time.FromJsonString("2026-11-01T00:00:00Z")
        return profile_pb2.GetProfileResponse(profile=profile)


class _Identity(identity_pb2_grpc.IdentityServiceServicer):
    """Answers what it was asked."""

    async def ListIdentityConflicts(
        self, request: identity_pb2.ListIdentityConflictsRequest, context: grpc.aio.ServicerContext
    ) -> identity_pb2.ListIdentityConflictsResponse:
        return identity_pb2.ListIdentityConflictsResponse(next_page_token=f"{request.profile}/{request.page_size}")


class _Segments(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Answers what it was asked."""

    async def CreateSegment(
        self, request: segmentation_pb2.CreateSegmentRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.CreateSegmentResponse:
        if request.segment.name == "taken":
            raise Conflict("the name is taken", reason="NAME_TAKEN", metadata={"name": "taken"})
        segment = segmentation_pb2.Segment(segment_id=f"seg_{request.request_id}", rule_version=1)
        segment.MergeFrom(request.segment)
        return segmentation_pb2.CreateSegmentResponse(segment=segment)

    async def UpdateSegment(
        self, request: segmentation_pb2.UpdateSegmentRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.UpdateSegmentResponse:
        segment = segmentation_pb2.Segment(description=",".join(request.update_mask.paths))
        segment.MergeFrom(request.segment)
        return segmentation_pb2.UpdateSegmentResponse(segment=segment)

    async def PreviewSegment(
        self, request: segmentation_pb2.PreviewSegmentRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.PreviewSegmentResponse:
        return segmentation_pb2.PreviewSegmentResponse(count=request.sample_size, sample_profile_ids=[request.rule])

    async def DeleteSegment(
        self, request: segmentation_pb2.DeleteSegmentRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.DeleteSegmentResponse:
        return segmentation_pb2.DeleteSegmentResponse()

    async def ListProfileSegments(
        self, request: segmentation_pb2.ListProfileSegmentsRequest, context: grpc.aio.ServicerContext
    ) -> segmentation_pb2.ListProfileSegmentsResponse:
        return segmentation_pb2.ListProfileSegmentsResponse(profile_id=request.profile)


class _Recommendations(recommend_pb2_grpc.RecommendServiceServicer):
    """Recommends as many items as are asked for."""

    async def RecommendItems(
        self, request: recommend_pb2.RecommendItemsRequest, context: grpc.aio.ServicerContext
    ) -> recommend_pb2.RecommendItemsResponse:
        answer = recommend_pb2.RecommendItemsResponse(profile_id=request.profile, personalized=True)
        for number in range(request.page_size or 20):
            answer.recommendations.add(item_id=f"sku-{number}", title="제주 감귤 5kg", score=1 / (number + 1))
        return answer

    async def BatchUpsertItems(
        self, request: recommend_pb2.BatchUpsertItemsRequest, context: grpc.aio.ServicerContext
    ) -> recommend_pb2.BatchUpsertItemsResponse:
        return recommend_pb2.BatchUpsertItemsResponse(created_count=len(request.items))

    async def GetItem(
        self, request: recommend_pb2.GetItemRequest, context: grpc.aio.ServicerContext
    ) -> recommend_pb2.GetItemResponse:
        return recommend_pb2.GetItemResponse(item=recommend_pb2.Item(item_id=request.item_id, title="감귤"))


class _Metrics(metrics_pb2_grpc.MetricsServiceServicer):
    """Answers with the range that it was asked for."""

    async def QueryKpis(
        self, request: metrics_pb2.QueryKpisRequest, context: grpc.aio.ServicerContext
    ) -> metrics_pb2.QueryKpisResponse:
        return metrics_pb2.QueryKpisResponse(total=metrics_pb2.Kpis(date=request.start_date, orders=2))


@asynccontextmanager
async def serving_rpc(*servicers: Servicer) -> AsyncIterator[str]:
    """Serve gRPC behind the real door of a service; yields the address."""
    rpc = RpcServer(_ServiceSettings(port=0, token_key=TOKEN_KEY, local=True, prometheus_port=0), servicers)
    await rpc.start()
    rpc.open()
    try:
        yield f"127.0.0.1:{rpc.port}"
    finally:
        await rpc.stop(0)


@asynccontextmanager
async def gateway_before(nats_url: str, services: Mapping[str, Sequence[Servicer]]) -> AsyncIterator[RunningGateway]:
    """Serve a gateway before services, each by itself; nothing listens where the others should be."""
    async with AsyncExitStack() as stack:
        ports = free_ports(len(SERVICES))
        addresses: dict[str, Any] = {
            f"{name}_address": f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=True)
        }
        for name, servicers in services.items():
            addresses[f"{name}_address"] = await stack.enter_async_context(serving_rpc(*servicers))
        yield await stack.enter_async_context(running_gateway(nats_url, rpc_seconds=5, **addresses))


@pytest.fixture(scope="session")
async def services() -> AsyncIterator[str]:
    """Serve the contract from memory behind the real door of every service; yields the address."""
    serving = serving_rpc(
        Servicer(
            "dangol.profile.v1.ProfileService",
            profile_pb2_grpc.add_ProfileServiceServicer_to_server,
            _Profiles(),
        ),
        Servicer(
            "dangol.profile.v1.IdentityService",
            identity_pb2_grpc.add_IdentityServiceServicer_to_server,
            _Identity(),
        ),
        Servicer(
            "dangol.segmentation.v1.SegmentationService",
            segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server,
            _Segments(),
        ),
        Servicer(
            "dangol.recommend.v1.RecommendService",
            recommend_pb2_grpc.add_RecommendServiceServicer_to_server,
            _Recommendations(),
        ),
        Servicer(
            "dangol.metrics.v1.MetricsService",
            metrics_pb2_grpc.add_MetricsServiceServicer_to_server,
            _Metrics(),
        ),
    )
    async with serving as address:
        yield address
