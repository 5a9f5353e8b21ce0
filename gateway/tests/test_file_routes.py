# SPDX-License-Identifier: Apache-2.0
"""Files through the gateway, in front of a service that keeps what it is given in memory."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
from chassis.errors import FailedPrecondition, NotFound
from chassis.rpc import RpcServer, Servicer
from chassis.testing import TOKEN_KEY
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1 import transfer_pb2_grpc

from .conftest import SECRET, WRITE, RunningGateway, _ServiceSettings, addresses, running_gateway

MIB = 2**20
KEY = {"X-API-Key": SECRET}


class Imports(transfer_pb2_grpc.ImportServiceServicer):
    """Keeps the pieces of files."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[bytes]] = {}
        self.started: dict[str, int] = {}
        self.news = asyncio.Event()

    async def UploadImportChunk(
        self, request: pb.UploadImportChunkRequest, context: grpc.aio.ServicerContext
    ) -> pb.UploadImportChunkResponse:
        pieces = self.pieces.setdefault(request.import_id, [])
        received = sum(map(len, pieces))
        if request.offset > received:
            raise FailedPrecondition("a gap", reason="UPLOAD_GAP", metadata={"received_bytes": str(received)})
        pieces.append(request.data[received - request.offset :])
        self.news.set()
        return pb.UploadImportChunkResponse(received_bytes=sum(map(len, pieces)))

    async def StartImport(
        self, request: pb.StartImportRequest, context: grpc.aio.ServicerContext
    ) -> pb.StartImportResponse:
        self.started[request.import_id] = request.total_bytes
        return pb.StartImportResponse(import_job=pb.ImportJob(import_id=request.import_id))


class Exports(transfer_pb2_grpc.ExportServiceServicer):
    """Has one file of 2.5 MiB."""

    file = bytes(range(256)) * (10 * 1024)

    async def DownloadExportChunk(
        self, request: pb.DownloadExportChunkRequest, context: grpc.aio.ServicerContext
    ) -> pb.DownloadExportChunkResponse:
        if request.export_id != "exp_1":
            raise NotFound("no such export")
        data = self.file[request.offset : request.offset + MIB]
        size = len(self.file)
        return pb.DownloadExportChunkResponse(data=data, file_bytes=size, file_name="exp_1.csv", media_type="text/csv")


@pytest.fixture(scope="module")
def imports() -> Imports:
    return Imports()


@pytest.fixture(scope="module")
async def files(nats_url: str, imports: Imports) -> AsyncIterator[RunningGateway]:
    """Serve a gateway in front of the two services."""
    servicers = [
        Servicer("dangol.profile.v1.ImportService", transfer_pb2_grpc.add_ImportServiceServicer_to_server, imports),
        Servicer("dangol.profile.v1.ExportService", transfer_pb2_grpc.add_ExportServiceServicer_to_server, Exports()),
    ]
    rpc = RpcServer(_ServiceSettings(port=0, token_key=TOKEN_KEY, local=True, prometheus_port=0), servicers)
    await rpc.start()
    rpc.open()
    async with running_gateway(nats_url, **addresses(f"127.0.0.1:{rpc.port}")) as gateway:
        yield gateway
    await rpc.stop(0)


async def test_a_file_is_passed_on_in_pieces_and_started(files: RunningGateway, imports: Imports) -> None:
    """Also a body whose length nobody has announced."""
    data = bytes(range(256)) * 14_000

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_001):
            yield data[start : start + 100_001]

    answer = await files.http.put("/v1/imports/imp_1/file", content=body(), headers=KEY)
    assert (answer.status_code, answer.json()["importJob"]["importId"]) == (200, "imp_1")
    assert b"".join(imports.pieces["imp_1"]) == data
    assert [len(piece) for piece in imports.pieces["imp_1"]] == [MIB, MIB, MIB, len(data) - 3 * MIB]
    assert imports.started["imp_1"] == len(data)


async def test_a_part_does_not_start_the_import_until_the_last_has_come(
    files: RunningGateway, imports: Imports
) -> None:
    async def put(content: bytes, span: str) -> httpx.Response:
        return await files.http.put(
            "/v1/imports/imp_2/file", content=content, headers={**KEY, "Content-Range": f"bytes {span}"}
        )

    assert (await put(b"abc", "0-2/*")).json() == {"receivedBytes": "3"}
    gap = await put(b"xyz", "5-7/8")
    assert (gap.status_code, gap.json()["reason"], gap.json()["metadata"]) == (
        400,
        "UPLOAD_GAP",
        {"received_bytes": "3"},
    )
    assert "imp_2" not in imports.started
    assert (await put(b"defgh", "3-7/8")).json()["importJob"]["importId"] == "imp_2"
    assert imports.started["imp_2"] == 8


@pytest.mark.parametrize("span", ["nonsense", "bytes 5-2/9", "bytes 0-9/5", "bytes 0-2/9", "bytes -5/9"])
async def test_a_part_that_is_not_what_it_says_is_refused(files: RunningGateway, imports: Imports, span: str) -> None:
    headers = {**KEY, "Content-Range": span}
    answer = await files.http.put("/v1/imports/imp_3/file", content=b"ab", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_RANGE")
    assert "imp_3" not in imports.started


async def test_what_came_before_the_client_went_away_is_kept(files: RunningGateway, imports: Imports) -> None:
    """So less has to come again."""
    host, port = files.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PUT /v1/imports/imp_4/file HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\ncontent-length: 5000000\r\n\r\n"
    writer.write(head.encode() + bytes(1_500_000))
    await writer.drain()
    writer.close()
    async with asyncio.timeout(30):
        while sum(map(len, imports.pieces.get("imp_4", []))) < 1_500_000:
            imports.news.clear()
            await imports.news.wait()
    assert "imp_4" not in imports.started


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("PUT", "/v1/imports/imp_5/file", {}, 401),
        ("PUT", "/v1/imports/imp_5/file", {"X-API-Key": WRITE}, 403),
        ("PUT", "/v1/imports/imp_5/file", {"X-API-Key": "reader-key"}, 403),
        ("GET", "/v1/exports/exp_1/file", {}, 401),
        ("GET", "/v1/exports/exp_1/file", {"X-API-Key": WRITE}, 403),
        ("GET", "/v1/exports/exp_1/file", {"X-API-Key": "reader-key"}, 403),
        ("GET", "/v1/exports/exp_2/file", KEY, 404),
        ("DELETE", "/v1/exports/exp_1/file", KEY, 405),
        ("POST", "/v1/imports/imp_5/file", KEY, 405),
    ],
)
async def test_who_may_not_is_told_so(
    files: RunningGateway, imports: Imports, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await files.http.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "imp_5" not in imports.pieces


async def test_a_file_is_given_whole_or_from_a_byte_on(files: RunningGateway) -> None:
    path = "/v1/exports/exp_1/file"
    whole = await files.http.get(path, headers=KEY)
    assert whole.content == Exports.file
    assert whole.headers["content-disposition"] == 'attachment; filename="exp_1.csv"'
    assert int(whole.headers["content-length"]) == len(Exports.file)
    rest = await files.http.get(path, headers={**KEY, "Range": "bytes=1000000-"})
    assert (rest.status_code, rest.content) == (206, Exports.file[1_000_000:])
    late = await files.http.get(path, headers={**KEY, "Range": f"bytes={len(Exports.file)}-"})
    assert (late.status_code, late.headers["content-range"]) == (416, f"bytes */{len(Exports.file)}")
    head = await files.http.head(path, headers=KEY)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(Exports.file)))
