# SPDX-License-Identifier: Apache-2.0
"""Ask a process whether it is ready for work."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2

HOST = "127.0.0.1"
PATIENCE_SECONDS = 2.0


def is_serving(port: int) -> bool:
    """Whether a gRPC server answers SERVING to `grpc.health.v1`."""
    if not is_listening(port):
        # A channel to a closed port would cost a hundred times as much.
        return False
    with grpc.insecure_channel(f"{HOST}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def is_ready(port: int) -> bool:
    """Whether an HTTP server answers 200 to `/readyz`."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
    with suppress(OSError, http.client.HTTPException):
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    return False


def is_listening(port: int) -> bool:
    """Whether anybody takes connections on the port."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS):
        return True
    return False


PROBES: dict[str, Callable[[int], bool]] = {"grpc": is_serving, "http": is_ready, "tcp": is_listening}
