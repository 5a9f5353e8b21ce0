# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a request to a batch of raw events, within limits at every step."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import msgspec
from chassis.incoming import repair
from grpc import StatusCode

from gateway.errors import Refusal
from gateway.exchange import too_large
from gateway.ingest import shapes

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP = 31
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MANY_BYTES = 2**20
_MANY_MEMBERS = 300_000


@dataclass(slots=True)
class Incoming:
    """A request's events before anyone has looked at them."""

    events: list[msgspec.Raw] | list[bytes]
    write_key: str
    sent_at: Any
    context: msgspec.Raw
    may_hold_nul: bool


def inflate(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    """Undo gzip, never making more than `limit` bytes of it; raises `Refusal`."""
    if encoding is not None and encoding.strip().lower() not in (b"gzip", b"x-gzip", b"identity", b""):
        raise Refusal(
            415, StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_ENCODING", "Content-Encoding must be gzip or identity"
        )
    if body[:2] != _GZIP_MAGIC:
        if encoding is not None and b"gzip" in encoding.lower():
            raise _bad_gzip()
        return body
    # JSON never begins like this, so a body that lost its Content-Encoding on the way is understood too.
    return _inflate(body, limit)


def _inflate(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while body:
        inflater = zlib.decompressobj(_GZIP)
        try:
            part = inflater.decompress(body, left + 1)
        except zlib.error as error:
            raise _bad_gzip() from error
        left -= len(part)
        if left < 0:
            raise too_large(limit)
        if not inflater.eof:
            raise _bad_gzip()
        parts.append(part)
        body = inflater.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _bad_gzip() -> Refusal:
    return Refusal(400, StatusCode.INVALID_ARGUMENT, "INVALID_GZIP", "the body is not gzip")


def decode(body: bytes, *, is_batch: bool) -> Incoming:
    """Split a body into events; JSON that no decoder can read is refused, everything else is judged per event."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if len(body) > _MANY_BYTES and body.count(b",") > _MANY_MEMBERS:
        # Millions of tiny members would take a hundred times their size in memory.
        raise _refuse("BODY_TOO_LARGE", "the body has too many members", status=413)
    try:
        return _decode(body, is_batch)
    except msgspec.ValidationError as error:
        raise _refuse("WRONG_TYPE", str(error)) from error
    except RecursionError as error:
        raise _refuse(repair.NESTED_TOO_DEEP, "the body is nested too deep") from error
    except ValueError as error:
        return _decode_repaired(body, is_batch, error)


def _decode_repaired(body: bytes, is_batch: bool, why: ValueError) -> Incoming:
    """Have a second look at JSON with NaN or half surrogate pairs, which real clients send."""
    if not repair.is_repairable(body):
        raise _invalid(why)
    try:
        return _decode(repair.repair(body), is_batch)
    except msgspec.ValidationError as error:
        raise _refuse("WRONG_TYPE", str(error)) from error
    except RecursionError as error:
        raise _refuse(repair.NESTED_TOO_DEEP, "the body is nested too deep") from error
    except ValueError as error:
        raise _invalid(error) from error


def _decode(body: bytes, is_batch: bool) -> Incoming:
    may_hold_nul = b"\\u0000" in body
    if is_batch:
        batch = shapes.decode_batch(body)
        return Incoming(batch.batch, _text(batch.write_key), batch.sent_at, batch.context, may_hold_nul)
    single = shapes.decode_single(body)
    return Incoming([body], _text(single.write_key), single.sent_at, msgspec.Raw(), may_hold_nul)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _invalid(error: ValueError) -> Refusal:
    words = "text must be UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    return _refuse("INVALID_JSON", repair.clean_text(words)[:300])


def _refuse(reason: str, message: str, status: int = 400) -> Refusal:
    return Refusal(status, StatusCode.INVALID_ARGUMENT, reason, message)
