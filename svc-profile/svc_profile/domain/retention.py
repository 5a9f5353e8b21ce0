# SPDX-License-Identifier: Apache-2.0
"""Rules of retention."""

from dataclasses import dataclass
from typing import NamedTuple

from chassis.errors import Invalid

DESTROY = 1
ANONYMISE = 2
"""Numbers of `dangol.profile.v1.RetentionAction`."""


@dataclass(frozen=True)
class Rule:
    """How long events of a name are kept, and what becomes of them."""

    rule_id: str
    event: str
    """The name they are counted under; `*` is every name without a rule of its own."""
    purpose_id: str
    """Only of customers who have not granted it; empty is everybody."""
    days: int
    action: int
    updated_us: int

    def check(self) -> None:
        """Raise `Invalid` when a field has no meaning."""
        if not self.event:
            raise Invalid.field("retention_rule.event", "must be the name of an event, or *")
        if self.action not in (DESTROY, ANONYMISE):
            raise Invalid.field("retention_rule.action", "must be DESTROY or ANONYMISE")
        if self.days < 1:
            raise Invalid.field("retention_rule.days", "must be at least 1")


class DueEvent(NamedTuple):
    """An event whose time is over."""

    event_key: bytes
    fragment: bytes
    time_us: int
    received_time_us: int
    name: str
    payload: bytes
    """Empty when no more than the key was kept."""
