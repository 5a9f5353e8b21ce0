# SPDX-License-Identifier: Apache-2.0
"""Files out."""

import os
from datetime import timedelta

from chassis.calls import current_caller
from chassis.clock import now, to_us
from chassis.database import Database
from chassis.errors import PermissionDenied
from chassis.identity import IdentityKey
from chassis.ids import new_id
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1.transfer_pb2_grpc import ExportServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.usecases import exporting
from svc_profile.wire.transfers import export_plan_from_proto, export_to_proto, file_name_of, media_type_of
from svc_profile.wire.values import bad_token

_PII = "profile.pii"
_KEY_BYTES = 32


class ExportRpc(ExportServiceServicer):
    """Starts and ends exports, and hands out their files."""

    def __init__(self, database: Database, key: IdentityKey, kept: timedelta) -> None:
        self._database = database
        self._key = key
        self._kept = kept

    async def CreateExport(self, request: pb.CreateExportRequest, context: ServicerContext) -> pb.CreateExportResponse:
        """Start an export."""
        _check_right(request.pseudonymise)
        plan = export_plan_from_proto(request, new_id("exp"), self._key)
        moment = now()
        async with self._database.transaction() as tx:
            job = await exporting.create_export(
                tx,
                plan,
                request_id=request.request_id,
                now_us=to_us(moment),
                expire_time_us=to_us(moment + self._kept),
                key=os.urandom(_KEY_BYTES) if plan.pseudonymise else b"",
            )
        return pb.CreateExportResponse(export_job=export_to_proto(job))

    async def GetExport(self, request: pb.GetExportRequest, context: ServicerContext) -> pb.GetExportResponse:
        """Return one export."""
        async with self._database.snapshot() as tx:
            job = await exporting.get_export(tx, request.export_id)
        return pb.GetExportResponse(export_job=export_to_proto(job))

    async def ListExports(self, request: pb.ListExportsRequest, context: ServicerContext) -> pb.ListExportsResponse:
        """Return exports, newest first."""
        size = pages.page_size(request.page_size)
        before = pages.decode_token(request.page_token).get("before", "")
        if not isinstance(before, str):
            raise bad_token()
        async with self._database.snapshot() as tx:
            jobs = await exporting.list_exports(tx, before=before, most=size + 1)
        page, more = jobs[:size], jobs[size:]
        return pb.ListExportsResponse(
            export_jobs=[export_to_proto(job) for job in page],
            next_page_token=pages.encode_token({"before": page[-1].plan.export_id}) if more else "",
        )

    async def CancelExport(self, request: pb.CancelExportRequest, context: ServicerContext) -> pb.CancelExportResponse:
        """End an export for good."""
        async with self._database.transaction() as tx:
            job = await exporting.cancel_export(tx, request.export_id, now_us=to_us(now()))
        return pb.CancelExportResponse(export_job=export_to_proto(job))

    async def DownloadExportChunk(
        self, request: pb.DownloadExportChunkRequest, context: ServicerContext
    ) -> pb.DownloadExportChunkResponse:
        """Return a piece of the file."""
        async with self._database.snapshot() as tx:
            job, data = await exporting.read_file(tx, request.export_id, request.offset)
        _check_right(job.plan.pseudonymise)
        return pb.DownloadExportChunkResponse(
            data=data,
            file_bytes=job.file_bytes,
            file_name=file_name_of(job.plan),
            media_type=media_type_of(job.plan),
        )


def _check_right(pseudonymised: bool) -> None:
    """A file cannot be masked field by field: whoever may not see names gets pseudonyms, or nothing."""
    if not pseudonymised and not current_caller().may(_PII):
        raise PermissionDenied(f"without the scope {_PII} an export must be pseudonymised", metadata={"scope": _PII})
