# SPDX-License-Identifier: Apache-2.0
"""`GET /v1/projects/{writeKey}/settings`: what Segment's browser client asks for before it sends anything."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from grpc import StatusCode
from starlette.types import Receive, Scope, Send

from gateway.access import Gatekeeper
from gateway.cors import origin_headers, preflight_headers
from gateway.errors import Refusal, method_not_allowed, segment_body
from gateway.exchange import header, respond, respond_empty

_PATH = re.compile(r"/v1/projects/([^/]+)/settings/?")
_HOST = re.compile(rb"[A-Za-z0-9.:\[\]-]{1,255}")


class BrowserSettingsEndpoint:
    """Tells the browser client where to send, with which key."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for the browser's settings."""
        return scope["path"].startswith("/v1/projects/") and _PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["dangol.route"] = "/v1/projects/{writeKey}/settings"
        if scope["method"] == "OPTIONS":
            await respond_empty(send, 204, preflight_headers(scope, self._gatekeeper, b"GET"))
            return
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET, HEAD, OPTIONS")
        await respond(send, 200, self._settings(scope), headers=origin_headers(scope, self._gatekeeper))

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with the two keys that Segment's clients need."""
        headers = origin_headers(scope, self._gatekeeper) + refusal.all_headers()
        await respond(send, refusal.status, segment_body(refusal), headers=headers)

    def _settings(self, scope: Scope) -> bytes:
        found = _PATH.fullmatch(scope["path"])
        write_key = found[1] if found else ""
        if self._gatekeeper.write_key(write_key) is None:
            raise Refusal(404, StatusCode.NOT_FOUND, "UNKNOWN_KEY", "no such write key")
        return msgspec.json.encode({"integrations": {"Segment.io": _destination(write_key, scope)}, "plan": _PLAN})


_PLAN = {"track": {"__default": {"enabled": True, "integrations": {}}}}


def _destination(write_key: str, scope: Scope) -> dict[str, Any]:
    destination: dict[str, Any] = {
        "apiKey": write_key,
        "unbundledIntegrations": [],
        "addBundledMetadata": False,
        "maybeBundledConfigIds": {},
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    }
    host = header(scope, b"host")
    if host is not None and _HOST.fullmatch(host):
        # Without these two the client would send to Segment.
        destination |= {"apiHost": f"{host.decode()}/v1", "protocol": scope.get("scheme", "https")}
    return destination
