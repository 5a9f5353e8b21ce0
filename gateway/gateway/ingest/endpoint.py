# SPDX-License-Identifier: Apache-2.0
"""The Segment-compatible ingest routes, served without any layer between them and ASGI."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from chassis.incoming.times import read_time
from chassis.keys import ApiKey
from starlette.types import Receive, Scope, Send

from gateway import telemetry
from gateway.access import Gatekeeper
from gateway.cors import origin_headers, preflight_headers
from gateway.errors import Refusal, method_not_allowed, segment_body
from gateway.exchange import Headers, header, read_body, respond, respond_empty
from gateway.ingest import body, verdict
from gateway.ingest.journal import Journal
from gateway.ingest.rejection import Rejected, Rejection, reject
from gateway.ingest.verdict import Examiner, Taken
from gateway.limits import Limiter

MAX_BATCH_EVENTS = 2500
MAX_LISTED_ERRORS = 100
MAX_KEPT_REJECTIONS = 2500
"""Rejections of one request that are kept to look at; all are counted."""

BATCH = "batch"
_SINGLE = ("identify", "track", "page", "screen", "group", "alias")

KIND_OF_PATH: Mapping[str, str] = {
    f"/v1/{name}{slash}": kind
    for slash in ("", "/")
    for name, kind in (
        ("batch", BATCH),
        ("import", BATCH),
        ("b", BATCH),
        *((kind, kind) for kind in _SINGLE),
        *((kind[0], kind) for kind in _SINGLE),
    )
}
"""What each path takes. The one-letter paths belong to the browser client."""


class EventError(msgspec.Struct, rename="camel"):
    """One rejected event, as the answer lists it."""

    position: int
    message_id: str
    reason: str
    detail: str


class IngestAnswer(msgspec.Struct):
    """The answer to an ingest request; clients of Segment look at the status alone."""

    success: bool
    accepted: int
    rejected: int
    errors: list[EventError]


class IngestEndpoint:
    """Takes events in and answers when JetStream has stored them."""

    def __init__(
        self, gatekeeper: Gatekeeper, limiter: Limiter, journal: Journal, *, shards: int, max_body_bytes: int
    ) -> None:
        self._gatekeeper = gatekeeper
        self._limiter = limiter
        self._journal = journal
        self._shards = shards
        self._max_body_bytes = max_body_bytes

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for ingest."""
        return scope["path"] in KIND_OF_PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request when its events are stored."""
        kind = KIND_OF_PATH[scope["path"]]
        scope["dangol.route"] = f"/v1/{kind}"
        if scope["method"] == "OPTIONS":
            await respond_empty(send, 204, preflight_headers(scope, self._gatekeeper, b"POST"))
            return
        if scope["method"] != "POST":
            raise method_not_allowed("OPTIONS, POST")
        headers = origin_headers(scope, self._gatekeeper)
        answer = await self._ingest(scope, receive, kind, headers)
        await respond(send, 200, answer, headers=headers)

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with the two keys that Segment's clients need."""
        headers = origin_headers(scope, self._gatekeeper) + refusal.all_headers()
        await respond(send, refusal.status, segment_body(refusal), headers=headers)

    async def _ingest(self, scope: Scope, receive: Receive, kind: str, headers: Headers) -> bytes:
        key = self._gatekeeper.ingest_key(scope)
        if key is not None:
            headers += self._limiter.admit(key)
        limit = key.max_batch_bytes if key else self._max_body_bytes
        sent = await read_body(scope, receive, limit)
        received_us = time.time_ns() // 1000
        text = body.inflate(sent, header(scope, b"content-encoding"), limit)
        incoming = body.decode(text, is_batch=kind == BATCH)
        if key is None:
            key = self._gatekeeper.ingest_key_of_body(incoming.write_key, scope)
            headers += self._limiter.admit(key)
        taken, rejected = self._judge(incoming, key, kind, received_us)
        self._limiter.count_events(key, len(taken) + len(rejected))
        if taken or rejected:
            kept = rejected[:MAX_KEPT_REJECTIONS]
            await self._journal.write(taken, kept, source=key.id, received_us=received_us)
        return answer_of(taken, rejected)

    def _judge(
        self, incoming: body.Incoming, key: ApiKey, kind: str, received_us: int
    ) -> tuple[list[Taken], list[Rejected]]:
        examiner = Examiner(
            source=key.id,
            shards=self._shards,
            max_event_bytes=key.max_event_bytes,
            received_us=received_us,
            sent_us=read_time(incoming.sent_at),
            type=verdict.TYPES.get(kind, 0),
            batch_context=verdict.context_of_batch(incoming.context),
            may_hold_nul=incoming.may_hold_nul,
        )
        return judge(examiner, incoming.events)


def judge(examiner: Examiner, events: Sequence[msgspec.Raw | bytes]) -> tuple[list[Taken], list[Rejected]]:
    """Return which events of a request are taken and which are not."""
    taken: list[Taken] = []
    rejected: list[Rejected] = []
    for position, raw in enumerate(events[:MAX_BATCH_EVENTS]):
        judged = examiner.examine(position, raw)
        if isinstance(judged, Rejected):
            rejected.append(judged)
        else:
            taken.append(judged)
    too_many = Rejection("BATCH_TOO_LONG", f"a batch may hold at most {MAX_BATCH_EVENTS} events")
    for position in range(MAX_BATCH_EVENTS, len(events)):
        rejected.append(reject(position, events[position], too_many))
    return taken, rejected


def answer_of(taken: Sequence[Taken], rejected: Sequence[Rejected]) -> bytes:
    """Render the answer, and count."""
    telemetry.TAKEN.inc(len(taken))
    if not rejected:
        return b'{"success":true,"accepted":%d,"rejected":0,"errors":[]}' % len(taken)
    for reason, count in Counter(event.reason for event in rejected).items():
        telemetry.EVENTS.labels(reason).inc(count)
    listed = [EventError(e.position, e.message_id, e.reason, e.detail) for e in rejected[:MAX_LISTED_ERRORS]]
    return msgspec.json.encode(IngestAnswer(True, len(taken), len(rejected), listed))
