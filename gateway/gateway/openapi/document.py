# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of the whole public API."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.openapi import files, ingest, operations
from gateway.openapi.schemas import Schema, Schemas
from gateway.transcode.contract import Contract

_DESCRIPTION = """\
Dangol knows your customers, puts them into living segments, recommends, listens and measures. Events go in through the
Segment-compatible routes; everything else is proto3 JSON in lowerCamelCase over the gRPC contract, so 64-bit integers
are strings. Errors are problems (RFC 9457); those of the event routes have `code` and `message`."""

_PROBLEM: Schema = {
    "type": "object",
    "description": "What went wrong (RFC 9457), with the facts of google.rpc.",
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of problem."},
        "title": {"type": "string", "description": "The HTTP status in words."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What went wrong this time."},
        "instance": {"type": "string", "description": "Path of the request."},
        "code": {"type": "string", "description": "gRPC status code, such as `INVALID_ARGUMENT`."},
        "reason": {"type": "string", "description": "Stable upper-case code, such as `RULE_DOES_NOT_COMPILE`."},
        "requestId": {"type": "string", "description": "Finds the request in the logs."},
        "violations": {
            "type": "array",
            "description": "Every field that breaks a rule.",
            "items": {"$ref": "#/components/schemas/Violation"},
        },
        "metadata": {
            "type": "object",
            "description": "Further facts.",
            "additionalProperties": {"type": "string"},
        },
    },
    "required": ["type", "title", "status", "detail", "code", "reason"],
}
_VIOLATION: Schema = {
    "type": "object",
    "description": "One field that breaks one rule.",
    "properties": {
        "field": {"type": "string", "description": "Path of the field, such as `items[0].price`."},
        "rule": {"type": "string", "description": "The rule that it breaks."},
    },
    "required": ["field", "rule"],
}
_SECURITY_SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "basic": {"type": "http", "scheme": "basic", "description": "A write key as user name, no password."},
}


def build(contract: Contract) -> dict[str, Any]:
    """Return the document."""
    schemas = Schemas(contract.comments)
    contract_paths = operations.paths(contract, schemas)
    packages = dict.fromkeys(method.package for method in contract.methods)
    tags = [{"name": package, "description": contract.comments.get(f"dangol.{package}.v1", "")} for package in packages]
    events = {"name": ingest.TAG, "description": "Events in, as the clients of Segment and RudderStack send them."}
    file_tag = {"name": files.TAG, "description": "Files in and out, of any length."}
    components = {"Problem": _PROBLEM, "Violation": _VIOLATION, **ingest.schemas(), **schemas.components}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dangol",
            "version": _version(),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [events, file_tag, *tags],
        "paths": {**ingest.paths(), **files.paths(), **contract_paths},
        "components": {"schemas": dict(sorted(components.items())), "securitySchemes": _SECURITY_SCHEMES},
    }


def _version() -> str:
    try:
        return version("dangol-gateway")
    except PackageNotFoundError:
        return "0"
