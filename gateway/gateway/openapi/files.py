# SPDX-License-Identifier: Apache-2.0
"""The routes of files in the API document."""

from __future__ import annotations

from typing import Any

from gateway.openapi.operations import problem_responses
from gateway.openapi.schemas import Schema

TAG = "files"
_BINARY: Schema = {"schema": {"type": "string", "format": "binary"}}


def paths() -> dict[str, dict[str, Any]]:
    """Return the path items."""
    return {
        "/v1/imports/{importId}/file": {"put": _UPLOAD},
        "/v1/exports/{exportId}/file": {"get": _DOWNLOAD},
        "/v1/data-requests/{dataRequestId}/export": {"get": _DATA_EXPORT},
    }


def _id(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_UPLOAD: Schema = {
    "tags": [TAG],
    "operationId": "uploadImportFile",
    "summary": "Send the file of an import, in one piece or in several",
    "description": (
        "The body is passed on as it comes, whatever its length, and the import starts when the file is complete. An "
        "interrupted upload goes on with `Content-Range: bytes <first>-<last>/<size>` from `receivedBytes` of "
        "`GET /v1/imports/{importId}`; bytes that have arrived before do no harm.\n\nNeeds the scope `imports.write`."
    ),
    "security": [{"bearer": ["imports.write"]}, {"apiKey": ["imports.write"]}],
    "parameters": [
        _id("importId"),
        {
            "name": "Content-Range",
            "in": "header",
            "schema": {"type": "string"},
            "description": "Which part of the file the body is. Without it the body is the whole file.",
            "example": "bytes 1048576-2097151/5000000",
        },
    ],
    "requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}},
    "responses": {
        "200": {
            "description": "Everything is stored. `importJob` when the file is complete, else `receivedBytes`.",
            "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
        },
        **problem_responses(),
    },
}
_DOWNLOAD: Schema = {
    "tags": [TAG],
    "operationId": "downloadExportFile",
    "summary": "Get the file of an export",
    "description": "`Range: bytes=<first>-` goes on where a download stopped.\n\nNeeds the scope `exports.file`.",
    "security": [{"bearer": ["exports.file"]}, {"apiKey": ["exports.file"]}],
    "parameters": [_id("exportId")],
    "responses": {
        "200": {
            "description": "The file.",
            "content": {"text/csv": _BINARY, "application/vnd.apache.parquet": _BINARY},
        },
        "206": {"description": "The rest of the file.", "content": {"application/octet-stream": _BINARY}},
        **problem_responses(),
    },
}
_DATA_EXPORT: Schema = {
    "tags": [TAG],
    "operationId": "downloadDataExport",
    "summary": "Get the zip file of an access request",
    "description": (
        "Everything that all services keep of a customer, as JSON and CSV, with a page that explains it. 400 "
        "(FAILED_PRECONDITION) until the request is done.\n\nNeeds the scope `privacy.export`."
    ),
    "security": [{"bearer": ["privacy.export"]}, {"apiKey": ["privacy.export"]}],
    "parameters": [_id("dataRequestId")],
    "responses": {
        "200": {"description": "The file, `application/zip`.", "content": {"application/octet-stream": _BINARY}},
        **problem_responses(),
    },
}
