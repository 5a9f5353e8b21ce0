# SPDX-License-Identifier: Apache-2.0
"""Work that calls at the same time have in common, done once for all of them.

The first call starts at once; whatever comes while it is being answered waits for the next turn and shares it. So one
call alone waits for nobody, and a hundred at once cost the database little more than one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Together(Generic[K, V]):
    """Answers single questions by a function that answers many."""

    def __init__(self, answer_all: Callable[[Sequence[K]], Awaitable[Sequence[V]]], *, most: int = 1_000) -> None:
        """`answer_all` returns the answers in the order of its questions, of which there are at most `most`."""
        self._answer_all = answer_all
        self._most = most
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._turns: asyncio.Task[None] | None = None

    async def answer(self, question: K) -> V:
        """Return the answer; raises what the function raises."""
        found: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, found))
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        return await found

    async def _take_turns(self) -> None:
        while self._waiting:
            turn, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._answer_all([question for question, _ in turn])
            except Exception as error:  # whoever waits for the turn has to know, whatever it is
                for _, found in turn:
                    if not found.done():
                        found.set_exception(error)
                continue
            for (_, found), each in zip(turn, answers, strict=True):
                if not found.done():
                    found.set_result(each)
