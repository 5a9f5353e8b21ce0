# SPDX-License-Identifier: Apache-2.0
"""Why an event is not taken."""

from typing import NamedTuple

import msgspec
from chassis.incoming import repair
from chassis.incoming.names import text_of
from chassis.incoming.repair import Unstorable

from gateway.ingest import shapes
from gateway.ingest.shapes import MAX_MESSAGE_ID_LENGTH

KEPT_BODY_BYTES = 4096
KEPT_DETAIL_LENGTH = 500
_TOO_LONG = "of length <="
"""How msgspec says it."""


class Rejected(NamedTuple):
    """An event that is not published, and what is kept of it to look at."""

    position: int
    message_id: str
    reason: str
    detail: str
    body: bytes


class Rejection(Exception):
    """A stable code, and words that name the field and the rule."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def rejection_of(error: Exception, name: str = "") -> Rejection:
    """Turn what a decoder says into a verdict."""
    where = f"{name}: " if name else ""
    if isinstance(error, Unstorable):
        return Rejection(error.reason, f"{where}{error}")
    if isinstance(error, msgspec.ValidationError):
        return Rejection("TOO_LONG" if _TOO_LONG in str(error) else "WRONG_TYPE", f"{where}{error}")
    if isinstance(error, UnicodeDecodeError):
        return Rejection("INVALID_UTF8", f"{where}text must be UTF-8")
    if isinstance(error, RecursionError):
        return Rejection(repair.NESTED_TOO_DEEP, f"{where}is nested too deep")
    return Rejection("INVALID_JSON", f"{where}{error}")


def reject(position: int, raw: bytes | msgspec.Raw, rejection: Rejection) -> Rejected:
    """Return the record of an event that is not taken; all of it is text that every store can hold."""
    body = repair.clean_text(bytes(raw)[:KEPT_BODY_BYTES].decode(errors="replace"))
    detail = repair.clean_text(rejection.detail)[:KEPT_DETAIL_LENGTH]
    return Rejected(position, _claimed_message_id(raw), rejection.reason, detail, body.encode())


def _claimed_message_id(raw: bytes | msgspec.Raw) -> str:
    try:
        claimed = shapes.decode_message_id(raw).message_id
    except (ValueError, RecursionError):
        return ""
    text = text_of(claimed) if isinstance(claimed, str | int | float) else ""
    return repair.clean_text(text)[:MAX_MESSAGE_ID_LENGTH]
