# SPDX-License-Identifier: Apache-2.0
"""Retention: interactions whose time is over are forgotten, also by the neighbourhoods."""

from chassis.retention.enforcing import Retention
from dangol.profile.v1 import retention_pb2 as pb

from .conftest import Shop

OLD = -40_000_000
"""Minutes from the start of the tests: decades before."""


async def enforce(shop: Shop, *events: tuple[str, int]) -> None:
    """Let rules be enforced."""
    rules = [
        pb.RetentionRule(rule_id=f"r{n}", event=event, days=days, action=pb.RETENTION_ACTION_DESTROY)
        for n, (event, days) in enumerate(events)
    ]
    await shop.service.deliver(pb.RetentionRulesChanged(retention_rules=rules, revision=1))
    await Retention(shop.service.database, shop.service.service.retained).run()
    await shop.learn()


async def test_what_is_too_old_is_forgotten_as_if_it_had_never_been(shop: Shop) -> None:
    """What is younger stays."""
    await shop.put("a", "b", "c")
    await shop.happen(shop.views("kim", "a", "b"), shop.views("lee", "a", "b"))
    await shop.learn()
    before = await shop.similar("a")
    long_ago = [shop.event("park", "Product Viewed", item, minute=OLD) for item in ("a", "c")]
    await shop.happen(long_ago)
    await shop.learn()
    assert len(await shop.kept()) == 6
    await enforce(shop, ("*", 3650))
    assert await shop.similar("a") == before
    assert {row[0].bytes for row in await shop.kept()} == {shop.fragment("kim").bytes, shop.fragment("lee").bytes}


async def test_a_kind_with_a_rule_of_its_own_stays(shop: Shop) -> None:
    """Views are forgotten, the order is not."""
    await shop.happen(
        [
            shop.event("kim", "Product Viewed", "a", minute=OLD),
            shop.event("kim", "Order Completed", "a", minute=OLD),
            shop.event("kim", "Product Viewed", "b", minute=OLD),
        ]
    )
    await enforce(shop, ("Product Viewed", 3650))
    (row,) = await shop.kept()
    assert (row[1], row[2], row[4] > 0) == ("a", 0, True)
    await enforce(shop, ("*", 3650), ("Order Completed", 36_500))
    assert len(await shop.kept()) == 1
