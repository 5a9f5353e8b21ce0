# SPDX-License-Identifier: Apache-2.0
"""Rules of retention, what each is about at a moment, and what a store has to be able to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chassis.database import Transaction

EVERY = "*"
"""Event of a rule about every name that has no rule of its own."""

_DAY_US = 86_400_000_000

CONCERNED = """(
    CAST(:purpose AS text) = '' OR NOT coalesce(
        (
            SELECT CASE WHEN CAST(:purpose AS text) = ANY (c.refused) THEN false
                WHEN CAST(:purpose AS text) = ANY (c.granted) THEN true END
            FROM fragment_consents c WHERE c.fragment_id = {fragment}
        ),
        (SELECT p.granted_by_default FROM purpose_defaults p WHERE p.purpose_id = CAST(:purpose AS text)),
        true
    )
)"""
"""Condition in SQL: the rule is for everybody, or the customer of a fragment has not granted its `:purpose`."""


@dataclass(frozen=True)
class RetentionRule:
    """How long events of a name are kept."""

    rule_id: str
    event: str
    """A counted name, or `EVERY`."""
    purpose_id: str
    """Only of customers who have not granted it; empty is everybody."""
    days: int
    anonymise: bool
    """True when statistics stay; otherwise nothing does."""


@dataclass(frozen=True)
class Due:
    """What one rule is about at a moment."""

    rule: RetentionRule
    before_us: int
    """Events before it are past their time."""
    names: tuple[str, ...]
    """Names of the events; empty is every name."""
    but: tuple[str, ...] = ()
    """Names that are left out of every name, because they have rules of their own."""
    salt: bytes = b""
    """16 bytes that live as long as the run, and make unknowns of customers."""

    def concerns(self, name: str) -> bool:
        """Tell whether events of a name are meant."""
        return name in self.names if self.names else name not in self.but


def dues_of(rules: Sequence[RetentionRule], now_us: int) -> list[Due]:
    """Return what each rule is about now."""
    return [
        Due(
            rule,
            now_us - rule.days * _DAY_US,
            () if rule.event == EVERY else (rule.event,),
            tuple(sorted({each.event for each in rules if each.purpose_id == rule.purpose_id} - {EVERY})),
        )
        for rule in rules
    ]


class RetentionStore(Protocol):
    """One table of one service that keeps something about events."""

    table: str

    async def count(self, tx: Transaction, due: Due) -> int:
        """Return how many rows a rule would touch."""

    async def enforce(self, tx: Transaction, due: Due, most: int) -> int:
        """Destroy or anonymise about so many rows; returns how many, 0 when nothing is left to do.

        What was done once is not found again, so a run that was broken off goes on by itself.
        """
