# SPDX-License-Identifier: Apache-2.0
"""Data subjects: interactions are erased, exported and searched, and what was learnt from them is learnt anew."""

import pytest
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.identity_pb2 import FORGET_REASON_REBUILT, FragmentsForgotten

from .conftest import Shop


async def erase(shop: Shop, user: str) -> pb.ProbeReported:
    """Erase a customer, and search for the rest."""
    asked = {"data_request_id": f"dsr_{user}", "round": 1, "fragment_ids": [shop.fragment(user).bytes]}
    await shop.service.deliver(pb.ErasureRequested(**asked))  # type: ignore[arg-type]
    await shop.learn()
    await shop.service.deliver(pb.ProbeRequested(**asked, values=[user]))  # type: ignore[arg-type]
    return (await shop.service.published(pb.ProbeReported))[-1]


@pytest.mark.parametrize("restarted", [False, True])
async def test_nothing_is_learnt_from_an_erased_customer_any_more(shop: Shop, restarted: bool) -> None:
    """As if the customer had never been there: for items that others deal with too, and for those that nobody does."""
    await shop.put("a", "b", "c")
    await shop.happen(shop.views("kim", "a", "b", "c"), shop.views("lee", "a", "b"), shop.views("park", "b", "a"))
    await shop.learn()
    assert {item for item, _, _ in await shop.similar("c")} == {"a", "b"}
    if restarted:
        async with shop.service.database.transaction() as tx:
            await tx.execute("UPDATE refreshers SET holder = ''")
    probe = await erase(shop, "kim")
    assert list(probe.leftovers) == []
    assert await shop.similar("c") == []
    assert [(item, count) for item, _, count in await shop.similar("a")] == [("b", 2)]
    assert {row[0].bytes for row in await shop.kept()} == {shop.fragment("lee").bytes, shop.fragment("park").bytes}


async def test_what_is_learnt_after_an_erasure_is_what_a_fresh_start_learns(shop: Shop) -> None:
    """The memory that lets go and the memory that is filled anew agree."""
    for user in ("kim", "lee", "park", "choi"):
        await shop.happen(shop.views(user, "a", "b", *(("c", "d") if user != "lee" else ("e",))))
    await shop.learn()
    await erase(shop, "kim")
    after = await shop.neighbourhoods()
    async with shop.service.database.transaction() as tx:
        await tx.execute("UPDATE refreshers SET holder = ''")
        await tx.execute("DELETE FROM neighbourhoods")
    await shop.learn()
    assert [row for row in after if row[1] is not None] == await shop.neighbourhoods()


async def test_a_rebuilt_fragment_loses_its_interactions(shop: Shop) -> None:
    """They come again under another fragment."""
    await shop.happen(shop.views("kim", "a", "b"), shop.views("lee", "a"))
    forgotten = FragmentsForgotten(fragment_ids=[shop.fragment("kim").bytes], reason=FORGET_REASON_REBUILT)
    await shop.service.deliver(forgotten)
    assert {row[0].bytes for row in await shop.kept()} == {shop.fragment("lee").bytes}


async def test_every_table_says_whether_it_is_personal(shop: Shop) -> None:
    """Whoever adds a table says in store/personal.py what becomes of it when a customer is erased."""
    assert await shop.service.undeclared_tables() == set()
