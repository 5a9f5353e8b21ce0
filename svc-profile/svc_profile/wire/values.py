# SPDX-License-Identifier: Apache-2.0
"""Values that the contract can hold, and positions in lists."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from chassis.errors import Invalid
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

# What a protobuf Timestamp can say: the years 1 to 9999.
FIRST_US = -62_135_596_800_000_000
LAST_US = 253_402_300_799_999_999


def fill_struct(struct: Struct, values: Mapping[str, Any]) -> None:
    """Write JSON values into a Struct; a whole number that a double cannot hold exactly becomes text."""
    struct.Clear()
    struct.update({name: _exact(value) for name, value in values.items()})


def _exact(value: Any) -> Any:
    """Keep the value of a number that a Struct's double cannot hold: as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value) if _fits_double(value) else str(value)
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return value


def _fits_double(value: int) -> bool:
    try:
        return Decimal(repr(float(value))) == value
    except (OverflowError, InvalidOperation):
        return False


def in_years(time_us: int) -> int:
    """Bring a time into the years that a Timestamp can say."""
    return min(max(time_us, FIRST_US), LAST_US)


def read_time(timestamp: Timestamp, field: str) -> int:
    """Read a time of a request in microseconds; raises `Invalid` for one outside the years 1 to 9999."""
    time_us = timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000
    if not FIRST_US <= time_us <= LAST_US:
        raise Invalid.field(field, "must be in the years 1 to 9999")
    return time_us


def require_empty(token: Mapping[str, Any]) -> None:
    """Raise `Invalid` unless a page token is that of the beginning."""
    if token:
        raise bad_token()


def in_bigint(value: int) -> int:
    """Raise `Invalid` when PostgreSQL has no place for a number of a page token."""
    if not -(2**63) <= value < 2**63:
        raise bad_token()
    return value


def bad_token() -> Invalid:
    """Return the error of a page token that nobody gave out."""
    return Invalid.field("page_token", "must be the next_page_token of an earlier answer")


def key_in(text: str) -> bytes:
    """Read the 16 bytes of an id out of a page token; raises `Invalid`."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise bad_token()
    return key
