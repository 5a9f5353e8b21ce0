# SPDX-License-Identifier: Apache-2.0
"""From a visitor's click in Chromium to what the services know, recommend, and must no longer do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from chassis.testing import Engines, RunningService, running
from svc_profile.app import build as build_profile
from svc_profile.settings import Settings as ProfileSettings
from svc_recommend.app import build as build_recommend
from svc_recommend.settings import Settings as RecommendSettings

from .chromium import Browser, Pages, site
from .conftest import SECRET, RunningGateway, running_gateway

DEMO = Path(__file__).parents[2] / "demo/page.html"
ITEMS = [{"itemId": f"sku-{n}", "title": f"제주 감귤 {n}kg", "price": 9900, "currency": "KRW"} for n in range(6)]
HEAD = (
    "<script src='GATEWAY/sdk/v1/dangol.js'></script>"
    "<script>dangol.init({writeKey: 'dk_write_local'})</script><ul id=shelf></ul>"
)
SHOW = (
    "const items = await dangol.recommendations({limit: 3});"
    "const entry = item => Object.assign(document.createElement('li'), {textContent: item.title});"
    "shelf.replaceChildren(...items.map(entry));"
    "return [...shelf.children].map(shown => shown.textContent)"
)


@dataclass
class Shop:
    """A shop whose visitors are known, and get recommendations."""

    gateway: RunningGateway
    services: list[RunningService]

    async def settled(self) -> None:
        """Wait until every service has handled everything."""
        for service in self.services:
            await service.settled()

    async def get(self, path: str) -> httpx.Response:
        """Ask with the secret key."""
        return await self.gateway.http.get(path, headers={"x-api-key": SECRET})


@pytest.fixture(scope="module")
async def shop(engines: Engines) -> AsyncIterator[Shop]:
    """Run the gateway with two real services, six items and six customers who looked at three of them each."""
    shared: dict[str, Any] = {"stream_prefix": "shop.", "event_shards": 2}
    async with AsyncExitStack() as stack:
        profile = await stack.enter_async_context(running(build_profile, ProfileSettings, engines, **shared))
        recommend = await stack.enter_async_context(running(build_recommend, RecommendSettings, engines, **shared))
        addresses: dict[str, Any] = {"profile_address": profile.target, "recommend_address": recommend.target}
        gateway = await stack.enter_async_context(running_gateway(engines.nats_url, **shared, **addresses))
        await _fill(gateway)
        whole = Shop(gateway, [profile, recommend])
        await whole.settled()
        yield whole


async def _fill(gateway: RunningGateway) -> None:
    secret = {"x-api-key": SECRET}
    (await gateway.http.post("/v1/items:batchUpsert", json={"items": ITEMS}, headers=secret)).raise_for_status()
    views = [
        {
            "type": "track",
            "event": "Product Viewed",
            "userId": f"customer-{number}",
            "properties": {"product_id": f"sku-{(number + step) % 6}"},
        }
        for number in range(6)
        for step in range(3)
    ]
    assert (await gateway.post("/v1/batch", {"batch": views})).json()["accepted"] == 18


@pytest.fixture
def pages(shop: Shop) -> Iterator[Pages]:
    """Serve the shop's site."""
    with site(shop.gateway.url) as served:
        yield served


async def eventually(question: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the answer is yes."""
    async with asyncio.timeout(60):
        while not await question():
            await asyncio.sleep(0.1)


async def test_what_a_visitor_views_is_known_and_changes_what_is_shown(
    shop: Shop, browser: Browser, pages: Pages
) -> None:
    await browser.open(pages.add("/", HEAD))
    visitor = await browser.run("dangol.page('Home'); return dangol.anonymousId()")

    async def is_shelf_full() -> bool:
        return len(await browser.run(SHOW)) == 3

    await eventually(is_shelf_full)
    await browser.run("dangol.track('Product Viewed', {product_id: 'sku-0'})")
    path = f"/v1/profiles/anonymous_id:{visitor}"

    async def is_personal() -> bool:
        answer = await shop.get(f"{path}/recommendations")
        return bool(answer.status_code == 200 and answer.json()["personalized"])

    await eventually(is_personal)
    shown = await browser.run(SHOW)
    assert len(shown) == 3
    assert ITEMS[0]["title"] not in shown
    await browser.run("dangol.identify('customer-9', {name: '김단골'}); await dangol.flush()")
    await shop.settled()
    profile = (await shop.get("/v1/profiles/user_id:customer-9")).json()
    assert profile["eventCounts"] == {"page": 1, "Product Viewed": 1, "identify": 1}
    assert profile["traits"] == {"name": "김단골"}


async def test_a_refusal_in_the_browser_is_in_the_ledger_and_ends_what_is_learnt(
    shop: Shop, browser: Browser, pages: Pages
) -> None:
    await browser.open(pages.add("/", HEAD))
    visitor = await browser.run("dangol.track('Product Viewed', {product_id: 'sku-1'}); return dangol.anonymousId()")
    path = f"/v1/profiles/anonymous_id:{visitor}"

    async def is_known() -> bool:
        return (await shop.get(path)).status_code == 200

    await eventually(is_known)
    await browser.run("dangol.consent({analytics: false, personalization: false})")

    async def is_refused() -> bool:
        states = (await shop.get(f"{path}/consents")).json()["consents"]
        said = {state["purposeId"]: state["granted"] for state in states}
        return not said["analytics"] and not said["personalization"]

    await eventually(is_refused)
    await browser.run("dangol.track('Product Viewed', {product_id: 'sku-2'}); await dangol.flush()")
    await shop.settled()
    assert (await shop.get(path)).json()["eventCounts"].get("Product Viewed", 0) <= 1
    assert len(await browser.run(SHOW)) == 3


async def test_the_page_of_the_demo_works(shop: Shop, browser: Browser, pages: Pages) -> None:
    """The banner, recommendations, a click, a login."""
    page = DEMO.read_text(encoding="utf-8").replace("http://127.0.0.1:8080", "GATEWAY")
    await browser.open(pages.add("/page.html", page))
    await browser.until("document.querySelectorAll('#shelf li').length >= 3")
    await browser.run("document.querySelector('[data-consent=yes]').click()")
    await browser.until("document.getElementById('banner').hidden")
    await browser.run("document.querySelector('#shelf button').click(); document.getElementById('login').click()")
    visitor = await browser.run("return dangol.anonymousId()")

    async def is_known() -> bool:
        answer = await shop.get(f"/v1/profiles/anonymous_id:{visitor}")
        counts = answer.json().get("eventCounts", {})
        return bool({"page", "Product Viewed", "identify"} <= counts.keys())

    await eventually(is_known)
    assert await browser.run("return document.getElementById('customer').textContent") == "고객 customer-0001"
    assert await browser.complaints() == []
