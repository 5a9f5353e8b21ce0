# SPDX-License-Identifier: Apache-2.0
"""How the cost of an event grows with the number of customers that svc-profile knows, and what a customer weighs.

Several databases are loaded, each with another number of customers. Then the same traffic of known customers, who come
at random from all that there are, is measured in turns, some events of each size at a time, so that a machine whose
speed changes is as slow for one as for the other: through the service as it runs, from JetStream to JetStream, and
through its fold alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import uvloop
from chassis.bus import Outgoing
from chassis.database import Database
from chassis.garbage import collect_less
from chassis.identity import IdentityKey
from chassis.ids import new_ulid
from dangol.events.v1.events_pb2 import Event
from svc_profile.consumers import Collecting
from svc_profile.domain.events import Namer

from bench.platform.backlog import Backlog
from bench.profile_fold import KEY, MESSAGES, Cost, event, handle_all, measure_on, packed, traits_of
from bench.profile_fold import messages as pack
from bench.report import put_table, table
from bench.service import Running, whole_service

_CHUNK = 50_000
_PUBLISHED_AT_ONCE = 200
_LOOK_S = 0.02

_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname = ANY (:tables)
"""

_LEFT = "SELECT (SELECT count(*) FROM search_queue) + (SELECT count(*) FROM consent_due)"

_CUSTOMERS = "SELECT count(*) FROM fragments WHERE namespace = 'user_id'"
_EVENTS = "SELECT count(*) FROM events"

STATE = ("fragments", "links", "fragment_profiles")


@dataclass(frozen=True)
class Served:
    """What the service as it runs took."""

    events: float
    seconds: float
    cpu_us: float
    """Processor time per event of the service, PostgreSQL and NATS together."""

    @property
    def per_second(self) -> float:
        """Events in a second."""
        return self.events / self.seconds


@dataclass(frozen=True)
class Size:
    """What was measured with some customers loaded."""

    profiles: int
    begun: Served
    """The first turn after a checkpoint: PostgreSQL writes every page whole into its log when it changes it first."""
    served: Served
    """The turns after the first third of them."""
    folded: Cost
    """The same turns, through the fold alone."""
    state_bytes: float
    """Bytes of a profile: its fragments, links and mapping, with their indexes."""
    event_bytes: float
    """Bytes of a stored event, with its indexes."""


def _arrivals(customers: int) -> Iterator[list[Event]]:
    """Say who customers are: each with a user id, an e-mail address and a device."""
    for start in range(0, customers, _CHUNK):
        yield [
            event("identify", n, user=f"u{n}", visitor=f"v{n}", traits=traits_of(n))
            for n in range(start, min(customers, start + _CHUNK))
        ]


