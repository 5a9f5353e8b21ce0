# SPDX-License-Identifier: Apache-2.0
"""The hand-written routes in the API document: Segment-compatible ingest, health."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.ingest.endpoint import MAX_BATCH_EVENTS, IngestAnswer
from gateway.openapi.schemas import Schema

TAG = "events"
_KINDS: dict[str, tuple[str, Schema]] = {
    "identify": ("Say who a customer is", {"traits": {"name": "김단골", "city": "Seoul"}}),
    "track": ("Say what a customer did", {"event": "Order Completed", "properties": {"revenue": 29000}}),
    "page": ("Say that a web page was viewed", {"name": "Home"}),
    "screen": ("Say that an app screen was viewed", {"name": "Cart"}),
    "group": ("Say that a customer belongs to a group", {"groupId": "company-1", "traits": {"plan": "pro"}}),
    "alias": ("Say that two ids belong to one customer", {"previousId": "visitor-1"}),
}
_SECURITY = [{"basic": []}, {"bearer": ["events.write"]}, {"apiKey": ["events.write"]}, {}]
_ERRORS = {
    "400": "The body cannot be read.",
    "401": "No known write key.",
    "403": "The key may not ingest, or not from this origin.",
    "413": "The body is too large.",
    "429": "Too often; `Retry-After` says when to come again.",
    "503": "The events could not be stored; send them again after `Retry-After`.",
}


def paths() -> dict[str, dict[str, Any]]:
    """Return the path items of ingest."""
    items = {
        "/v1/batch": {"post": _operation("sendBatch", "Send many events at once", "Batch", _BATCH_EXAMPLE)},
        "/v1/import": {
            "post": _operation("importBatch", "Send many events at once (older clients)", "Batch", _BATCH_EXAMPLE)
        },
    }
    for kind, (summary, example) in _KINDS.items():
        body = {"userId": "customer-0001", **example}
        items[f"/v1/{kind}"] = {"post": _operation(kind, summary, "Event", body)}
    items["/v1/projects/{writeKey}/settings"] = {"get": _SETTINGS}
    items["/v1/webhooks/{sourceName}"] = {"post": _WEBHOOK}
    return items


def schemas() -> dict[str, Schema]:
    """Return the schemas of ingest."""
    (_, components) = msgspec.json.schema_components([IngestAnswer], ref_template="#/components/schemas/{name}")
    return {**components, "Event": _EVENT, "Batch": _BATCH, "IngestError": _INGEST_ERROR}


def _operation(operation_id: str, summary: str, body: str, example: Schema) -> Schema:
    return {
        "tags": [TAG],
        "operationId": operation_id,
        "summary": summary,
        "description": _DESCRIPTION,
        "security": _SECURITY,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(body), "example": example}},
        },
        "responses": {
            "200": {
                "description": "JetStream has stored the events that were accepted; the others are listed.",
                "content": {"application/json": {"schema": _ref("IngestAnswer")}},
            },
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _error(description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": _ref("IngestError")}}}


_DESCRIPTION = """\
Compatible with the clients of Segment and RudderStack. The write key goes as the user name of Basic authentication, as
a bearer token, in `X-API-Key`, or as `writeKey` in the body. The body may be gzipped. A bad event costs only itself: it
is listed in the answer with a reason, and kept (`GET /v1/rejected-events`)."""

_TEXT: Schema = {"type": ["string", "number", "null"]}
_OBJECT: Schema = {"type": ["object", "null"], "additionalProperties": True}
_EVENT: Schema = {
    "type": "object",
    "description": "One thing that one customer did. One of `userId` and `anonymousId` is needed.",
    "properties": {
        "type": {
            "type": "string",
            "enum": list(_KINDS),
            "description": "Needed in a batch; elsewhere the path says it.",
        },
        "messageId": {**_TEXT, "description": "Tells repetitions; made by the gateway when missing."},
        "userId": {**_TEXT, "description": "The customer's id at the company."},
        "anonymousId": {**_TEXT, "description": "Id of the browser or device."},
        "event": {**_TEXT, "description": "`track`: name of the event, at most 255 characters."},
        "name": {**_TEXT, "description": "`page`, `screen`: name of the page or screen."},
        "category": {**_TEXT, "description": "`page`, `screen`: category."},
        "groupId": {**_TEXT, "description": "`group`: id of the group."},
        "previousId": {**_TEXT, "description": "`alias`: the id that the customer had before."},
        "properties": {
            **_OBJECT,
            "description": "`track`, `page`, `screen`: anything about it, at most 24 levels deep.",
        },
        "traits": {**_OBJECT, "description": "`identify`, `group`: what is known of the customer or the group."},
        "context": {**_OBJECT, "description": "Where it happened: library, page, device, locale."},
        "timestamp": {**_TEXT, "description": "When it happened, by the client's clock."},
        "sentAt": {**_TEXT, "description": "When it was sent, by the client's clock, which corrects `timestamp`."},
        "writeKey": {**_TEXT, "description": "The write key, when no header has it."},
    },
}
_BATCH: Schema = {
    "type": "object",
    "description": f"Up to {MAX_BATCH_EVENTS} events.",
    "properties": {
        "batch": {"type": "array", "items": _ref("Event"), "maxItems": MAX_BATCH_EVENTS},
        "sentAt": {**_TEXT, "description": "When the batch was sent, by the client's clock."},
        "context": {**_OBJECT, "description": "Context of all events; an event's own members win."},
        "writeKey": {**_TEXT, "description": "The write key, when no header has it."},
    },
    "required": ["batch"],
}
_BATCH_EXAMPLE: Schema = {
    "batch": [
        {"type": "identify", "userId": "customer-0001", "traits": {"city": "Seoul"}},
        {"type": "track", "userId": "customer-0001", "event": "Order Completed", "properties": {"revenue": 29000}},
    ]
}
_INGEST_ERROR: Schema = {
    "type": "object",
    "description": "Why nothing of the request was taken.",
    "properties": {
        "code": {"type": "string", "description": "Stable upper-case code."},
        "message": {"type": "string", "description": "The same in words."},
    },
    "required": ["code", "message"],
}
_SETTINGS: Schema = {
    "tags": [TAG],
    "operationId": "getBrowserSettings",
    "summary": "What Segment's browser client asks for before it sends anything",
    "description": "Tells the client where to send.",
    "security": [],
    "parameters": [{"name": "writeKey", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {
        "200": {
            "description": "Settings of the `Segment.io` destination.",
            "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
        },
        "404": _error("No such write key."),
    },
}
_PROBLEM_ANSWERS = {
    "400": "The body is not JSON.",
    "401": "The signature does not fit.",
    "404": "No such source.",
    "413": "The body is too large.",
    "503": "The events could not be stored; send them again after `Retry-After`.",
}
_WEBHOOK: Schema = {
    "tags": [TAG],
    "operationId": "sendWebhook",
    "summary": "Take what a third party sends",
    "description": "For sources of `DANGOL_INCOMING_WEBHOOKS`, whose rules turn signed JSON into events.",
    "security": [],
    "parameters": [{"name": "sourceName", "in": "path", "required": True, "schema": {"type": "string"}}],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"description": "What the sender sends."}}},
    },
    "responses": {
        "200": {
            "description": "JetStream has stored the events that the rules made.",
            "content": {"application/json": {"schema": _ref("IngestAnswer")}},
        },
        **{
            status: {"description": text, "content": {"application/problem+json": {"schema": _ref("Problem")}}}
            for status, text in _PROBLEM_ANSWERS.items()
        },
    },
}
