# SPDX-License-Identifier: Apache-2.0
"""What can be recommended."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from chassis.errors import Invalid, Violation

ItemId = NewType("ItemId", str)
"""The company's own id of an item."""

MAX_ID_LENGTH = 200
MAX_CATEGORY_LENGTH = 200
MAX_ATTRIBUTES_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the catalogue."""

    item_id: ItemId
    title: str
    categories: tuple[str, ...] = ()
    price: float = 0.0
    currency: str = ""
    url: str = ""
    image_url: str = ""
    hidden: bool = False
    """Known, but not recommended."""
    attributes: str = "{}"
    """Anything else, as a JSON object."""
    updated_time: datetime | None = None
    """When it was last written; None before it ever was."""


def check_items(items: Sequence[Item]) -> None:
    """Raise `Invalid` naming every item and field that breaks a rule that the contract cannot say."""
    violations = [violation for position, item in enumerate(items) for violation in _violations(position, item)]
    first_at: dict[ItemId, int] = {}
    for position, item in enumerate(items):
        first = first_at.setdefault(item.item_id, position)
        if first != position:
            violations.append(Violation(f"items[{position}].item_id", f"is the id of items[{first}] too"))
    if violations:
        words = "; ".join(f"{violation.field}: {violation.rule}" for violation in violations)
        raise Invalid(words, violations=violations)


def _violations(position: int, item: Item) -> Iterator[Violation]:
    for field in ("item_id", "title", "url", "image_url"):
        if "\x00" in getattr(item, field):
            yield Violation(f"items[{position}].{field}", "must not contain the character U+0000")
    if not math.isfinite(item.price):
        yield Violation(f"items[{position}].price", "must be a finite number")
    for number, category in enumerate(item.categories):
        if not 1 <= len(category) <= MAX_CATEGORY_LENGTH or "\x00" in category:
            rule = f"must have 1 to {MAX_CATEGORY_LENGTH} characters, none of them U+0000"
            yield Violation(f"items[{position}].categories[{number}]", rule)
    if len(item.attributes.encode()) > MAX_ATTRIBUTES_BYTES:
        yield Violation(f"items[{position}].attributes", f"must be at most {MAX_ATTRIBUTES_BYTES} bytes as JSON")
    if "\\u0000" in item.attributes:
        yield Violation(f"items[{position}].attributes", "must not contain the character U+0000")
