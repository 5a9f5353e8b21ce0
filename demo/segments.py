# SPDX-License-Identifier: Apache-2.0
"""The segments that the demo keeps."""

from __future__ import annotations

from typing import NamedTuple


class SegmentWish(NamedTuple):
    """A segment to create, or to bring up to date."""

    name: str
    rule: str
    description: str


SHOP_SEGMENTS = (
    SegmentWish(
        "loyal-in-seoul",
        "traits.city == 'Seoul' && count('Order Completed', days(30)) >= 2",
        "서울 단골: 30일 안에 두 번 이상 주문한 고객",
    ),
    SegmentWish(
        "recent-buyers",
        "count('Order Completed', days(7)) >= 1",
        "Ordered something within a week",
    ),
    SegmentWish(
        "cart-left-behind",
        "count('Product Added', days(3)) >= 1 && count('Order Completed', days(3)) == 0",
        "장바구니에 담고 사흘 동안 주문하지 않은 고객",
    ),
    SegmentWish(
        "window-shoppers",
        "count('Product Viewed', days(30)) >= 10 && count('Order Completed', days(30)) == 0",
        "Looks a lot, buys nothing",
    ),
    SegmentWish(
        "big-spenders",
        "sum('Order Completed', 'revenue', days(30)) >= 500000",
        "30일 동안 50만 원 이상 주문한 고객",
    ),
)
IMPORT_SEGMENTS = (
    SegmentWish(
        "active-this-quarter",
        "count('Order Completed', days(90)) + count('Product Viewed', days(90)) >= 1",
        "Did something within 90 days",
    ),
    SegmentWish(
        "regulars",
        "count('Order Completed', days(365)) >= 5 || count('Product Viewed', days(365)) >= 100",
        "Comes back again and again",
    ),
)
