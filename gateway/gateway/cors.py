# SPDX-License-Identifier: Apache-2.0
"""Cross-origin answers (Fetch standard): browsers may use write keys from the origins of the key."""

from starlette.types import Scope

from gateway.access import Gatekeeper
from gateway.exchange import Headers, header

_ALLOWED_HEADERS = b"authorization, content-type, traceparent, tracestate, x-api-key, x-request-id, x-retry-count"
_EXPOSED_HEADERS = b"ratelimit, ratelimit-policy, retry-after, x-ratelimit-reset, x-request-id"
_VARY = (b"vary", b"origin")


def origin_headers(scope: Scope, gatekeeper: Gatekeeper) -> Headers:
    """Return the headers that let the page that asked read the answer; none for an origin of no write key."""
    origin = header(scope, b"origin")
    if origin is None:
        return []
    if not gatekeeper.allows_origin(origin.decode("latin-1")):
        return [_VARY]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
        _VARY,
    ]


def preflight_headers(scope: Scope, gatekeeper: Gatekeeper, methods: bytes) -> Headers:
    """Answer whether a page may send the request that it is about to send."""
    headers = origin_headers(scope, gatekeeper)
    if len(headers) < 2:
        return headers
    return [
        *headers,
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"7200"),
    ]
