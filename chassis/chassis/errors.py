# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as meanings; `chassis.rpc` and `gateway.errors` map them once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """One field that broke one rule."""

    field: str
    rule: str


class DangolError(Exception):
    """A failure with a meaning that the caller can act on.

    `reason` is a stable upper-case code, `violations` name fields and rules, `metadata` holds further facts.
    """

    reason = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds


class Invalid(DangolError):
    """The request breaks a rule, whatever the state of the system."""

    reason = "INVALID"

    @classmethod
    def field(cls, field: str, rule: str, *, reason: str | None = None) -> "Invalid":
        """Name the one field and the one rule."""
        return cls(f"{field}: {rule}", reason=reason, violations=[Violation(field, rule)])


class NotFound(DangolError):
    """What the request names does not exist."""

    reason = "NOT_FOUND"


class Conflict(DangolError):
    """The request meets something that exists already, or lost a race."""

    reason = "CONFLICT"


class FailedPrecondition(DangolError):
    """The system is not in the state that the request needs."""

    reason = "FAILED_PRECONDITION"


class Unauthenticated(DangolError):
    """Nobody knows who is calling."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(DangolError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"


class ResourceExhausted(DangolError):
    """The caller asks for too much, or too often."""

    reason = "RESOURCE_EXHAUSTED"


class Unavailable(DangolError):
    """An engine or a service cannot be reached now; the same request may work later."""

    reason = "UNAVAILABLE"
