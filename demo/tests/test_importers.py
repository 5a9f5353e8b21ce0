# SPDX-License-Identifier: Apache-2.0
"""Importers, on small files of the same schema and on the real data sets."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from demo.actions import Action
from demo.importers import Dataset, open_dataset
from demo.importers.online_retail import LINES_PER_EVENT
from demo.importers.rows import BadDataset, Chunk, RejectedRow, Rejections
from demo.transfer import Bookmark, shift_to_now

NOON = datetime(2011, 1, 4, 12, 0)  # noqa: DTZ001 - the data set holds London time without saying so
RETAIL_TYPES: dict[str, pyarrow.DataType] = {
    "invoice": pyarrow.string(),
    "stock_code": pyarrow.string(),
    "description": pyarrow.string(),
    "quantity": pyarrow.int32(),
    "invoice_date": pyarrow.timestamp("ms"),
    "price": pyarrow.float64(),
    "customer_id": pyarrow.int32(),
    "country": pyarrow.string(),
}
RetailRow = tuple[str, str, str, int, datetime, float, int | None, str]


def write_retail(folder: Path, rows: Sequence[RetailRow]) -> Path:
    """Write a small copy of Online Retail."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    pyarrow.parquet.write_table(
        pyarrow.table(columns, schema=pyarrow.schema(RETAIL_TYPES)), folder / "transactions.parquet", row_group_size=50
    )
    return folder


