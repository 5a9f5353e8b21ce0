# SPDX-License-Identifier: Apache-2.0
"""Reading files from any row on is the same as reading them from the beginning."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chassis.errors import Invalid
from dangol.events.v1.events_pb2 import EventBatch
from dangol.profile.v1 import transfer_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st
from svc_profile.domain.cells import Times, read_boolean, read_list, read_number
from svc_profile.domain.columns import Column, FileMapping, RowReader, RowRejected, check_mapping
from svc_profile.domain.imports import BATCH_BYTES, BATCH_ROWS, ImportJob, ImportPlan, Progress, State
from svc_profile.wire.files import MAX_LINE_BYTES, CsvRows, LineRows, Problem
from svc_profile.wire.importing import Slice, slices
from svc_profile.wire.packing import MESSAGE_EVENTS, messages_of

MAPPING = pb.ImportMapping(
    columns=[
        pb.ImportColumn(column="who", field="user_id"),
        pb.ImportColumn(column="at", field="time"),
        pb.ImportColumn(column="what", field="name"),
        pb.ImportColumn(column="text", field="properties.text"),
    ]
)
CREATED_US = 1_790_000_000_000_000
Values = tuple[str, str, str, str]

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
rows = st.lists(
    st.tuples(
        st.sampled_from(["u1", "u2", "", "null"]),
        st.sampled_from(["2024-01-01", "1700000000", "never", ""]),
        st.sampled_from(["Seen", "Bought", ""]),
        texts,
    ),
    max_size=25,
)


def csv_file(values: Sequence[Values]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["who", "at", "what", "text"])
    writer.writerows(values)
    return out.getvalue().encode()


def ndjson_file(values: Sequence[Values]) -> bytes:
    lines = (json.dumps(dict(zip(("who", "at", "what", "text"), each, strict=True))) for each in values)
    return "".join(line + "\n" for line in lines).encode()


def parquet_file(values: Sequence[Values]) -> bytes:
    out = io.BytesIO()
    names = ("who", "at", "what", "text")
    columns = {name: pa.array([each[place] for each in values], pa.string()) for place, name in enumerate(names)}
    pq.write_table(pa.table(columns), out, row_group_size=4)
    return out.getvalue()


FILES: dict[str, tuple[int, bool, Callable[[Sequence[Values]], bytes]]] = {
    "csv": (pb.IMPORT_FORMAT_CSV, False, csv_file),
    "csv.gz": (pb.IMPORT_FORMAT_CSV, True, lambda values: gzip.compress(csv_file(values))),
    "ndjson": (pb.IMPORT_FORMAT_NDJSON, False, ndjson_file),
    "ndjson.gz": (pb.IMPORT_FORMAT_NDJSON, True, lambda values: gzip.compress(ndjson_file(values))),
    "parquet": (pb.IMPORT_FORMAT_PARQUET, False, parquet_file),
}


def read(name: str, data: bytes, progress: Progress | None = None, batch_rows: int = 3) -> list[Slice]:
    format_, zipped, _ = FILES[name]
    plan = ImportPlan("imp_1", pb.IMPORT_KIND_EVENTS, format_, zipped, "crm", MAPPING.SerializeToString())
    progress = replace(progress or Progress(), received_bytes=len(data))
    job = ImportJob(plan, State.RUNNING, progress, CREATED_US, None, "", batch_rows, "file-1")
    file = io.BytesIO(data)
    inflated = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if zipped else file
    return list(slices(job, file, inflated, ("email",)))


@pytest.mark.parametrize("name", FILES)
@settings(deadline=None, max_examples=40)
@given(values=rows)
def test_a_file_goes_on_from_every_batch_as_if_it_had_never_stopped(name: str, values: list[Values]) -> None:
    """What was in hand when a process died is read again with the same events, ids, messages and rejects."""
    data = FILES[name][2](values)
    whole = read(name, data)
    assert sum(piece.read_rows for piece in whole) == len(values)
    assert sum(len(piece.events) + len(piece.rejected) for piece in whole) == len(values)
    for place, piece in enumerate(whole):
        done = Progress(next_offset=piece.next_offset, read_rows=piece.first_row + piece.read_rows)
        assert read(name, data, done) == whole[place + 1 :]


@settings(deadline=None, max_examples=60)
@given(values=rows)
def test_texts_come_through_csv_as_they_are(values: list[Values]) -> None:
    """Quotes, commas and line breaks inside of values included."""
    found = list(CsvRows(io.BytesIO(csv_file(values)), 0, delimiter=",", encoding="utf-8", header=()))
    assert found == [list(each) for each in values]


def test_lines_of_any_length_are_told_apart() -> None:
    """One that is too long is a problem of its own, wherever the blocks of the file end."""
    lines = [b'{"a":1}', b"x" * (3 * MAX_LINE_BYTES), b'{"b":2}', b"y" * 300_000, b'{"c":3}']
    reader = LineRows(io.BytesIO(b"\r\n".join(lines)), 0)
    found = [each if isinstance(each, Problem) else bytes(each).strip() for each in reader]
    assert [type(each) for each in found] == [bytes, Problem, bytes, bytes, bytes]
    assert [found[0], found[2], found[4]] == [lines[0], lines[2], lines[4]]
    assert reader.offset == len(b"\r\n".join(lines))


def test_a_quote_that_is_left_open_costs_what_it_swallows() -> None:
    """And nothing after that."""
    good = "u1,2024-01-01,Seen,x\n"
    data = ("who,at,what,text\n" + good + 'u1,2024-01-01,Seen,"open\n' + good * 20_000).encode()
    found = list(CsvRows(io.BytesIO(data), 0, delimiter=",", encoding="utf-8", header=()))
    problems = [each for each in found if isinstance(each, Problem)]
    assert len(problems) == 1
    assert "quote" in problems[0].rule
    assert len(found) > 10_000


@pytest.mark.parametrize("name", FILES)
def test_a_batch_of_large_rows_ends_early_and_at_the_same_rows_each_time(name: str) -> None:
    """A file of any rows streams; also one of which nothing is taken."""
    large = [(f"u{n}", "2024-01-01", "Seen", "x" * 20_000) for n in range(1_000)]
    refused = [("", "2024-01-01", "Seen", "y" * 2_000) for _ in range(9_000)]
    data = FILES[name][2](large + refused)
    whole = read(name, data, batch_rows=BATCH_ROWS)
    assert sum(len(piece.events) for piece in whole) == 1_000
    assert sum(len(piece.rejected) for piece in whole) == 9_000
    sizes = [sum(len(made.event) for made in piece.events) + 1_000 * len(piece.rejected) for piece in whole]
    assert all(BATCH_BYTES <= size < BATCH_BYTES + 32 * 1024 for size in sizes[:-1])
    first = whole[0]
    done = Progress(next_offset=first.next_offset, read_rows=first.first_row + first.read_rows)
    # How much has been read is told by blocks, which lie differently from another beginning.
    again = [replace(piece, read_bytes=0) for piece in read(name, data, done, BATCH_ROWS)]
    assert again == [replace(piece, read_bytes=0) for piece in whole[1:]]


def test_messages_of_a_batch_are_the_same_each_time_and_no_larger_than_those_of_the_gateway() -> None:
    values = [(f"u{n}", "2024-01-01", "Seen", "x" * 1000) for n in range(2_000)]
    (piece,) = read("csv", csv_file(values), batch_rows=4_000)
    plan = ImportPlan("imp_1", 2, 1, False, "crm", b"")
    job = ImportJob(plan, State.RUNNING, Progress(), CREATED_US, None, "", 4_000, "file-1")
    packed = list(messages_of(job, piece, 2))
    assert packed == list(messages_of(job, piece, 2))
    messages = [EventBatch.FromString(data) for _, _, data in packed]
    assert sorted(event.message_id for message in messages for event in message.events) == sorted(
        EventBatch.FromString(made.event).events[0].message_id for made in piece.events
    )
    assert all(len(message.events) <= MESSAGE_EVENTS and message.ByteSize() < 2**20 for message in messages)
    assert [message.SerializeToString() for message in messages] == [data for _, _, data in packed]
    assert len({message_id for _, message_id, _ in packed}) == len(packed)


def test_a_korean_file_of_another_encoding_is_read() -> None:
    data = "who,이름\nu1,김단골\n".encode("cp949")
    reader = CsvRows(io.BytesIO(data), 0, delimiter=",", encoding="cp949", header=())
    assert (reader.columns, list(reader)) == (["who", "이름"], [["u1", "김단골"]])


def test_a_file_without_a_header_gets_one_from_the_mapping() -> None:
    reader = CsvRows(io.BytesIO(b"u1;1\nu2;2\n"), 0, delimiter=";", encoding="utf-8", header=("who", "n"))
    assert list(reader) == [["u1", "1"], ["u2", "2"]]


@pytest.mark.parametrize(
    ("zone", "form", "text", "expected"),
    [
        ("Asia/Seoul", "", "2024-01-01 09:00", "2024-01-01T00:00:00Z"),
        ("Asia/Seoul", "", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("Asia/Seoul", "", "2024/01/01 09:00", "2024-01-01T00:00:00Z"),
        ("Asia/Seoul", "", "2024-1-1 9:00", "2024-01-01T00:00:00Z"),
        ("Asia/Seoul", "", "2024/01/01 09:00 +01:00", "2024-01-01T08:00:00Z"),
        ("", "", "2024-01-01", "2024-01-01T00:00:00Z"),
        ("", "%d.%m.%Y %H:%M", "24.12.2023 18:30", "2023-12-24T18:30:00Z"),
        ("", "", 1_700_000_000, "2023-11-14T22:13:20Z"),
        ("", "", "1700000000000", "2023-11-14T22:13:20Z"),
        ("America/New_York", "", "2024-07-01T12:00:00", "2024-07-01T16:00:00Z"),
    ],
)
def test_times_are_read_as_the_mapping_says(zone: str, form: str, text: Any, expected: str) -> None:
    assert Times(zone, form).written(text) == expected


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0), (7, 7), (" 8 ", 8)]
)
def test_numbers(text: Any, number: float) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize("text", ["", "1_0", "nan", "inf", "1,5", "x", True])
def test_what_is_no_number_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="number"):
        read_number(text)


def test_truth_and_lists() -> None:
    assert [read_boolean(each) for each in ("Yes", "f", "1", True)] == [True, False, True, True]
    with pytest.raises(ValueError, match="true or false"):
        read_boolean("perhaps")
    assert read_list("a; b;;c") == ["a", "b", "c"]


def test_objects_and_nulls_follow_the_mapping() -> None:
    mapping = FileMapping(
        columns=(
            Column("id", "user_id"),
            Column("home.city", "traits.address.city"),
            Column("fax", "traits.fax", empty_is_null=True),
        ),
        constants=(("traits.origin", "crm"),),
        other_columns=1,
    )
    check_mapping(mapping)
    row = RowReader(mapping, None).read({"id": 7.0, "home": {"city": "Seoul"}, "fax": "", "plan": "gold"} | {})
    assert row.user_id == "7"
    assert row.traits == {"address": {"city": "Seoul"}, "fax": None, "origin": "crm", "plan": "gold"}
    with pytest.raises(RowRejected, match="user_id: must be text or a number"):
        RowReader(mapping, None).read({"id": True, "home": None, "fax": None})


@pytest.mark.parametrize(
    "columns", [[("a", "traits")], [("a", "user_id"), ("b", "user_id")], [("a", "traits..x")], [("a", "nothing")]]
)
def test_a_mapping_that_contradicts_itself_is_refused(columns: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid, match=r"mapping\.columns"):
        check_mapping(FileMapping(columns=tuple(Column(*each) for each in columns)))
