# SPDX-License-Identifier: Apache-2.0
"""Imports as the contract has them."""

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.profile.v1 import transfer_pb2 as pb

from svc_profile.domain.columns import FileMapping, check_mapping, split_field
from svc_profile.domain.imports import ImportJob, ImportPlan, RejectedRow, State
from svc_profile.wire.importing import mapping_from_proto

_ARCHIVES = (pb.IMPORT_FORMAT_SEGMENT_ARCHIVE, pb.IMPORT_FORMAT_RUDDERSTACK_ARCHIVE)


def plan_from_proto(request: pb.CreateImportRequest, import_id: str) -> ImportPlan:
    """Read what is wanted; raises `Invalid` when no file could be read like this."""
    mapping = mapping_from_proto(request.mapping)
    if request.kind not in pb.ImportKind.values():
        raise Invalid.field("kind", "must be one of the kinds of the contract")
    if request.format not in pb.ImportFormat.values():
        raise Invalid.field("format", "must be one of the formats of the contract")
    if request.format in _ARCHIVES:
        _check_archive(request)
    else:
        check_mapping(mapping)
        _check_kind(request, mapping)
    if request.gzip and request.format == pb.IMPORT_FORMAT_PARQUET:
        raise Invalid.field("gzip", "Parquet compresses inside")
    return ImportPlan(
        import_id=import_id,
        kind=request.kind,
        format=request.format,
        gzip=request.gzip,
        source=request.source,
        mapping=request.mapping.SerializeToString(deterministic=True),
    )


def _check_archive(request: pb.CreateImportRequest) -> None:
    if request.kind != pb.IMPORT_KIND_EVENTS:
        raise Invalid.field("kind", "an archive holds events")
    if request.mapping != pb.ImportMapping():
        raise Invalid.field("mapping", "an archive needs none")


def _check_kind(request: pb.CreateImportRequest, mapping: FileMapping) -> None:
    fields = [column.field for column in mapping.columns] + [field for field, _ in mapping.constants]
    wholes = {split_field(field)[0] for field in fields}
    if request.kind == pb.IMPORT_KIND_EVENTS:
        if "time" not in wholes:
            raise Invalid.field("mapping.columns", "events need a column for time")
        if not wholes & {"name", "type"}:
            raise Invalid.field("mapping.columns", "events need a column or a constant for name or type")
        if not wholes & {"user_id", "anonymous_id"}:
            raise Invalid.field("mapping.columns", "events need a column for user_id or anonymous_id")
        return
    if not wholes & {"user_id", "anonymous_id", "traits"} and not mapping.other_columns:
        raise Invalid.field("mapping.columns", "customers need a column that tells who they are")
    if wholes & {"type", "name", "category", "group_id", "previous_id", "properties"}:
        raise Invalid.field("mapping.columns", "customers have ids, time, traits and context only")


def import_to_proto(job: ImportJob) -> pb.ImportJob:
    """Write an import."""
    progress = job.progress
    message = pb.ImportJob(
        import_id=job.plan.import_id,
        state=pb.ImportState.ValueType(job.state),
        kind=pb.ImportKind.ValueType(job.plan.kind),
        format=pb.ImportFormat.ValueType(job.plan.format),
        gzip=job.plan.gzip,
        source=job.plan.source,
        mapping=pb.ImportMapping.FromString(job.plan.mapping),
        create_time=timestamp_from_us(job.create_time_us),
        received_bytes=progress.received_bytes,
        read_bytes=progress.read_bytes,
        read_rows=progress.read_rows,
        taken_events=progress.taken_events,
        repeated_events=progress.repeated_events,
        rejected_rows=progress.rejected_rows,
        rows_per_second=progress.rows_per_second,
        remaining_seconds=progress.remaining_seconds() if job.state in (State.RUNNING, State.PAUSED) else 0,
        failure=job.failure,
    )
    if job.end_time_us is not None:
        message.end_time.CopyFrom(timestamp_from_us(job.end_time_us))
    return message


def reject_to_proto(reject: RejectedRow) -> pb.ImportReject:
    """Write a row that was not taken."""
    return pb.ImportReject(row=reject.row, field=reject.field, rule=reject.rule, body=reject.body)
