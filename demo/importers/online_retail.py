# SPDX-License-Identifier: Apache-2.0
"""UCI Online Retail: a year of invoices of a British gift shop, as catalogue, customers, orders and refunds.

File: `transactions.parquet` with invoice (prefix C: cancellation), stock_code, description, quantity, invoice_date
(London time), price (GBP a unit), customer_id, country; the rows of one invoice stand together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow.compute as compute
import pyarrow.parquet as parquet
from pyarrow import RecordBatch, Table

from demo.actions import Action
from demo.importers.rows import ROWS_PER_CHUNK, BadDataset, Chunk, RejectedRow, check_columns, find_file

FILE = "transactions.parquet"
COLUMNS = ("invoice", "stock_code", "description", "quantity", "invoice_date", "price", "customer_id", "country")
CURRENCY = "GBP"
LONDON = ZoneInfo("Europe/London")
CANCELLATION = "C"
PRODUCT_CODE = re.compile(r"\d{5}[A-Za-z]*")
ROWS_PER_READ = 50_000
# An event may have 32 KiB; one line takes about 150 bytes.
LINES_PER_EVENT = 150
BEFORE_ORDER = timedelta(minutes=1)


class Line(NamedTuple):
    """One row of an invoice."""

    row: int
    stock_code: str
    name: str
    quantity: int
    price: float


class Invoice(NamedTuple):
    """The usable rows of one invoice."""

    number: str
    customer: str
    country: str
    time: datetime
    lines: list[Line]


class OnlineRetail:
    """One copy of Online Retail."""

    name = "online-retail"

    def __init__(self, path: Path) -> None:
        self._file = path if path.suffix == ".parquet" else find_file(path, FILE)
        try:
            with parquet.ParquetFile(self._file) as file:
                check_columns(self._file, file.schema_arrow.names, COLUMNS)
                self.row_count = file.metadata.num_rows
        except (OSError, ValueError) as error:
            raise BadDataset(f"{self._file} cannot be read as Parquet: {error}") from error
        self._titles, self._prices, self.last_time = self._survey()

    def items(self) -> list[dict[str, Any]]:
        """Every product, with its most frequent description and price."""
        return [
            {"itemId": f"or-{code}", "title": title, "price": self._prices[code], "currency": CURRENCY}
            for code, title in self._titles.items()
        ]

    def chunks(self, start_row: int, shift: timedelta) -> Iterator[Chunk]:
        """Invoices in the order of the file; a piece ends where an invoice ends."""
        chunk, introduced = Chunk(start_row), set[str]()
        rows = islice(self._rows(), start_row, None)
        for _, group in groupby(rows, key=lambda numbered: numbered[1]["invoice"]):
            invoice = self._read(chunk, list(group))
            if invoice is not None:
                chunk.actions += _actions(invoice, shift, introduced)
            if chunk.next_row - start_row >= ROWS_PER_CHUNK:
                yield chunk
                start_row = chunk.next_row
                chunk = Chunk(start_row)
        if chunk.next_row > start_row:
            yield chunk

    def _read(self, chunk: Chunk, rows: list[tuple[int, dict[str, Any]]]) -> Invoice | None:
        """Take the usable rows of one invoice; the others are rejected."""
        chunk.next_row = rows[-1][0] + 1
        lines = []
        for number, row in rows:
            if problem := self._problem(row):
                chunk.rejected.append(RejectedRow(number + 1, *problem))
            else:
                name = row["description"] or self._titles[row["stock_code"]]
                lines.append(Line(number, row["stock_code"], name, abs(row["quantity"]), row["price"]))
        if not lines:
            return None
        first = rows[0][1]
        moment = first["invoice_date"].replace(tzinfo=LONDON).astimezone(UTC)
        return Invoice(first["invoice"], f"or-{first['customer_id']}", first["country"], moment, lines)

    def _problem(self, row: dict[str, Any]) -> tuple[str, str] | None:
        if row["customer_id"] is None:
            return "NO_CUSTOMER", "customer_id is empty"
        if not PRODUCT_CODE.fullmatch(row["stock_code"] or ""):
            return "NOT_A_PRODUCT", f"stock_code {row['stock_code']!r} is postage, a fee or a sample"
        if row["invoice_date"] is None:
            return "NO_TIME", "invoice_date is empty"
        if not row["price"] or row["price"] <= 0:
            return "NO_PRICE", f"price {row['price']} is not above 0"
        is_refund = row["invoice"].startswith(CANCELLATION)
        if not row["quantity"] or (row["quantity"] < 0) != is_refund:
            return "BAD_QUANTITY", f"quantity {row['quantity']} on invoice {row['invoice']}"
        return None

    def _survey(self) -> tuple[dict[str, str], dict[str, float], datetime]:
        """Read the catalogue and the last time in one pass over four columns."""
        titles: dict[str, Counter[str]] = defaultdict(Counter)
        prices: dict[str, Counter[float]] = defaultdict(Counter)
        times: list[datetime] = []
        for batch in self._batches(("stock_code", "description", "price", "invoice_date")):
            times += filter(None, (compute.max(batch["invoice_date"]).as_py(),))
            # Counting inside Arrow leaves few rows to look at one by one.
            rows = Table.from_batches([batch]).group_by(["stock_code", "description", "price"])
            for row in rows.aggregate([([], "count_all")]).to_pylist():
                code = row["stock_code"] or ""
                if PRODUCT_CODE.fullmatch(code) and (row["price"] or 0) > 0:
                    titles[code][row["description"] or code] += row["count_all"]
                    prices[code][row["price"]] += row["count_all"]
        if not times:
            raise BadDataset(f"{self._file} holds no row with a time")
        return _most_frequent(titles), _most_frequent(prices), max(times).replace(tzinfo=LONDON).astimezone(UTC)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for batch in self._batches(COLUMNS):
            for values in zip(*(batch[column].to_pylist() for column in COLUMNS), strict=True):
                yield number, dict(zip(COLUMNS, values, strict=True))
                number += 1

    def _batches(self, columns: Sequence[str]) -> Iterator[RecordBatch]:
        with parquet.ParquetFile(self._file) as file:
            yield from file.iter_batches(batch_size=ROWS_PER_READ, columns=list(columns))


def _most_frequent(counts: dict[str, Counter[Any]]) -> dict[str, Any]:
    return {code: counter.most_common(1)[0][0] for code, counter in counts.items()}


def _actions(invoice: Invoice, shift: timedelta, introduced: set[str]) -> Iterator[Action]:
    moment = invoice.time + shift
    if invoice.customer not in introduced:
        introduced.add(invoice.customer)
        traits = {"country": invoice.country} if invoice.country else {}
        before = moment - BEFORE_ORDER
        yield Action("identify", f"identify-{invoice.customer}", before, user_id=invoice.customer, body=traits)
    is_refund = invoice.number.startswith(CANCELLATION)
    # The events of a long invoice share its order id, and so count as one order.
    for begin in range(0, len(invoice.lines), LINES_PER_EVENT):
        lines = invoice.lines[begin : begin + LINES_PER_EVENT]
        yield Action(
            call="track",
            message_id=f"or-{invoice.number}-{lines[0].row}",
            time=moment,
            user_id=invoice.customer,
            name="Order Refunded" if is_refund else "Order Completed",
            body=_order(invoice.number, lines),
        )


def _order(order_id: str, lines: list[Line]) -> dict[str, Any]:
    total = round(sum(line.quantity * line.price for line in lines), 2)
    products = [
        {"product_id": f"or-{line.stock_code}", "name": line.name, "price": line.price, "quantity": line.quantity}
        for line in lines
    ]
    return {"order_id": order_id, "revenue": total, "total": total, "currency": CURRENCY, "products": products}
