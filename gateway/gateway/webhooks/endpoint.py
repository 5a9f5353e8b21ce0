# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/webhooks/{sourceName}`: a third party's JSON becomes events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from chassis.incoming import repair
from grpc import StatusCode
from msgspec import Raw
from starlette.types import Receive, Scope, Send

from gateway.errors import Refusal
from gateway.exchange import header, read_body, respond
from gateway.ingest.endpoint import answer_of, judge
from gateway.ingest.journal import Journal
from gateway.ingest.verdict import Examiner
from gateway.problems import respond_with_problem
from gateway.webhooks.mapping import Mapper
from gateway.webhooks.signatures import FindHeader
from gateway.webhooks.sources import Source

ROUTE = "/v1/webhooks/{sourceName}"

_PATH = re.compile(r"/v1/webhooks/([^/:]+)/?")


class WebhookEndpoint:
    """Takes what third parties send and answers when JetStream has stored the events."""

    def __init__(self, sources: Mapping[str, Source], journal: Journal, *, shards: int) -> None:
        self._sources = {name: (source, Mapper(source.rules)) for name, source in sources.items()}
        self._journal = journal
        self._shards = shards

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is a webhook."""
        return scope["method"] == "POST" and _PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request when its events are stored."""
        scope["dangol.route"] = ROUTE
        source, mapper = self._source(scope["path"])
        body = await read_body(scope, receive, source.max_body_bytes)
        received_us = time.time_ns() // 1000
        # Nothing of the body is looked at before it is certain whose it is.
        delivery = source.signature.verify(_headers_of(scope), body, received_us / 1e6)
        events = [_storable(event) for event in mapper.events(_decode(body), delivery)]
        examiner = Examiner(
            source=source.name,
            shards=self._shards,
            max_event_bytes=source.max_event_bytes,
            received_us=received_us,
        )
        taken, rejected = judge(examiner, events)
        if taken or rejected:
            await self._journal.write(taken, rejected, source=source.name, received_us=received_us)
        await respond(send, 200, answer_of(taken, rejected))

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem."""
        await respond_with_problem(scope, send, refusal)

    def _source(self, path: str) -> tuple[Source, Mapper]:
        found = _PATH.fullmatch(path)
        known = self._sources.get(found[1]) if found else None
        if known is None:
            raise Refusal(404, StatusCode.NOT_FOUND, "UNKNOWN_WEBHOOK", "no webhook of this name is configured")
        return known


def _storable(event: bytes) -> Raw:
    return Raw(repair.repair(event) if repair.is_repairable(event) else event)


def _headers_of(scope: Scope) -> FindHeader:
    def find(name: str) -> str | None:
        value = header(scope, name.encode())
        return None if value is None else value.decode("latin-1").strip()

    return find


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, StatusCode.INVALID_ARGUMENT, "INVALID_JSON", "the body is not JSON") from error
