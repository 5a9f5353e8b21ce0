# SPDX-License-Identifier: Apache-2.0
"""Work out neighbourhoods anew where customers' histories changed."""

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

from chassis.database import Database
from chassis.ids import new_ulid

from svc_recommend.domain.customers import FragmentKey
from svc_recommend.domain.histories import Changes
from svc_recommend.domain.model import Model
from svc_recommend.domain.neighbours import Neighbourhood, Parameters
from svc_recommend.store.histories import HistoryStore, Taken
from svc_recommend.store.neighbourhoods import NeighbourhoodStore

_CHANGES_AT_ONCE = 200
_FRAGMENTS_AT_ONCE = 1_000
_ITEMS_AT_ONCE = 4
_IDLE_FACTOR = 4


@dataclass(frozen=True)
class Limits:
    """How much a refresher may take on."""

    change_rows: int = 500
    """Most transactions whose changes are taken over in one run."""
    items: int = 50
    """Most neighbourhoods that are worked out in one run; four times as many when nothing else changed."""
    fragments: int = 500_000
    """Most fragments in memory; beyond, half of the customers are learnt from, then a quarter, and so on."""


class Refresher:
    """Follows the histories of all customers and keeps the neighbourhoods of all items.

    The histories are in its memory, and changes reach it as noted by those who made them. Whatever goes wrong, and
    whenever another replica did this work in between, it starts anew from the tables.

    The work is done on the event loop in steps of about a millisecond: in a process that also answers requests, a
    thread would keep them waiting longer, because Python lets go of its lock only every 5 ms.
    """

    def __init__(
        self, database: Database, parameters: Parameters, limits: Limits, *, on_put: Callable[[], None]
    ) -> None:
        self._database = database
        self._on_put = on_put
        self._parameters = parameters
        self._limits = limits
        self._name = new_ulid()
        self._model: Model | None = None

    @property
    def due_count(self) -> int:
        """Number of neighbourhoods that are due."""
        return self._model.due_count if self._model else 0

    async def run(self) -> None:
        """Take over what changed, and work out a limited number of neighbourhoods."""
        model, self._model = self._model, None
        async with self._database.transaction() as tx:
            store = HistoryStore(tx)
            if not await store.claim(self._name) or model is None:
                await store.forget_changes()
                taken, model = None, None
            else:
                taken = await store.take(self._limits.change_rows)
        if model is None or taken is None:
            model = await self._read_everything()
        else:
            await self._take_over(model, taken)
        await self._refresh(model, is_idle=taken is not None and not taken.row_count)
        # Only now: after a failure it must start anew.
        self._model = model

    async def _read_everything(self) -> Model:
        """Read all histories. What changes meanwhile is noted, and found by the next run."""
        model = Model(self._parameters, self._limits.fragments)
        after = None
        while True:
            async with self._database.snapshot() as tx:
                page = await HistoryStore(tx).page(after, _FRAGMENTS_AT_ONCE)
            if not len(page):
                break
            after = page.fragment_ids[-1]
            await self._learn(model, page, frozenset(page.fragment_ids))
        await _in_steps(model.settle())
        async with self._database.transaction() as tx:
            await NeighbourhoodStore(tx).empty_orphans()
        return model

    async def _take_over(self, model: Model, taken: Taken) -> None:
        new = {fragment_id for fragment_id in taken.changes.fragment_ids if fragment_id not in model}
        await self._learn(model, taken.changes, taken.moved | new)
        # Whoever moved into the sample brings a history that was not looked at before.
        joined = [each for each in taken.moved if each not in model and model.learns_from(each)]
        if joined:
            async with self._database.snapshot() as tx:
                histories = await HistoryStore(tx).whole(joined)
            await _in_steps(model.put(histories))
        await _in_steps(model.forget(sorted(taken.forgotten)))

    async def _learn(self, model: Model, changes: Changes, unplaced: Set[FragmentKey]) -> None:
        if unplaced:
            async with self._database.snapshot() as tx:
                customer_of = await HistoryStore(tx).customers_of(list(unplaced))
            await _in_steps(model.place(customer_of))
        for piece in _pieces(changes):
            await _in_steps(model.put(piece))

    async def _refresh(self, model: Model, *, is_idle: bool) -> None:
        left = self._limits.items * (_IDLE_FACTOR if is_idle else 1)
        while left > 0 and model.due_count:
            found: list[Neighbourhood] = []
            while len(found) < min(left, self._limits.items) and model.due_count:
                found += model.refresh(_ITEMS_AT_ONCE)
                await asyncio.sleep(0)
            left -= len(found)
            async with self._database.transaction() as tx:
                await NeighbourhoodStore(tx).put(_latest(found))
            self._on_put()


def _latest(found: Sequence[Neighbourhood]) -> list[Neighbourhood]:
    """Keep the last of several neighbourhoods of one item."""
    return list({each.item_id: each for each in found}.values())


def _pieces(changes: Changes) -> Iterator[Changes]:
    for start in range(0, len(changes), _CHANGES_AT_ONCE):
        rows = slice(start, start + _CHANGES_AT_ONCE)
        yield Changes(
            changes.fragment_ids[rows], changes.item_ids[rows], changes.weights[rows], changes.last_times_us[rows]
        )


async def _in_steps(steps: Iterator[None]) -> None:
    """Let others have the event loop between the steps of long work."""
    for _ in steps:
        await asyncio.sleep(0)
