# SPDX-License-Identifier: Apache-2.0
"""Imports and exports as the contract has them."""

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from chassis.identity import IdentityKey
from chassis.keys import RESERVED_SOURCES
from dangol.profile.v1 import transfer_pb2 as pb

from svc_profile.domain.columns import FileMapping, check_mapping, split_field
from svc_profile.domain.exports import ExportJob, ExportPlan
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
    if request.source in RESERVED_SOURCES:
        raise Invalid.field("source", f"{request.source} is reserved for what the platform does itself")
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


def export_plan_from_proto(request: pb.CreateExportRequest, export_id: str, key: IdentityKey) -> ExportPlan:
    """Read what is wanted; raises `Invalid` when it contradicts itself."""
    if request.format not in pb.ExportFormat.values():
        raise Invalid.field("format", "must be one of the formats of the contract")
    fields = tuple(sorted(set(request.fields)))
    if not fields or not set(fields) <= set(pb.ExportField.values()) - {pb.EXPORT_FIELD_UNSPECIFIED}:
        raise Invalid.field("fields", "must be fields of the contract")
    if request.segment_id and request.profiles:
        raise Invalid.field("profiles", "not together with segment_id")
    if request.byte_order_mark and request.format != pb.EXPORT_FORMAT_CSV:
        raise Invalid.field("byte_order_mark", "is for CSV")
    if any(not name or "\x00" in name for name in request.trait_names):
        raise Invalid.field("trait_names", "must be names")
    return ExportPlan(
        export_id=export_id,
        format=request.format,
        fields=fields,
        trait_names=tuple(dict.fromkeys(request.trait_names)),
        segment_id=request.segment_id,
        fragments=tuple(dict.fromkeys(key.resolve(reference).bytes for reference in request.profiles)),
        is_list=bool(request.profiles),
        pseudonymise=request.pseudonymise,
        purpose=request.purpose,
        byte_order_mark=request.byte_order_mark,
    )


def export_to_proto(job: ExportJob) -> pb.ExportJob:
    """Write an export."""
    plan = job.plan
    message = pb.ExportJob(
        export_id=plan.export_id,
        state=pb.ExportState.ValueType(job.state),
        format=pb.ExportFormat.ValueType(plan.format),
        fields=[pb.ExportField.ValueType(field) for field in plan.fields],
        trait_names=plan.trait_names,
        segment_id=plan.segment_id,
        pseudonymise=plan.pseudonymise,
        purpose=plan.purpose,
        create_time=timestamp_from_us(job.create_time_us),
        expire_time=timestamp_from_us(job.expire_time_us),
        written_profiles=job.written_profiles,
        withheld_profiles=job.withheld_profiles,
        total_profiles=job.total_profiles,
        file_bytes=job.file_bytes,
        failure=job.failure,
    )
    if job.end_time_us is not None:
        message.end_time.CopyFrom(timestamp_from_us(job.end_time_us))
    return message


def file_name_of(plan: ExportPlan) -> str:
    """Return the name to save a file under."""
    return f"{plan.export_id}.{'csv' if plan.format == pb.EXPORT_FORMAT_CSV else 'parquet'}"


def media_type_of(plan: ExportPlan) -> str:
    """Return the media type of a file."""
    is_csv = plan.format == pb.EXPORT_FORMAT_CSV
    return "text/csv; charset=utf-8" if is_csv else "application/vnd.apache.parquet"
