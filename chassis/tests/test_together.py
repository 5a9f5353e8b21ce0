# SPDX-License-Identifier: Apache-2.0
"""Work of calls at the same time is done once, and every call gets its own answer."""

import asyncio
from collections.abc import Sequence

import pytest
from chassis.together import Together


class Squares:
    """Answers slowly, so that others come meanwhile; notes what it was asked at once."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.go = asyncio.Event()

    async def answer_all(self, numbers: Sequence[int]) -> Sequence[int]:
        self.turns.append(list(numbers))
        await self.go.wait()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [number**2 for number in numbers]


async def test_who_comes_meanwhile_shares_the_next_turn() -> None:
    """Nobody waits for more than the turn in hand, and each gets the answer to its own question."""
    squares = Squares()
    together = Together(squares.answer_all, most=3)
    first = asyncio.create_task(together.answer(1))
    while not squares.turns:
        await asyncio.sleep(0)
    others = [asyncio.create_task(together.answer(number)) for number in (2, 3, 2, 5)]
    await asyncio.sleep(0)
    squares.go.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [4, 9, 4, 25]
    assert squares.turns == [[1], [2, 3, 2], [5]]


async def test_a_failure_is_told_to_those_of_its_turn_only() -> None:
    """And the next turn works again; a call that was given up disturbs nobody."""
    squares = Squares()
    together = Together(squares.answer_all, most=2)
    gone = asyncio.create_task(together.answer(4))
    while not squares.turns:
        await asyncio.sleep(0)
    unlucky, lucky = ([asyncio.create_task(together.answer(n)) for n in pair] for pair in ((13, 2), (6, 7)))
    await asyncio.sleep(0)
    gone.cancel()
    squares.go.set()
    for each in unlucky:
        with pytest.raises(ValueError, match="thirteen"):
            await each
    assert await asyncio.gather(*lucky) == [36, 49]
    assert await together.answer(3) == 9
