# SPDX-License-Identifier: Apache-2.0
"""How the cost of an event grows with the number of customers that svc-profile knows, and what a customer weighs.

The same traffic of known customers, who come at random from all that there are, is folded while few and while many are
loaded, in one run.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil
import uvloop
from chassis.database import Database
from chassis.garbage import collect_less
from chassis.identity import IdentityKey
from dangol.events.v1.events_pb2 import Event
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer

from bench.profile_fold import KEY, MESSAGES, Case, Cost, database_with_server, event, handle_all, measure_on, traits_of
from bench.profile_fold import messages as pack
from bench.report import put_table, table

_CHUNK = 50_000

_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname = ANY (:tables)
"""

STATE = ("fragments", "links", "fragment_profiles")


@dataclass(frozen=True)
class Size:
    """What was measured with some customers loaded."""

    profiles: int
    cost: Cost
    state_bytes: float
    """Bytes of a profile: its fragments, links and mapping, with their indexes."""
    event_bytes: float
    """Bytes of a stored event, with its indexes."""


def _arrivals(first: int, last: int) -> Iterator[list[Event]]:
    """Say who customers are: each with a user id, an e-mail address and a device."""
    for start in range(first, last, _CHUNK):
        yield [
            event("identify", n, user=f"u{n}", visitor=f"v{n}", traits=traits_of(n))
            for n in range(start, min(last, start + _CHUNK))
        ]


def _traffic(chance: random.Random, customers: int, events: int, start: int) -> list[Event]:
    return [event("track", start + n, user=f"u{chance.randrange(customers)}") for n in range(events)]


async def _bytes(database: Database, *tables: str) -> int:
    async with database.snapshot() as tx:
        return int(await tx.value(_BYTES, tables=list(tables)))


async def _settle(database: Database) -> None:
    """Do what PostgreSQL would do beside the traffic in the minutes after so much was loaded."""
    async with database.snapshot() as tx:
        await tx.execute("VACUUM ANALYZE")


async def grow(database: Database, server: psutil.Process, sizes: Sequence[int], events: int) -> list[Size]:
    """Load customers step by step; after each step measure the same traffic, when it has flowed for a while."""
    handle = Collecting(Namer(IdentityKey(bytes.fromhex(KEY)))).on_collected
    chance, loaded, stored, found = random.Random(11), 0, 0, []
    for size in sizes:
        for arrivals in _arrivals(loaded, size):
            await handle_all(database, handle, pack(arrivals), MESSAGES)
        stored, loaded = stored + size - loaded, size
        await _settle(database)
        before = _traffic(chance, size, events, stored)
        case = Case(f"{size}", before, _traffic(chance, size, events, stored + events))
        cost = await measure_on(database, server, handle, MESSAGES, case)
        stored += 2 * events
        found.append(Size(size, cost, await _bytes(database, *STATE) / size, await _bytes(database, "events") / stored))
    return found


def rows(sizes: Sequence[Size]) -> list[list[object]]:
    """Lay the sizes out beside the smallest."""
    first = sizes[0].cost.per_second
    return [
        [
            size.profiles,
            round(size.cost.per_second),
            f"{size.cost.per_second / first:.0%}",
            size.cost.python_us,
            size.cost.postgres_us,
            round(size.state_bytes),
            round(size.event_bytes),
        ]
        for size in sizes
    ]


HEAD = (
    "profiles", "events/s", "of the first", "Python CPU µs/event", "PostgreSQL CPU µs/event",
    "bytes per profile", "bytes per stored event",
)  # fmt: skip


async def measure_growth(sizes: Sequence[int], events: int) -> list[Size]:
    """Measure on a database of its own."""
    async with database_with_server() as (database, server):
        return await grow(database, server, sizes, events)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    collect_less()
    lines = table(HEAD, rows(uvloop.run(measure_growth(arguments.profiles, arguments.events))))
    print("\n".join(lines))
    if not arguments.dry:
        put_table("profile-growth", lines)


if __name__ == "__main__":
    main()
