# SPDX-License-Identifier: Apache-2.0
"""The reference for a recommendation over HTTP: a bare FastAPI that asks a bare gRPC server for the same payload.

`python -m bench.platform.echo grpc PORT FILE` answers every call with the message in a file, read from memory;
`python -m bench.platform.echo http PORT GRPC_PORT` is the HTTP side. Nothing else happens: no authentication, no
validation, no database.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from dangol.recommend.v1 import recommend_pb2 as pb
from fastapi import FastAPI, Response
from google.protobuf import json_format

SERVICE = "dangol.recommend.v1.RecommendService"


async def serve_grpc(port: int, answer: pb.RecommendItemsResponse) -> None:
    """Answer every call with the same message."""

    async def recommend(request: pb.RecommendItemsRequest, context: Any) -> pb.RecommendItemsResponse:
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        recommend, pb.RecommendItemsRequest.FromString, pb.RecommendItemsResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"RecommendItems": handler})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def http_app(grpc_port: int) -> FastAPI:
    """Return the HTTP side."""
    calls: list[Any] = []

    @asynccontextmanager
    async def open_channel(_: FastAPI) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            calls.append(
                channel.unary_unary(
                    f"/{SERVICE}/RecommendItems",
                    pb.RecommendItemsRequest.SerializeToString,
                    pb.RecommendItemsResponse.FromString,
                )
            )
            yield

    app = FastAPI(lifespan=open_channel)

    @app.get("/v1/profiles/{profile}/recommendations")
    async def recommend(profile: str) -> Response:
        answer = await calls[0](pb.RecommendItemsRequest(profile=profile))
        return Response(json_format.MessageToJson(answer, indent=None), media_type="application/json")

    return app


def main() -> None:
    """Be one of the two processes."""
    side, port, rest = sys.argv[1:]
    if side == "grpc":
        answer = pb.RecommendItemsResponse.FromString(Path(rest).read_bytes())
        asyncio.run(serve_grpc(int(port), answer))
    else:
        uvicorn.run(http_app(int(rest)), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
