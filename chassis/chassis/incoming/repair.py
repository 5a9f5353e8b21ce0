# SPDX-License-Identifier: Apache-2.0
"""JSON that no store could hold later, turned into JSON that every store can.

PostgreSQL's jsonb refuses `\\u0000`, half surrogate pairs and numbers beyond its range; `google.protobuf.Struct`
refuses infinities and deep nesting. What has one obvious meaning is repaired, the rest is refused before it is stored.
"""

import json
import re
from typing import Any, Never

import msgspec

REPLACEMENT = "\ufffd"
NUMBER_OUT_OF_RANGE = "NUMBER_OUT_OF_RANGE"
NESTED_TOO_DEEP = "NESTED_TOO_DEEP"

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPAIRABLE = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]|\\u0000")
_NUMBER_RULE = "numbers must fit in a double and have at most 300 digits"
_MAX_EXPONENT = 400
_MAX_DIGITS = 300
_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_LONG_NUMBER = b"0" * _MAX_DIGITS


class Unstorable(ValueError):
    """JSON that is well-formed and still cannot be kept."""

    def __init__(self, reason: str, rule: str) -> None:
        super().__init__(rule)
        self.reason = reason


def is_repairable(body: bytes) -> bool:
    """Tell whether `repair` may help with JSON that a strict decoder refused."""
    return _REPAIRABLE.search(body) is not None


def repair(body: bytes) -> bytes:
    """Rewrite JSON as a strict decoder and every store can read it; raises ValueError or RecursionError.

    NUL characters and half surrogate pairs become U+FFFD, NaN and the infinities become null (as JavaScript writes
    them), of repeated members the last one stays. Numbers keep their spelling.
    """
    keep = _keep_number
    value = json.loads(body.decode(), parse_constant=_null, parse_float=keep, parse_int=keep)
    return msgspec.json.encode(_clean(value))


def _keep_number(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _null(_: str) -> None:
    return None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_clean(element) for element in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(element) for key, element in value.items()}
    return value


def clean_text(text: str) -> str:
    """Return text that PostgreSQL can hold."""
    return _UNSTORABLE.sub(REPLACEMENT, text)


def is_storable_object(text: bytes, max_depth: int) -> bool:
    """Tell whether JSON is an object that every store can hold; raises `Unstorable` or another ValueError.

    Everything but the depth is found by decoding once and throwing the result away, which costs less than a
    microsecond for the properties of a usual event.
    """
    try:
        value = _decode(text)
    except msgspec.ValidationError as error:
        # Without a type to check, numbers are all that can be wrong in well-formed JSON.
        raise Unstorable(NUMBER_OUT_OF_RANGE, _NUMBER_RULE) from error
    if len(text) > _MAX_DIGITS and _LONG_NUMBER in text.translate(_DIGITS_TO_ZERO):
        _check_long_digits(value)
    if text.count(b"{") + text.count(b"[") > max_depth and depth_of(value) > max_depth:
        raise Unstorable(NESTED_TOO_DEEP, f"must be nested at most {max_depth} levels deep")
    return type(value) is dict


def _float(text: str) -> float:
    """Refuse what overflows a double or PostgreSQL's numeric; the value itself is not needed."""
    if len(text) < _MAX_DIGITS and "e" not in text and "E" not in text:
        return 0.0
    mantissa, e, exponent = text.lower().partition("e")
    if e and (len(exponent) > 5 or abs(int(exponent)) > _MAX_EXPONENT or float(text) in (_INFINITY, -_INFINITY)):
        _refuse_number()
    if len(mantissa) > _MAX_DIGITS:
        _refuse_number()
    return 0.0


def _refuse_number() -> Never:
    raise Unstorable(NUMBER_OUT_OF_RANGE, _NUMBER_RULE)


_INFINITY = float("inf")
_decode = msgspec.json.Decoder(float_hook=_float).decode


def _check_long_digits(value: Any) -> None:
    if type(value) is int and abs(value) >= 10**_MAX_DIGITS:
        _refuse_number()
    if type(value) is list:
        for element in value:
            _check_long_digits(element)
    if type(value) is dict:
        for element in value.values():
            _check_long_digits(element)


def depth_of(value: Any) -> int:
    """Return how deep objects and arrays are nested; raises RecursionError far beyond what may be kept."""
    if type(value) is dict:
        return 1 + max(map(depth_of, value.values()), default=0)
    if type(value) is list:
        return 1 + max(map(depth_of, value), default=0)
    return 0
