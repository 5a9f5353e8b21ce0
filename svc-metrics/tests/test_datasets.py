# SPDX-License-Identifier: Apache-2.0
"""Key figures of a real shop equal what its records add up to."""

import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from svc_metrics import wire
from svc_metrics.domain import DayRange
from svc_metrics.usecases import Stores, query_kpis

from .histories import COMPLETED, REFUNDED, Happening, batch_of, moment

DATASETS = os.environ.get("DANGOL_DATASETS", "")


def invoices(path: Path) -> Iterator[Happening]:
    """Return one order per invoice of a known customer, one refund per cancellation."""
    columns = ["invoice", "quantity", "invoice_date", "price", "customer_id"]
    amounts: dict[tuple[str, int, datetime], Decimal] = defaultdict(Decimal)
    table = pq.read_table(path, columns=columns)
    for invoice, quantity, at, price, customer in zip(*(table[c].to_pylist() for c in columns), strict=True):
        if customer is not None:
            amounts[invoice, int(customer), at] += quantity * Decimal(str(price))
    for (invoice, customer, at), amount in amounts.items():
        if amount:
            yield Happening(
                fragment_id=UUID(int=customer),
                time_us=moment(at.replace(tzinfo=UTC).isoformat()),
                name=COMPLETED if amount > 0 else REFUNDED,
                message_id=f"{invoice} {customer} {at}",
                amount=abs(amount),
                currency="GBP",
                order_id=invoice,
            )


@pytest.mark.skipif(not DATASETS, reason="DANGOL_DATASETS does not name a folder with online-retail")
async def test_a_year_of_a_real_shop_adds_up(stores: Stores) -> None:
    """UCI Online Retail: orders, buyers and revenue of each of 374 days, a third of them sent twice."""
    history = list(invoices(Path(DATASETS) / "online-retail" / "transactions.parquet"))
    for sequence, part in enumerate((history[: len(history) // 2], history[len(history) // 3 :]), 1):
        delivery = batch_of((h.event() for h in part), sequence)
        await stores.events.append(wire.event_columns(wire.events_of([delivery])), token=wire.insert_token([delivery]))
    days = DayRange.of("2010-12-01", "2011-12-09", "UTC", datetime(2026, 11, 22, tzinfo=UTC))
    series = await query_kpis(stores, days, segment="", currency="")
    by_day: dict[date, list[Happening]] = defaultdict(list)
    for happening in history:
        by_day[datetime.fromtimestamp(happening.time_us // 1_000_000, UTC).date()].append(happening)
    assert series.currency == "GBP"
    for kpis, found in [*((k, by_day[k.date]) for k in series.days), (series.total, history)]:
        orders = [h for h in found if h.name == COMPLETED]
        signed = [h.amount if h.name == COMPLETED else -h.amount for h in found if h.amount]
        assert kpis.events == len(found)
        assert kpis.orders == len({h.order_id for h in orders})
        assert kpis.buyers == len({h.fragment_id for h in orders})
        assert kpis.active_customers == len({h.fragment_id for h in found})
        assert kpis.revenue == sum(signed, Decimal(0))
    assert len(series.days) == 374
