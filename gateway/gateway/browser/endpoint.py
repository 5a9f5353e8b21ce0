# SPDX-License-Identifier: Apache-2.0
"""`GET /sdk/v1/dangol.js`: the tracker that pages load."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from gateway.browser import script
from gateway.browser.script import Form
from gateway.errors import Refusal, method_not_allowed
from gateway.exchange import Headers, header, respond, respond_empty
from gateway.problems import respond_with_problem

PATH = "/sdk/v1/dangol.js"

_JAVASCRIPT = b"text/javascript; charset=utf-8"
_HEADERS: Headers = [
    # A day without asking, a week with the old one while asking: an update reaches every page within a day.
    (b"cache-control", b"public, max-age=86400, stale-while-revalidate=604800"),
    # Any page may load it, also with `crossorigin` and `integrity`, and pages that isolate themselves.
    (b"access-control-allow-origin", b"*"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"vary", b"accept-encoding"),
]


class BrowserScriptEndpoint:
    """Serves one file from memory."""

    def __init__(self) -> None:
        self._script = script.load()

    def accepts(self, scope: Scope) -> bool:
        """Tell whether a request is for the script."""
        return bool(scope["path"] == PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the script, or say that the caller's copy is still good."""
        scope["dangol.route"] = PATH
        if scope["method"] not in ("GET", "HEAD"):
            raise method_not_allowed("GET, HEAD")
        is_gzip = _takes_gzip(header(scope, b"accept-encoding") or b"")
        form = self._script.gzipped if is_gzip else self._script.plain
        headers = [*_HEADERS, (b"etag", form.etag)]
        if _is_known(scope, form):
            await respond_empty(send, 304, headers)
            return
        encoding: Headers = [(b"content-encoding", b"gzip")] if is_gzip else []
        await respond(send, 200, form.body, content_type=_JAVASCRIPT, headers=[*headers, *encoding])

    async def refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        """Answer with a problem."""
        await respond_with_problem(scope, send, refusal)


def _takes_gzip(accepted: bytes) -> bool:
    for coding in accepted.lower().replace(b" ", b"").split(b","):
        name, _, quality = coding.partition(b";q=")
        if name in (b"gzip", b"x-gzip", b"*"):
            return not quality or quality.strip(b"0.") != b""
    return False


def _is_known(scope: Scope, form: Form) -> bool:
    """Compare weakly, as `If-None-Match` is compared: proxies that compress make tags weak."""
    known = header(scope, b"if-none-match") or b""
    return known.strip() == b"*" or form.etag in {tag.strip().removeprefix(b"W/") for tag in known.split(b",")}
