# SPDX-License-Identifier: Apache-2.0
"""Answer with `application/problem+json` (RFC 9457)."""

from collections.abc import Callable, Iterable, Mapping

from grpc import StatusCode
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope, Send

from gateway.errors import Refusal, internal, problem_body
from gateway.exchange import PROBLEM, respond


async def respond_with_problem(
    scope: Scope, send: Send, refusal: Refusal, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a refused request."""
    body = problem_body(
        refusal,
        instance=scope["raw_path"].decode("latin-1"),
        request_id=scope.get("dangol.request_id", ""),
    )
    await respond(send, refusal.status, body, content_type=PROBLEM, headers=[*headers, *refusal.all_headers()])


async def problem_of_exception(request: Request, error: Exception) -> Response:
    """Render what Starlette itself refuses: paths that nobody serves, methods that a path does not take."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    refusal = _REFUSALS.get(status, internal)()
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body = problem_body(
        refusal,
        instance=request.scope["raw_path"].decode("latin-1"),
        request_id=request.scope.get("dangol.request_id", ""),
    )
    return Response(body, status_code=refusal.status, media_type=PROBLEM.decode(), headers=headers)


_REFUSALS: Mapping[int, Callable[[], Refusal]] = {
    404: lambda: Refusal(404, StatusCode.NOT_FOUND, "ROUTE_NOT_FOUND", "nothing is served at this path"),
    405: lambda: Refusal(405, StatusCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this path takes other methods"),
}
