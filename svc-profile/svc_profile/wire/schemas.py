# SPDX-License-Identifier: Apache-2.0
"""Event schemas."""

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.profile.v1 import ingest_pb2 as pb
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from svc_profile.domain.fragments import storable, storable_text
from svc_profile.domain.schemas import Enforcement, EventSchema, SchemaDraft, Violation
from svc_profile.wire.values import bad_token

_CHANGEABLE = ("schema", "enforcement", "description")
_FIRST_VERSION = 2**31 - 1


def read_struct(struct: Struct) -> dict[str, Any]:
    """Read a JSON object; whole numbers are integers again."""
    values: dict[str, Any] = storable(_whole(MessageToDict(struct)))
    return values


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def draft_of_new(schema: pb.EventSchema) -> SchemaDraft:
    """Read the schema that a caller wants to create."""
    return SchemaDraft(
        name=storable_text(schema.name),
        schema=read_struct(schema.schema),
        enforcement=Enforcement(schema.enforcement) if schema.enforcement else None,
        description=storable_text(schema.description),
    )


def draft_of_change(request: pb.UpdateEventSchemaRequest) -> SchemaDraft:
    """Read what a caller wants to change: the fields of the mask, or every one that is set."""
    schema, paths = request.event_schema, set(request.update_mask.paths)
    if unknown := paths - set(_CHANGEABLE):
        raise Invalid.field(
            "update_mask", f"{sorted(unknown)[0]} cannot be changed; these can: {', '.join(_CHANGEABLE)}"
        )
    if not schema.name:
        raise Invalid.field("event_schema.name", "is required")
    for field in ("schema", "enforcement"):
        if field in paths and not (schema.HasField("schema") if field == "schema" else schema.enforcement):
            raise Invalid.field(f"event_schema.{field}", "is required")
    new = draft_of_new(schema)
    return SchemaDraft(
        name=new.name,
        schema=new.schema if _wanted("schema", paths, is_set=schema.HasField("schema")) else None,
        enforcement=new.enforcement if _wanted("enforcement", paths, is_set=bool(schema.enforcement)) else None,
        description=new.description if _wanted("description", paths, is_set=bool(schema.description)) else None,
    )


def _wanted(field: str, paths: set[str], *, is_set: bool) -> bool:
    return field in paths if paths else is_set


def schema_to_proto(schema: EventSchema) -> pb.EventSchema:
    """Write a schema."""
    written = pb.EventSchema(
        name=schema.name,
        enforcement=pb.SchemaEnforcement.ValueType(schema.enforcement),
        description=schema.description,
        version=schema.version,
        created_by=schema.created_by,
        created_time=timestamp_from_us(schema.created_us),
        updated_by=schema.updated_by,
        updated_time=timestamp_from_us(schema.updated_us),
    )
    written.schema.update(schema.schema)
    return written


def verdicts_to_proto(verdicts: Sequence[Sequence[Violation]]) -> list[pb.SampleVerdict]:
    """Write what a schema says about samples."""
    return [
        pb.SampleVerdict(
            valid=not violations,
            violations=[pb.SchemaViolation(pointer=each.pointer, rule=each.rule) for each in violations],
        )
        for violations in verdicts
    ]


def name_position(token: Mapping[str, Any]) -> str:
    """Read the name that a page begins after; empty is the beginning."""
    name = token.get("name", "")
    if not isinstance(name, str) or "\x00" in name:
        raise bad_token()
    return name


def version_position(token: Mapping[str, Any]) -> int:
    """Read the version that a page begins below."""
    version = token.get("version", _FIRST_VERSION)
    if not isinstance(version, int) or not 0 <= version <= _FIRST_VERSION:
        raise bad_token()
    return version
