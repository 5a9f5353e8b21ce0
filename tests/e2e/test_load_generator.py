# SPDX-License-Identifier: Apache-2.0
"""The load that other tests and the benchmarks send: what it counts as acknowledged really was."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.platform.load import Load
from bench.platform.workload import BATCH_EVENTS, Workload
from bench.report import percentile, put_table, table
from tests.e2e.even_load import ROUND, EvenLoad


class MoodyServer:
    """Takes batches, refuses some and hangs up on others."""

    def __init__(self, moods: list[str]) -> None:
        self.moods = moods
        self.taken: Counter[str] = Counter()
        """Message ids of batches that were answered with 200."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        mood = self.moods.pop(0) if self.moods else "200"
        if mood == "hang up":
            return False
        if mood == "200":
            self.taken.update(event["messageId"] for event in json.loads(body)["batch"])
        writer.write(f"HTTP/1.1 {mood} X\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        return True


async def test_a_batch_is_sent_until_it_is_acknowledged() -> None:
    """With the same ids, whatever happened to the attempts before."""
    server = MoodyServer(["503", "hang up", "200", "429", "503"])
    even = EvenLoad("moody", 100)
    async with server.listening() as port, Load(port, even, 10_000, connections=2, stop_after=500) as load:
        await load.done()
    assert load.acknowledged == 500
    assert server.taken == Counter({f"moody-{number}-{step}": 1 for number in range(100) for step in range(5)})
    assert load.troubles == Counter({"503": 2, "429": 1, "connection": 1})


async def test_a_batch_that_is_refused_for_good_ends_the_load() -> None:
    """A load generator that is wrong must not look like a platform that is fast."""
    async with MoodyServer(["400"] * 9).listening() as port:
        with pytest.raises(RuntimeError, match="refused a batch: 400"):
            async with Load(port, EvenLoad("wrong", 100), rate=10_000, connections=1, stop_after=100) as load:
                await load.done()


def test_no_two_requests_share_a_message_id() -> None:
    """Every event of a load counts."""
    workload = Workload(customers=50)
    ids: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for _ in range(450):
        body = json.loads(workload.next_request().partition(b"\r\n\r\n")[2])
        ids.update(event["messageId"] for event in body["batch"])
        names.update(event.get("event") or event["type"] for event in body["batch"])
    assert len(ids) == workload.sent * BATCH_EVENTS == 45_000
    assert set(names) == set(workload.counts)


def test_in_an_even_load_everybody_does_the_same() -> None:
    """After whole rounds one question about everybody is enough."""
    load = EvenLoad("even", 200)
    done: dict[str, Counter[str]] = {}
    for _ in range(load.whole_rounds(3_000) // BATCH_EVENTS):
        for event in json.loads(load.next_request().partition(b"\r\n\r\n")[2])["batch"]:
            done.setdefault(event["userId"], Counter())[event.get("event") or event["type"]] += 1
    assert load.sent * BATCH_EVENTS == 2 * 200 * len(ROUND)
    assert set(done) == {load.customer(number) for number in range(200)}
    assert all(counts == load.expected() for counts in done.values())


def test_a_table_replaces_the_one_of_the_last_run(tmp_path: Path) -> None:
    """Figures stand between markers, the text around them stays."""
    readme = tmp_path / "README.md"
    readme.write_text("# Benchmarks\n\nBefore.\n\n<!-- a:begin -->\nold\n<!-- a:end -->\n\nAfter.\n", encoding="utf-8")
    put_table("a", table(["what", "rate"], [("new", 1234.5)]), readme)
    put_table("b", ["first time"], readme)
    text = readme.read_text(encoding="utf-8")
    assert "old" not in text
    assert "| new | 1,234 |" in text
    assert text.index("Before.") < text.index("new") < text.index("After.") < text.index("first time")


def test_a_percentile_is_one_of_the_values() -> None:
    """The nearest rank."""
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 0.99)) == (50, 95, 99)
    assert percentile([3.0], 0.99) == 3.0
