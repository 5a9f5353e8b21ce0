# SPDX-License-Identifier: Apache-2.0
"""One value of a file: what text and times become."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from chassis.clock import EPOCH
from chassis.errors import Invalid
from chassis.incoming.times import NOT_GIVEN, read_time

_MICROSECOND = timedelta(microseconds=1)
_SIGNS = ("+", "-")
_TRUE = frozenset({"true", "yes", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "n", "f", "0"})


class Times:
    """Reads times as a mapping says that they are written."""

    def __init__(self, time_zone: str, time_format: str) -> None:
        try:
            self._zone = ZoneInfo(time_zone) if time_zone else UTC
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise Invalid.field(
                "mapping.time_zone", "must be a zone of the IANA database, such as Asia/Seoul"
            ) from error
        self._format = time_format

    def read(self, value: Any) -> int:
        """Return microseconds since the epoch; raises ValueError."""
        if isinstance(value, str):
            moment = self._read_text(value.strip())
            if isinstance(moment, int):
                return moment
        elif isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone follows
        else:
            return _known(read_time(value))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self._zone)
        return (moment - EPOCH) // _MICROSECOND

    def _read_text(self, text: str) -> datetime | int:
        if text.isdecimal() and len(text) > 8 and not self._format:
            return _known(read_time(int(text)))
        if self._format:
            return datetime.strptime(text, self._format)  # noqa: DTZ007 - the zone follows
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return _known(read_time(text, self._zone))

    def written(self, value: Any) -> str:
        """Return a time as it is kept among traits and properties: ISO 8601 in UTC."""
        moment = EPOCH + timedelta(microseconds=self.read(value))
        return moment.isoformat().replace("+00:00", "Z")


def _known(time_us: int) -> int:
    if time_us == NOT_GIVEN:
        raise ValueError("is no time that can be read")
    return time_us


def read_id(value: Any) -> str:
    """Spell an id as text; a whole number that the file keeps as a double loses its `.0`."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, dict, list, bytes)):
        raise ValueError("must be text or a number")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def as_it_is(value: Any) -> Any:
    """Keep a value; what JSON does not know is spelt as text."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float) and value - value != 0:
        raise ValueError("must be a finite number")
    if isinstance(value, bytes):
        raise ValueError("must not be binary")
    return value


def read_text(value: Any) -> str:
    """Read text; a number is spelt."""
    return value if isinstance(value, str) else read_id(value)


def read_number(value: Any) -> int | float:
    """Read a number."""
    if not isinstance(value, str):
        if isinstance(value, bool):
            raise ValueError("must be a number")
        if isinstance(value, (int, float)):
            return value
    text = str(value).strip()
    if text.isdecimal() or (text[:1] in _SIGNS and text[1:].isdecimal()):
        return int(text)
    try:
        number = float(text)
    except ValueError as error:
        raise ValueError("must be a number") from error
    if "_" in text or number - number != 0:
        raise ValueError("must be a finite number")
    return number


def read_boolean(value: Any) -> bool:
    """Read what stands for true or false."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def read_json(value: Any) -> Any:
    """Read JSON inside text."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise ValueError("must be JSON") from error


def read_list(value: Any) -> list[str]:
    """Read texts between semicolons."""
    if isinstance(value, list):
        return [str(part) for part in value]
    return [part.strip() for part in str(value).split(";") if part.strip()]
