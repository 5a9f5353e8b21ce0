# SPDX-License-Identifier: Apache-2.0
"""Times as clients write them, read leniently: one bad time never costs an event."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime

from chassis.clock import EPOCH, to_us

DAY_US = 86_400_000_000
NOT_GIVEN = 0

_MICROSECOND = timedelta(microseconds=1)
_LOOSE = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d+))?)?)?"
    r"\s*(?:(Z)|([+-])(\d{1,2}):?(\d{2})?)?",
    re.IGNORECASE | re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,19}(?:\.\d{1,9})?", re.ASCII)

_DAY = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])", re.ASCII)
"""A day of ISO 8601 without hyphens; nobody means the seconds of 1970 that it would be as a number."""


def read_time(value: object, zone: tzinfo = UTC) -> int:
    """Return microseconds since the epoch, or 0 when nobody can tell what was meant.

    Understands ISO 8601 in its many spellings, also without padding or zone (then that of `zone`), RFC 2822, and
    numbers of seconds, milliseconds, microseconds or nanoseconds.
    """
    if type(value) is str:
        try:
            return (datetime.fromisoformat(value) - EPOCH) // _MICROSECOND
        except (ValueError, TypeError):
            return _read_loosely(value.strip(), zone)
    if type(value) is int or type(value) is float:
        return _from_number(value)
    return NOT_GIVEN


def event_time(received_us: int, sent_us: int, original_us: int) -> int:
    """Correct the client's time for the error of its clock: received - (sent - original).

    What would lie more than a day ahead, or before 1970, is taken as received now; the client's own time is kept
    beside it in any case.
    """
    if original_us == NOT_GIVEN:
        return received_us
    time_us = received_us - (sent_us - original_us) if sent_us != NOT_GIVEN else original_us
    return time_us if 0 < time_us <= received_us + DAY_US else received_us


def _read_loosely(text: str, zone: tzinfo) -> int:
    if len(text) > 100:
        return NOT_GIVEN
    is_day = _DAY.fullmatch(text) is not None
    if not is_day and _NUMBER.fullmatch(text):
        return _from_number(float(text))
    try:
        moment = datetime.fromisoformat(text) if is_day else _read_parts(text) or parsedate_to_datetime(text)
        return to_us(moment if moment.tzinfo else moment.replace(tzinfo=zone))
    except (ValueError, TypeError, OverflowError, IndexError):
        return NOT_GIVEN


def _read_parts(text: str) -> datetime | None:
    found = _LOOSE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    microsecond = int(((found[7] or "") + "000000")[:6])
    offset = timedelta(hours=int(found[10] or 0), minutes=int(found[11] or 0))
    zone = timezone(-offset if found[9] == "-" else offset) if found[8] or found[9] else None
    return datetime(year, month, day, hour, minute, second, microsecond, zone)


def _from_number(value: float) -> int:
    """Tell the unit from the size: today is 1.8e9 seconds, 1.8e12 milliseconds, 1.8e15 microseconds."""
    size = abs(value)
    if size < 1e11:
        return int(value * 1_000_000)
    if size < 1e14:
        return int(value * 1000)
    if size < 1e17:
        return int(value)
    return int(value / 1000) if size < 1e20 else NOT_GIVEN