class Growing:
    """A running service that knows a number of customers."""

    def __init__(self, running: Running, size: int) -> None:
        self.size = size
        self._running = running
        self._database: Database = running.service.database
        self._handle = Collecting(Namer(IdentityKey(bytes.fromhex(KEY)))).on_collected
        self._backlog = Backlog(running.service.bus.jetstream)
        self._chance = random.Random(11)
        self._stored = 0
        self._served: list[Served] = []
        self._folded: list[Cost] = []

    async def load(self) -> None:
        """Load the customers, unless they are there, and let everything be done that follows from that."""
        if await self._value(_CUSTOMERS) < self.size:
            for arrivals in _arrivals(self.size):
                await handle_all(self._database, self._handle, pack(arrivals), MESSAGES)
        self._stored = await self._value(_EVENTS)
        await self._finish()

    async def settle(self) -> None:
        """Begin as after a night: cleaned up, all on disk."""
        async with self._database.snapshot() as tx:
            await tx.execute("VACUUM ANALYZE")
            await tx.execute("CHECKPOINT")

    async def take_turn(self, events: int) -> None:
        """Measure some events through the service, and as many through its fold alone."""
        self._served.append(await self._serve(self._traffic(events)))
        await self._finish()
        traffic = self._traffic(events)
        self._folded.append(await measure_on(self._database, self._running.postgres, self._handle, MESSAGES, traffic))

    async def size_up(self) -> Size:
        """Return what all turns came to."""
        from_turn = len(self._served) // 3
        served, folded = self._served[from_turn:], self._folded[from_turn:]
        state, kept = await self._bytes(*STATE), await self._bytes("events")
        return Size(
            self.size,
            self._served[0],
            Served(
                sum(each.events for each in served),
                sum(each.seconds for each in served),
                sum(each.cpu_us * each.events for each in served) / sum(each.events for each in served),
            ),
            Cost(
                sum(each.events for each in folded),
                sum(each.seconds for each in folded),
                mean(each.python_us for each in folded),
                mean(each.postgres_us for each in folded),
                mean(each.rows for each in folded),
            ),
            state / self.size,
            kept / self._stored,
        )

    def _traffic(self, events: int) -> list[Event]:
        first = self._stored
        self._stored += events
        return [event("track", first + n, user=f"u{self._chance.randrange(self.size)}") for n in range(events)]

    async def _finish(self) -> None:
        """Let the service do what is to be done: announcements, the search index, what ages mean."""
        while any((await self._backlog.messages()).values()) or await self._value(_LEFT):
            await asyncio.sleep(1)

    async def _serve(self, events: Sequence[Event]) -> Served:
        """Publish events as the gateway does, and measure how what is left of them then is worked off."""
        batches = packed(events)
        outgoing = [Outgoing(f"events.collected.{each.shard}", each.data, new_ulid()) for each in batches]
        collect_less()
        for start in range(0, len(outgoing), _PUBLISHED_AT_ONCE):
            await self._running.service.bus.publish_all(outgoing[start : start + _PUBLISHED_AT_ONCE])
        waiting, spent, started = await self._waiting(), self._running.spent(), time.perf_counter()
        while await self._waiting():
            await asyncio.sleep(_LOOK_S)
        seconds, cpu = time.perf_counter() - started, sum(self._running.spent()) - sum(spent)
        count = waiting * len(events) / len(batches)
        return Served(count, seconds, cpu / count * 1e6)

    async def _waiting(self) -> int:
        """Return how many collected messages are not learnt from."""
        waiting = await self._backlog.messages()
        return sum(count for name, count in waiting.items() if "collected" in name)

    async def _bytes(self, *tables: str) -> int:
        return await self._value(_BYTES, tables=list(tables))

    async def _value(self, sql: str, **parameters: object) -> int:
        async with self._database.snapshot() as tx:
            return int(await tx.value(sql, **parameters))


def rows(sizes: Sequence[Size]) -> list[list[object]]:
    """Lay the sizes out beside the smallest."""
    first = sizes[0]
    return [
        [
            size.profiles,
            round(size.begun.per_second),
            round(size.served.per_second),
            f"{size.served.per_second / first.served.per_second:.0%}",
            size.served.cpu_us,
            round(size.folded.per_second),
            f"{size.folded.per_second / first.folded.per_second:.0%}",
            size.folded.python_us,
            size.folded.postgres_us,
            round(size.state_bytes),
            round(size.event_bytes),
        ]
        for size in sizes
    ]


HEAD = (
    "profiles", "at first, events/s", "served, events/s", "of the first", "CPU µs/event", "folded alone, events/s",
    "of the first ", "Python CPU µs/event", "PostgreSQL CPU µs/event", "bytes per profile", "bytes per stored event",
)  # fmt: skip


async def measure_growth(sizes: Sequence[int], events: int, turns: int, kept: Path | None) -> list[Size]:
    """Measure on engines of its own, one database for each size."""
    async with AsyncExitStack() as stack:
        all_sizes = []
        for size in sizes:
            running = await stack.enter_async_context(whole_service(kept=kept / str(size) if kept else None))
            await running.runner.start()
            all_sizes.append(Growing(running, size))
        for growing in all_sizes:
            await growing.load()
            print(f"{growing.size} customers are loaded", flush=True)
        for growing in all_sizes:
            await growing.settle()
        for turn in range(turns):
            for growing in all_sizes:
                await growing.take_turn(events)
            print(f"turn {turn + 1} of {turns}", flush=True)
        return [await growing.size_up() for growing in all_sizes]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--events", type=int, default=100_000, help="of each turn")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--kept", type=Path, help="a folder in which databases stay loaded for the next time")
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    collect_less()
    sizes = uvloop.run(measure_growth(arguments.profiles, arguments.events, arguments.turns, arguments.kept))
    lines = table(HEAD, rows(sizes))
    print("\n".join(lines))
    if not arguments.dry:
        put_table("profile-growth", lines)


if __name__ == "__main__":
    main()