def write_csv(file: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a packed CSV file."""
    with gzip.open(file, "wt", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([head, *rows])


def write_movielens(folder: Path, ratings: Sequence[Sequence[object]]) -> Path:
    """Write a small copy of MovieLens."""
    films = [(1, "Toy Story (1995)", "01-Jan-1995", "Animation|Comedy"), (2, "GoldenEye (1995)", "", "Action")]
    write_csv(folder / "items.csv.gz", ["item_id", "title", "release_date", "genres"], films)
    write_csv(
        folder / "users.csv.gz", ["user_id", "age", "gender", "occupation", "zip"], [(7, 33, "F", "artist", "A1")]
    )
    write_csv(folder / "ratings.csv.gz", ["user_id", "item_id", "rating", "timestamp"], ratings)
    return folder


def everything(dataset: Dataset, start_row: int = 0, shift: timedelta = timedelta()) -> Chunk:
    """All chunks as one."""
    whole = Chunk(start_row)
    for chunk in dataset.chunks(start_row, shift):
        whole.actions += chunk.actions
        whole.rejected += chunk.rejected
        whole.next_row = chunk.next_row
    return whole


def test_an_invoice_becomes_a_customer_and_an_order(tmp_path: Path) -> None:
    """Rows of one invoice are products of one order."""
    rows: list[RetailRow] = [
        ("536365", "85123A", "LANTERN", 6, NOON, 2.55, 17850, "United Kingdom"),
        ("536365", "71053", "BOX", 2, NOON, 3.0, 17850, "United Kingdom"),
    ]
    dataset = open_dataset("online-retail", write_retail(tmp_path, rows))
    identify, order = everything(dataset).actions
    assert (identify.call, identify.user_id, identify.body) == ("identify", "or-17850", {"country": "United Kingdom"})
    assert (order.name, order.user_id, order.time) == ("Order Completed", "or-17850", NOON.replace(tzinfo=UTC))
    assert order.body["revenue"] == pytest.approx(6 * 2.55 + 2 * 3.0)
    assert [product["product_id"] for product in order.body["products"]] == ["or-85123A", "or-71053"]
    assert {item["itemId"]: item["title"] for item in dataset.items()} == {"or-85123A": "LANTERN", "or-71053": "BOX"}


def test_a_cancellation_becomes_a_refund(tmp_path: Path) -> None:
    """An invoice that begins with C takes goods back."""
    rows: list[RetailRow] = [("C536379", "22556", "TINS", -12, NOON, 1.65, 17548, "United Kingdom")]
    refund = everything(open_dataset("online-retail", write_retail(tmp_path, rows))).actions[-1]
    assert refund.name == "Order Refunded"
    assert refund.body["total"] == pytest.approx(19.8)


def test_rows_of_no_use_are_rejected_with_their_reason(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    rows: list[RetailRow] = [
        ("1", "22556", "TINS", 1, NOON, 1.65, 1, "France"),
        ("2", "22556", "TINS", 1, NOON, 1.65, None, "France"),
        ("3", "POST", "POSTAGE", 1, NOON, 18.0, 1, "France"),
        ("4", "22556", "TINS", 1, NOON, 0.0, 1, "France"),
        ("5", "22556", "TINS", -1, NOON, 1.65, 1, "France"),
    ]
    found = everything(open_dataset("online-retail", write_retail(tmp_path, rows)))
    assert [(row.row, row.reason) for row in found.rejected] == [
        (2, "NO_CUSTOMER"),
        (3, "NOT_A_PRODUCT"),
        (4, "NO_PRICE"),
        (5, "BAD_QUANTITY"),
    ]
    assert [action.call for action in found.actions] == ["identify", "track"]


def test_an_invoice_of_many_rows_is_split_into_events_that_are_small_enough(tmp_path: Path) -> None:
    """The platform takes events of up to 32 KiB."""
    rows: list[RetailRow] = [("1", f"{n:05d}", "A THING" * 5, 1, NOON, 1.0, 1, "France") for n in range(320)]
    orders = everything(open_dataset("online-retail", write_retail(tmp_path, rows))).actions[1:]
    assert [len(order.body["products"]) for order in orders] == [LINES_PER_EVENT, LINES_PER_EVENT, 20]
    assert sum(order.body["revenue"] for order in orders) == 320
    assert {order.body["order_id"] for order in orders} == {"1"}
    assert len({order.message_id for order in orders}) == 3
    assert all(len(json.dumps(order.body)) < 32_768 for order in orders)


def test_a_rating_becomes_a_view_and_a_rating(tmp_path: Path) -> None:
    """A viewer is introduced once, with what is known."""
    folder = write_movielens(tmp_path, [(7, 1, 5, 881250949), (7, 2, 3, 881250950)])
    found = everything(open_dataset("movielens-100k", folder)).actions
    assert [action.counted_name for action in found] == ["identify", *["Product Viewed", "Product Rated"] * 2]
    assert found[0].body == {"age": 33, "gender": "F", "occupation": "artist", "zip": "A1"}
    assert found[2].body == {"product_id": "ml-1", "name": "Toy Story (1995)", "rating": 5}
    assert found[2].time == datetime.fromtimestamp(881250949, UTC)
    assert [action.time for action in found[:3]] == sorted(action.time for action in found[:3])


def test_ratings_of_no_use_are_rejected_with_their_reason(tmp_path: Path) -> None:
    """The row's number leads to it."""
    ratings = [(7, 1, 5, 881250949), ("", 1, 5, 881250949), (7, 99, 5, 881250949), (7, 1, 9, 881250949), (7, 1, 4, "x")]
    found = everything(open_dataset("movielens-100k", write_movielens(tmp_path, ratings)))
    assert [(row.row, row.reason) for row in found.rejected] == [
        (2, "NO_CUSTOMER"),
        (3, "UNKNOWN_ITEM"),
        (4, "BAD_RATING"),
        (5, "BAD_TIME"),
    ]


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    pyarrow.parquet.write_table(pyarrow.table({"invoice": ["1"]}), tmp_path / "transactions.parquet")
    with pytest.raises(BadDataset, match="lacks the columns stock_code"):
        open_dataset("online-retail", tmp_path)
    with pytest.raises(BadDataset, match=r"no file ratings\.csv\.gz"):
        open_dataset("movielens-100k", tmp_path)


def test_times_move_by_whole_days_and_never_into_the_future() -> None:
    """Monday's morning stays a morning."""
    last, now = datetime(2011, 12, 9, 12, 50, tzinfo=UTC), datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
    moved = last + shift_to_now(last, now)
    assert moved == datetime(2026, 11, 21, 12, 50, tzinfo=UTC)


def test_a_bookmark_belongs_to_one_copy_and_one_platform(tmp_path: Path) -> None:
    """Another copy begins at the beginning."""
    file = tmp_path / "state" / "import.json"
    rejections = Rejections()
    rejections.add([RejectedRow(7, "NO_PRICE", "price 0"), RejectedRow(9, "NO_PRICE", "price -1")])
    mine, other = Bookmark(file, "http://one", tmp_path), Bookmark(file, "http://other", tmp_path)
    mine.write(5_000, timedelta(days=9), rejections)
    next_row, shift, remembered = mine.read()
    assert (next_row, shift, remembered.lines()) == (5_000, timedelta(days=9), rejections.lines())
    assert other.read()[:2] == (0, None)
    mine.remove()
    assert mine.read()[:2] == (0, None)


@pytest.mark.parametrize(
    ("name", "counts", "rejected"),
    [
        (
            "online-retail",
            {"identify": 4_362, "Order Completed": 18_479, "Order Refunded": 3_383},
            {"NO_CUSTOMER": 135_080, "NOT_A_PRODUCT": 1_920, "NO_PRICE": 33},
        ),
        ("movielens-100k", {"identify": 943, "Product Viewed": 100_000, "Product Rated": 100_000}, {}),
    ],
)
def test_a_whole_data_set_is_read(
    name: str, counts: dict[str, int], rejected: dict[str, int], dataset_folder: Callable[[str], Path]
) -> None:
    """Every row ends as an event or as a rejection."""
    dataset = open_dataset(name, dataset_folder(name))
    seen, rejections, largest = Counter[str](), Rejections(), 0
    for chunk in dataset.chunks(0, timedelta()):
        seen.update(action.counted_name for action in chunk.actions)
        rejections.add(chunk.rejected)
        largest = max(largest, *(len(json.dumps(dict(action.body))) for action in chunk.actions))
    assert seen == counts
    assert rejections.counts == rejected
    assert len(rejections.lines()) == len(rejected)
    assert largest < 32_768


@pytest.mark.parametrize("name", ["online-retail", "movielens-100k"])
def test_an_interrupted_import_goes_on_where_it_was(name: str, dataset_folder: Callable[[str], Path]) -> None:
    """What follows a piece is the same, whether or not the pieces before were read in the same run."""
    dataset = open_dataset(name, dataset_folder(name))
    pieces = dataset.chunks(0, timedelta())
    next(pieces)
    second = next(pieces)
    first_row = next(dataset.chunks(0, timedelta())).next_row
    resumed = next(dataset.chunks(first_row, timedelta()))
    assert resumed.next_row == second.next_row
    assert set(ids(second.actions)) <= set(ids(resumed.actions))
    repeated = set(ids(resumed.actions)) - set(ids(second.actions))
    assert all("identify" in message_id for message_id in repeated)


def ids(actions: Sequence[Action]) -> Iterator[str]:
    """The message ids."""
    return (action.message_id for action in actions)
