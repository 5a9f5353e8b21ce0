# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as HTTP: one table from gRPC codes, RFC 9457 problems, and the two-key body of Segment clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from chassis.errors import DangolError, Violation
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError

from chassis import errors

HTTP_STATUS_OF: Mapping[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 500,
    StatusCode.UNAUTHENTICATED: 401,
}
"""The mapping of google.api.http; a test asserts that it is complete."""

CODE_OF: Mapping[type[DangolError], StatusCode] = {
    errors.Invalid: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.Conflict: StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.ResourceExhausted: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
}
"""Codes of what the gateway itself raises."""

CLIENT_CLOSED_REQUEST = HTTP_STATUS_OF[StatusCode.CANCELLED]
MAX_RETRY_AFTER_S = 300
"""Clients of Segment ignore or cap what is longer."""


class Refusal(Exception):
    """An answer other than success: everything that either kind of error body needs."""

    def __init__(
        self,
        status: int,
        code: StatusCode,
        reason: str,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = _retry_after(status, retry_after_seconds)
        self.headers = list(headers)

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that belong to the answer, `Retry-After` and `WWW-Authenticate` among them."""
        headers = list(self.headers)
        if self.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_seconds))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b'Bearer realm="dangol"'))
        return headers


def _retry_after(status: int, seconds: int | None) -> int | None:
    if seconds is None and status not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return None
    return max(1, min(seconds or 1, MAX_RETRY_AFTER_S))


def refusal_of(error: DangolError) -> Refusal:
    """Turn a meaning into an answer."""
    code = CODE_OF[type(error)]
    return Refusal(
        HTTP_STATUS_OF[code],
        code,
        error.reason,
        error.message,
        violations=error.violations,
        metadata=error.metadata,
        retry_after_seconds=error.retry_after_seconds,
    )


def method_not_allowed(allowed: str) -> Refusal:
    """Return the answer to a method that a path does not take."""
    return Refusal(
        405,
        StatusCode.UNIMPLEMENTED,
        "METHOD_NOT_ALLOWED",
        f"this path takes {allowed}",
        headers=[(b"allow", allowed.encode())],
    )


def internal() -> Refusal:
    """Return the answer to a bug: no detail leaves the process."""
    return Refusal(500, StatusCode.INTERNAL, "INTERNAL", "something went wrong; the request id finds it in the logs")


def refusal_of_rpc(error: AioRpcError) -> Refusal:
    """Turn the failure of a call to a service into an answer with the same facts."""
    code = error.code()
    details = _Details(error)
    message = error.details() or code.name
    if code is StatusCode.UNAVAILABLE and details.reason is None:
        # What gRPC itself says here names addresses of the inside.
        message = "a service cannot be reached; the same request may work in a moment"
    return Refusal(
        HTTP_STATUS_OF.get(code, 500),
        code,
        details.reason or code.name,
        message,
        violations=details.violations,
        metadata=details.metadata,
        retry_after_seconds=details.retry_after_seconds,
    )


class _Details:
    """The google.rpc details of a failed call."""

    def __init__(self, error: AioRpcError) -> None:
        self.reason: str | None = None
        self.metadata: dict[str, str] = {}
        self.violations: list[Violation] = []
        self.retry_after_seconds: int | None = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                self._read(status_pb2.Status.FromString(value))

    def _read(self, status: status_pb2.Status) -> None:
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                self.reason, self.metadata = info.reason or None, dict(info.metadata)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                request = error_details_pb2.BadRequest.FromString(detail.value)
                self.violations += [Violation(json_path(v.field), v.description) for v in request.field_violations]
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                self.retry_after_seconds = delay.seconds + (delay.nanos > 0)


def json_path(path: str) -> str:
    """Spell a path of proto field names as the JSON that clients see: `page_size` is `pageSize`."""
    head, *rest = path.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


class _ProblemViolation(msgspec.Struct):
    field: str
    rule: str


class _Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457, with the facts of google.rpc as extension members."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    reason: str
    request_id: str = msgspec.field(name="requestId")
    violations: list[_ProblemViolation] = []
    metadata: dict[str, str] = {}


class _SegmentError(msgspec.Struct):
    code: str
    message: str


_encode = msgspec.json.Encoder().encode


def problem_body(refusal: Refusal, *, instance: str, request_id: str) -> bytes:
    """Render an answer as `application/problem+json`."""
    return _encode(
        _Problem(
            type=f"urn:dangol:problem:{refusal.reason.lower().replace('_', '-')}",
            title=title_of(refusal.status),
            status=refusal.status,
            detail=refusal.message,
            instance=instance,
            code=refusal.code.name,
            reason=refusal.reason,
            request_id=request_id,
            violations=[_ProblemViolation(v.field, v.rule) for v in refusal.violations],
            metadata=refusal.metadata,
        )
    )


def segment_body(refusal: Refusal) -> bytes:
    """Render an answer with the two keys without which clients of Segment retry for ever."""
    return _encode(_SegmentError(refusal.reason, refusal.message))


def title_of(status: int) -> str:
    """Return the reason phrase of a status."""
    return "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
