# SPDX-License-Identifier: Apache-2.0
"""Other teams call a service directly, and need nothing but its address and a key."""

import asyncio
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from bench.platform.running import SECRET_KEY, Platform

SERVICES = {
    "profile": "dangol.profile.v1.ProfileService",
    "segmentation": "dangol.segmentation.v1.SegmentationService",
    "recommend": "dangol.recommend.v1.RecommendService",
    "feedback": "dangol.feedback.v1.FeedbackService",
    "metrics": "dangol.metrics.v1.MetricsService",
}


@pytest.mark.parametrize(("name", "service"), SERVICES.items())
def test_every_service_describes_itself(platform: Platform, name: str, service: str) -> None:
    """Its contract, its dead letters, its health."""
    with grpc.insecure_channel(f"127.0.0.1:{platform.port_of(name)}") as channel:
        described = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {service, "dangol.operations.v1.DeadLetterService", "grpc.health.v1.Health"} <= described


def test_a_client_without_generated_code_gets_an_answer(platform: Platform, api: httpx.Client) -> None:
    """Everything it knows came through reflection."""
    event = {"userId": "reflected", "event": "Product Viewed"}
    api.post("/v1/track", json=event).raise_for_status()
    with grpc.insecure_channel(f"127.0.0.1:{platform.port_of('metrics')}") as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(SERVICES["metrics"]).FindMethodByName("ListEventNames")
        call: grpc.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            f"/{SERVICES['metrics']}/ListEventNames",
            lambda message: message.SerializeToString(),
            GetMessageClass(method.output_type).FromString,
        )
        request = GetMessageClass(method.input_type)(page_size=10)
        answer = call(request, metadata=(("authorization", f"Bearer {SECRET_KEY}"),), timeout=10)
        assert hasattr(answer, "event_names")


def test_a_caller_without_a_key_is_refused(platform: Platform) -> None:
    """Reflection and health are open, data are not."""

    async def ask() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.port_of('profile')}") as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/dangol.profile.v1.ProfileService/GetProfile"
            )
            try:
                await call(b"\n\tuser_id:x", timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    assert asyncio.run(ask()) is grpc.StatusCode.UNAUTHENTICATED
