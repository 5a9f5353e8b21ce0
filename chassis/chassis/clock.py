# SPDX-License-Identifier: Apache-2.0
"""Times: always UTC-aware, microseconds on the wire."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """Return the current time, UTC-aware."""
    return datetime.now(UTC)


def from_us(microseconds: int) -> datetime:
    """Turn microseconds since the epoch into a time; exact, no floating point."""
    return EPOCH + timedelta(microseconds=microseconds)


def to_us(moment: datetime) -> int:
    """Turn a time into microseconds since the epoch; exact, no floating point."""
    return (moment - EPOCH) // _MICROSECOND


def to_timestamp(moment: datetime) -> Timestamp:
    """Turn a time into a protobuf timestamp."""
    return timestamp_from_us(to_us(moment))


def timestamp_from_us(microseconds: int) -> Timestamp:
    """Turn microseconds since the epoch into a protobuf timestamp."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """Turn a protobuf timestamp into a time."""
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
