# SPDX-License-Identifier: Apache-2.0
"""Hear what events say of consent, and write it down."""

from collections.abc import Mapping, Sequence

from chassis.database import Transaction

from svc_profile.domain.consent import ANALYTICS
from svc_profile.domain.events import Event
from svc_profile.domain.ledger import Record
from svc_profile.domain.purposes import AGES
from svc_profile.domain.reports import Reports
from svc_profile.domain.statements import (
    ReportKey,
    Statement,
    decided_rows,
    repeated_rows,
    reports_of,
    statements_of,
)
from svc_profile.store.consents import ConsentStore
from svc_profile.store.ledger import LedgerStore
from svc_profile.store.purposes import PurposeStore


async def listen(tx: Transaction, events: Sequence[Event]) -> list[Statement]:
    """Return what events say of consent; nearly always nothing, and then nothing is read."""
    speaking = [event for event in events if event.consent]
    return statements_of(speaking, await PurposeStore(tx).all()) if speaking else []


async def foresee(tx: Transaction, statements: Sequence[Statement]) -> list[Record]:
    """Return the rows that statements will lead to, without writing them."""
    reports = reports_of(statements)
    known = await ConsentStore(tx).reported(reports.keys())
    return [*decided_rows(statements), *repeated_rows(statements, _before_and_now(known, reports))]


def _before_and_now(
    known: Mapping[ReportKey, Reports], reports: Mapping[ReportKey, Reports]
) -> dict[ReportKey, tuple[Reports, Reports]]:
    nothing = Reports()
    return {key: (known.get(key, nothing), known.get(key, nothing).joined(said)) for key, said in reports.items()}


async def note_ages(tx: Transaction, events: Sequence[Event]) -> None:
    """Note that ages may be known otherwise now, and with them what was granted; without any, nothing is asked."""
    aged = {event.owner.fragment for event in events if event.traits and not event.traits.keys().isdisjoint(AGES)}
    await ConsentStore(tx).note_relinked(aged, ())


async def write_down(tx: Transaction, statements: Sequence[Statement], now_us: int) -> None:
    """Write what events said into the ledger, once their fragments are locked and linked.

    A refusal of analytics holds for the fragment itself at once; for the rest of the customer when it is settled.
    """
    if not statements:
        return
    store = ConsentStore(tx)
    known = await store.report(reports_of(statements))
    rows = [*decided_rows(statements), *repeated_rows(statements, known)]
    if not rows:
        return
    await LedgerStore(tx).append(rows, now_us)
    await store.refuse({row.fragment for row in rows if row.purpose_id == ANALYTICS and row.entry().is_refusal})
    await store.note_due(sorted({row.fragment for row in rows}))
