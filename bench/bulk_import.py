# SPDX-License-Identifier: Apache-2.0
"""How fast a file of events becomes profiles, beside a bare prototype of dedupe and fold on the same PostgreSQL.

svc-profile runs whole, on PostgreSQL and NATS of its own: a file is uploaded, and from its start until its import is
complete every row is parsed, learnt from, and announced as a resolved event on JetStream.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from chassis.client import CallerToken, channel
from chassis.database import Database
from chassis.garbage import collect_less
from chassis.testing import TOKEN_KEY
from chassis.tokens import TokenSigner
from dangol.profile.v1 import transfer_pb2 as pb
from dangol.profile.v1.transfer_pb2_grpc import ImportServiceStub

from bench.profile_fold import PROTOTYPE_MESSAGES, Case, event, measure, prototype
from bench.report import put_table, table
from bench.service import Running, whole_service

PIECE_BYTES = 2**20
START_S = 1_763_000_000
NAMES = ("Product Viewed", "Product Added", "Cart Viewed", "Product List Viewed")
COLUMNS = ("customer", "at", "event", "product", "price", "quantity", "category", "url")
MAPPING = pb.ImportMapping(
    columns=[
        pb.ImportColumn(column="customer", field="user_id"),
        pb.ImportColumn(column="at", field="time"),
        pb.ImportColumn(column="event", field="name"),
        pb.ImportColumn(column="product", field="properties.product_id"),
        pb.ImportColumn(column="price", field="properties.price", type=pb.IMPORT_TYPE_NUMBER),
        pb.ImportColumn(column="quantity", field="properties.quantity", type=pb.IMPORT_TYPE_NUMBER),
        pb.ImportColumn(column="category", field="properties.category"),
        pb.ImportColumn(column="url", field="properties.url"),
    ]
)
Row = tuple[str, int, str, str, float, int, str, str]


@dataclass(frozen=True)
class Cost:
    """What one file took."""

    events: int
    megabytes: float
    seconds: float
    python_us: float
    postgres_us: float
    nats_us: float
    growth_bytes: int

    @property
    def per_second(self) -> float:
        """Events in a second."""
        return self.events / self.seconds


def row(chance: random.Random, number: int, customers: int) -> Row:
    """Draw one event of one of the customers."""
    who = chance.randrange(customers)
    product = f"sku-{number % 997}"
    return (
        f"u{who}", START_S + number // 100, NAMES[number % 4], product, 12900.5, 2, "food", f"https://shop.example/{product}"
    )  # fmt: skip


def csv_file(rows: list[Row]) -> bytes:
    """Write CSV."""
    lines = [",".join(COLUMNS), *(",".join(map(str, each)) for each in rows)]
    return ("\n".join(lines) + "\n").encode()


def ndjson_file(rows: list[Row]) -> bytes:
    """Write a JSON object per line."""
    return b"".join(json.dumps(dict(zip(COLUMNS, each, strict=True))).encode() + b"\n" for each in rows)


def parquet_file(rows: list[Row]) -> bytes:
    """Write Parquet in groups of 100,000 rows."""
    out = io.BytesIO()
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), out, row_group_size=100_000)
    return out.getvalue()


FILES: Mapping[str, tuple[pb.ImportFormat.ValueType, Callable[[list[Row]], bytes]]] = {
    "CSV": (pb.IMPORT_FORMAT_CSV, csv_file),
    "NDJSON": (pb.IMPORT_FORMAT_NDJSON, ndjson_file),
    "Parquet": (pb.IMPORT_FORMAT_PARQUET, parquet_file),
}


class Bench:
    """svc-profile at work."""

    def __init__(self, running: Running) -> None:
        self._running = running
        signer = TokenSigner(TOKEN_KEY)
        self._channel = channel(f"127.0.0.1:{running.runner.rpc.port}", [CallerToken(signer, "bench", ["*"])])
        self._stub = ImportServiceStub(self._channel)

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    async def bring_in(self, name: str, rows: list[Row]) -> Cost:
        """Upload a file, and measure from its start to its end."""
        format_, make = FILES[name]
        data = make(rows)
        request = pb.CreateImportRequest(
            kind=pb.IMPORT_KIND_EVENTS, format=format_, mapping=MAPPING, source=name.lower()
        )
        import_id = (await self._stub.CreateImport(request)).import_job.import_id
        for offset in range(0, len(data), PIECE_BYTES):
            piece = data[offset : offset + PIECE_BYTES]
            await self._stub.UploadImportChunk(
                pb.UploadImportChunkRequest(import_id=import_id, offset=offset, data=piece)
            )
        megabytes = len(data) / 1e6
        del data
        collect_less()
        before, held = self._running.spent(), psutil.Process().memory_info().rss
        started = time.perf_counter()
        await self._stub.StartImport(pb.StartImportRequest(import_id=import_id))
        most = held
        while True:
            job = (await self._stub.GetImport(pb.GetImportRequest(import_id=import_id))).import_job
            most = max(most, psutil.Process().memory_info().rss)
            if job.state != pb.IMPORT_STATE_RUNNING:
                break
            await asyncio.sleep(0.2)
        seconds = time.perf_counter() - started
        if job.taken_events != len(rows):
            raise RuntimeError(f"{job.taken_events} of {len(rows)} events were taken: {job}")
        python, postgres, nats = (
            (now - then) / len(rows) * 1e6 for now, then in zip(self._running.spent(), before, strict=True)
        )
        return Cost(len(rows), megabytes, seconds, python, postgres, nats, most - held)


async def measure_all(events: int, customers: int, names: list[str]) -> dict[str, Cost]:
    """Measure the bare prototype and a file of each format."""
    costs: dict[str, Cost] = {}
    async with whole_service() as running:
        costs["bare prototype"] = await _bare(running.service.database, running.postgres, events, customers)
        await running.runner.start()
        bench = Bench(running)
        try:
            chance = random.Random(7)
            for name in names:
                rows = [row(chance, number, customers) for number in range(events)]
                costs[name] = await bench.bring_in(name, rows)
        finally:
            await bench.close()
    return costs


async def _bare(database: Database, server: psutil.Process, events: int, customers: int) -> Cost:
    """Dedupe and fold the same kind of events, already parsed, in one process, announcing nothing."""
    chance = random.Random(7)
    some = min(events, 200_000)
    measured = [event("track", number, user=f"u{chance.randrange(customers)}") for number in range(some)]
    cost = await measure(database, server, prototype, PROTOTYPE_MESSAGES, Case("bare", [], measured))
    return Cost(some, 0, cost.seconds, cost.python_us, cost.postgres_us, 0, 0)


HEAD = (
    "file", "events", "MB", "events/s", "Python CPU µs/event", "PostgreSQL CPU µs/event", "NATS CPU µs/event",
    "CPU, ratio to bare", "memory grew by, MB",
)  # fmt: skip


def lines(costs: dict[str, Cost]) -> list[list[object]]:
    """Lay the costs out beside the bare prototype."""
    bare = costs["bare prototype"]
    return [
        [
            name,
            cost.events,
            cost.megabytes,
            round(cost.per_second),
            cost.python_us,
            cost.postgres_us,
            cost.nats_us,
            (cost.python_us + cost.postgres_us + cost.nats_us) / (bare.python_us + bare.postgres_us),
            cost.growth_bytes / 1e6,
        ]
        for name, cost in costs.items()
    ]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--formats", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    costs = uvloop.run(measure_all(arguments.events, arguments.customers, arguments.formats))
    written = table(HEAD, lines(costs))
    print("\n".join(written))
    if not arguments.dry:
        put_table("bulk-import", written)


if __name__ == "__main__":
    main()
