# SPDX-License-Identifier: Apache-2.0
"""What an event counts as and what it is worth; shared, so that every service agrees."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from dangol.events.v1.events_pb2 import EventType

DEFAULT_CURRENCY = "KRW"
ORDER_COMPLETED = "Order Completed"
ORDER_REFUNDED = "Order Refunded"

TYPE_NAMES: Mapping[int, str] = {
    EventType.EVENT_TYPE_IDENTIFY: "identify",
    EventType.EVENT_TYPE_TRACK: "track",
    EventType.EVENT_TYPE_PAGE: "page",
    EventType.EVENT_TYPE_SCREEN: "screen",
    EventType.EVENT_TYPE_GROUP: "group",
    EventType.EVENT_TYPE_ALIAS: "alias",
}

_TRACK = EventType.EVENT_TYPE_TRACK
_MONEY_EVENTS = frozenset({ORDER_COMPLETED, ORDER_REFUNDED})
_MAX_AMOUNT = Decimal(10) ** 13
_CENTI_CENT = Decimal("0.0001")


@dataclass(frozen=True)
class Amount:
    """Money that one event moved."""

    value: Decimal
    """Units of the currency, at most four decimals; below 0 for a refund."""
    currency: str
    """ISO 4217."""
    order_id: str
    """The shop's id of the order; empty when not given."""

    @property
    def is_order(self) -> bool:
        """True for a completed order, also one of amount 0."""
        return self.value >= 0


def counted_name(kind: int, name: str) -> str:
    """Return what an event of a type and a name is counted under: its own name for `track`, else that of the call."""
    return name if kind == _TRACK else TYPE_NAMES[kind]


def json_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object; `{}` for nothing or for anything that is no object."""
    if not data:
        return {}
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def moves_money(kind: int, name: str) -> bool:
    """Tell, by an event's type and name, whether it may carry an amount."""
    return kind == _TRACK and name in _MONEY_EVENTS


def order_amount(event_name: str, properties: Mapping[str, Any]) -> Amount | None:
    """Return what an order or a refund moved, None for other events (Segment e-commerce spec v2).

    The amount is `revenue`, else `total`, else `value`; one that is missing, not a number, negative or absurd counts 0.
    """
    if event_name not in _MONEY_EVENTS:
        return None
    found = (properties[key] for key in ("revenue", "total", "value") if properties.get(key) is not None)
    value = _decimal(next(found, 0))
    order_id = properties.get("order_id") or properties.get("orderId") or ""
    sign = 1 if event_name == ORDER_COMPLETED else -1
    if sign < 0 and value == 0:
        return None
    return Amount(sign * value, _currency(properties.get("currency")), str(order_id)[:200])


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return Decimal(0)
    try:
        number = Decimal(str(value).strip())
        if not number.is_finite() or not 0 <= number < _MAX_AMOUNT:
            return Decimal(0)
        return number.quantize(_CENTI_CENT)
    except InvalidOperation:
        return Decimal(0)


def _currency(value: Any) -> str:
    text = value.strip().upper() if isinstance(value, str) else ""
    return text if len(text) == 3 and text.isascii() and text.isalpha() else DEFAULT_CURRENCY
