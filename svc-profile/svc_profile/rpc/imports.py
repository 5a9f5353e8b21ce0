# SPDX-License-Identifier: Apache-2.0
"""Files in."""

from chassis.clock import now, to_us
from chassis.database import Database
from chassis.ids import new_id
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1.transfer_pb2_grpc import ImportServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.usecases import importing
from svc_profile.wire.transfers import import_to_proto, plan_from_proto, reject_to_proto
from svc_profile.wire.values import bad_token, in_bigint


class ImportRpc(ImportServiceServicer):
    """Prepares, fills, starts and stops imports."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def CreateImport(self, request: pb.CreateImportRequest, context: ServicerContext) -> pb.CreateImportResponse:
        """Prepare an import."""
        plan = plan_from_proto(request, new_id("imp"))
        async with self._database.transaction() as tx:
            job = await importing.create_import(tx, plan, request_id=request.request_id, now_us=to_us(now()))
        return pb.CreateImportResponse(import_job=import_to_proto(job))

    async def UploadImportChunk(
        self, request: pb.UploadImportChunkRequest, context: ServicerContext
    ) -> pb.UploadImportChunkResponse:
        """Add bytes to the file."""
        async with self._database.transaction() as tx:
            received = await importing.upload_chunk(tx, request.import_id, offset=request.offset, data=request.data)
        return pb.UploadImportChunkResponse(received_bytes=received)

    async def StartImport(self, request: pb.StartImportRequest, context: ServicerContext) -> pb.StartImportResponse:
        """Start to read."""
        async with self._database.transaction() as tx:
            job = await importing.start_import(tx, request.import_id, total_bytes=request.total_bytes)
        return pb.StartImportResponse(import_job=import_to_proto(job))

    async def GetImport(self, request: pb.GetImportRequest, context: ServicerContext) -> pb.GetImportResponse:
        """Return one import."""
        async with self._database.snapshot() as tx:
            job = await importing.get_import(tx, request.import_id)
        return pb.GetImportResponse(import_job=import_to_proto(job))

    async def ListImports(self, request: pb.ListImportsRequest, context: ServicerContext) -> pb.ListImportsResponse:
        """Return imports, newest first."""
        size = pages.page_size(request.page_size)
        before = pages.decode_token(request.page_token).get("before", "")
        if not isinstance(before, str):
            raise bad_token()
        async with self._database.snapshot() as tx:
            jobs = await importing.list_imports(tx, before=before, most=size + 1)
        page, more = jobs[:size], jobs[size:]
        return pb.ListImportsResponse(
            import_jobs=[import_to_proto(job) for job in page],
            next_page_token=pages.encode_token({"before": page[-1].plan.import_id}) if more else "",
        )

    async def PauseImport(self, request: pb.PauseImportRequest, context: ServicerContext) -> pb.PauseImportResponse:
        """Stop for now."""
        async with self._database.transaction() as tx:
            job = await importing.pause_import(tx, request.import_id)
        return pb.PauseImportResponse(import_job=import_to_proto(job))

    async def ResumeImport(self, request: pb.ResumeImportRequest, context: ServicerContext) -> pb.ResumeImportResponse:
        """Go on."""
        async with self._database.transaction() as tx:
            job = await importing.resume_import(tx, request.import_id)
        return pb.ResumeImportResponse(import_job=import_to_proto(job))

    async def CancelImport(self, request: pb.CancelImportRequest, context: ServicerContext) -> pb.CancelImportResponse:
        """Stop for good."""
        async with self._database.transaction() as tx:
            job = await importing.cancel_import(tx, request.import_id, now_us=to_us(now()))
        return pb.CancelImportResponse(import_job=import_to_proto(job))

    async def ListImportRejects(
        self, request: pb.ListImportRejectsRequest, context: ServicerContext
    ) -> pb.ListImportRejectsResponse:
        """Return rows that were not taken."""
        size = pages.page_size(request.page_size)
        token = pages.decode_token(request.page_token)
        row, position = token.get("row", 0), token.get("position", -1)
        if not isinstance(row, int) or not isinstance(position, int):
            raise bad_token()
        after = (in_bigint(row), min(in_bigint(position), 2**31 - 1))
        async with self._database.snapshot() as tx:
            rejects = await importing.list_rejects(tx, request.import_id, after=after, most=size + 1)
        page, more = rejects[:size], rejects[size:]
        last = {"row": page[-1][0][0], "position": page[-1][0][1]} if more else {}
        return pb.ListImportRejectsResponse(
            rejects=[reject_to_proto(reject) for _, reject in page],
            next_page_token=pages.encode_token(last) if more else "",
        )
