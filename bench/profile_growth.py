# SPDX-License-Identifier: Apache-2.0
"""How the cost of an event grows with the number of customers that svc-profile knows, and what a customer weighs.

The same traffic of known customers, who come at random from all that there are, is measured while few and while many
are loaded, in one run: through the service as it runs, from JetStream to JetStream, right after loading and when it has
flowed for a while; then through the service's fold alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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

STATE = ("fragments", "links", "fragment_profiles")


@dataclass(frozen=True)
class Served:
    """What the service as it runs took."""

    per_second: float
    """Events in a second."""
    cpu_us: float
    """Processor time per event of the service, PostgreSQL and NATS together."""


@dataclass(frozen=True)
class Size:
    """What was measured with some customers loaded."""

    profiles: int
    begun: Served
    """The first half of the traffic: PostgreSQL writes every page whole into its log when it changes it first."""
    served: Served
    """The second half."""
    folded: Cost
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


class Growing:
    """A running service whose customers become more."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._database: Database = running.service.database
        self._handle = Collecting(Namer(IdentityKey(bytes.fromhex(KEY)))).on_collected
        self._backlog = Backlog(running.service.bus.jetstream)
        self._chance = random.Random(11)
        self._loaded = 0
        self._stored = 0

    async def measure(self, size: int, events: int) -> Size:
        """Load customers up to a number; then measure traffic of all of them."""
        for arrivals in _arrivals(self._loaded, size):
            await handle_all(self._database, self._handle, pack(arrivals), MESSAGES)
        self._stored, self._loaded = self._stored + size - self._loaded, size
        await self._settle()
        begun, served = await self._serve(self._traffic(2 * events))
        await self._finish()
        folded = await measure_on(self._database, self._running.postgres, self._handle, MESSAGES, self._traffic(events))
        state, kept = await self._bytes(*STATE), await self._bytes("events")
        return Size(size, begun, served, folded, state / size, kept / self._stored)

    def _traffic(self, events: int) -> list[Event]:
        first = self._stored
        self._stored += events
        return [event("track", first + n, user=f"u{self._chance.randrange(self._loaded)}") for n in range(events)]

    async def _settle(self) -> None:
        """Let the service finish what follows from loading; then begin as after a night: cleaned up, all on disk."""
        await self._finish()
        async with self._database.snapshot() as tx:
            await tx.execute("VACUUM ANALYZE")
            await tx.execute("CHECKPOINT")

    async def _finish(self) -> None:
        """Let the service do what is to be done: announcements, the search index, what ages mean."""
        while any((await self._backlog.messages()).values()) or await self._value(_LEFT):
            await asyncio.sleep(1)

    async def _serve(self, events: Sequence[Event]) -> tuple[Served, Served]:
        """Publish events as the gateway does, and measure how each half of them is worked off."""
        batches = packed(events)
        outgoing = [Outgoing(f"events.collected.{each.shard}", each.data, new_ulid()) for each in batches]
        size = len(events) / len(batches)
        collect_less()
        for start in range(0, len(outgoing), _PUBLISHED_AT_ONCE):
            await self._running.service.bus.publish_all(outgoing[start : start + _PUBLISHED_AT_ONCE])
        return await self._work_off(len(batches) // 2, size), await self._work_off(0, size)

    async def _work_off(self, rest: int, events: float) -> Served:
        """Measure until so many messages, of so many events on average, are left."""
        waiting = before = await self._waiting()
        spent, started = self._running.spent(), time.perf_counter()
        while waiting > rest:
            await asyncio.sleep(_LOOK_S)
            waiting = await self._waiting()
        seconds, cpu = time.perf_counter() - started, sum(self._running.spent()) - sum(spent)
        count = (before - waiting) * events
        return Served(count / seconds, cpu / count * 1e6)

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


async def measure_growth(sizes: Sequence[int], events: int) -> list[Size]:
    """Measure on engines of its own."""
    async with whole_service() as running:
        await running.runner.start()
        growing = Growing(running)
        return [await growing.measure(size, events) for size in sizes]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    collect_less()
    lines = table(HEAD, rows(uvloop.run(measure_growth(arguments.profiles, arguments.events))))
    print("\n".join(lines))
    if not arguments.dry:
        put_table("profile-growth", lines)


if __name__ == "__main__":
    main()
