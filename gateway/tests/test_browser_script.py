# SPDX-License-Identifier: Apache-2.0
"""`dangol.js` in a real Chromium, on pages of another origin, against the gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dangol.events.v1 import events_pb2 as pb
from gateway.browser import script

from .chromium import Browser, Pages, site
from .conftest import RunningGateway

GUIDE = Path(__file__).parents[2] / "docs/guides/collecting-events.md"
SCRIPT = "/sdk/v1/dangol.js"
CONSENT_EVENT = "Segment Consent Preference Updated"
TAG = "<script src='GATEWAY/sdk/v1/dangol.js'></script>"
INIT = "<script>dangol.init({writeKey: 'dk_write_local'})</script>"
LAZY = "<script>dangol.init({writeKey: 'dk_write_local', flushInterval: 600000})</script>"
ASKING = "<script>dangol.init({writeKey: 'dk_write_local', requireConsent: true})</script>"
PREFIX = "dangol:dk_write_local:"
STORED = f"Object.keys(localStorage).map(k => k.replace('{PREFIX}', '')).sort()"


@pytest.fixture
def pages(gateway: RunningGateway) -> Iterator[Pages]:
    """Serve a site whose origin has nothing stored yet."""
    with site(gateway.url) as served:
        yield served


async def arrived(gateway: RunningGateway, count: int) -> list[pb.Event]:
    """Return the distinct events when so many are there, in the order in which they happened."""
    async with asyncio.timeout(60):
        while True:
            events = {event.message_id: event for event in await gateway.collected()}
            if len(events) >= count:
                assert len(events) == count
                return sorted(events.values(), key=lambda event: event.original_time_us)
            await asyncio.sleep(0.1)


def consent_of(event: pb.Event) -> Any:
    """Return the consent that an event carries."""
    return json.loads(event.context).get("consent", {}).get("categoryPreferences")


class TestServing:
    """How the file is served; needs no browser."""

    async def test_it_is_small_cacheable_and_open_to_every_page(self, gateway: RunningGateway) -> None:
        answer = await gateway.http.get(SCRIPT)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) < 6 * 1024
        assert "max-age=86400" in answer.headers["cache-control"]
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["vary"] == "accept-encoding"

    @pytest.mark.parametrize(
        ("accepted", "encoding"),
        [("gzip", "gzip"), ("br, GZIP;q=0.5", "gzip"), ("*", "gzip"), ("identity", None), ("gzip;q=0", None)],
    )
    async def test_it_is_compressed_for_who_takes_that(
        self, gateway: RunningGateway, accepted: str, encoding: str | None
    ) -> None:
        answer = await gateway.http.get(SCRIPT, headers={"accept-encoding": accepted})
        assert answer.headers.get("content-encoding") == encoding
        assert answer.content == script.load().plain.body

    async def test_an_unchanged_copy_is_not_sent_again(self, gateway: RunningGateway) -> None:
        tags = set()
        for accepted in ("gzip", "identity"):
            first = await gateway.http.get(SCRIPT, headers={"accept-encoding": accepted})
            known = f'"other", W/{first.headers["etag"]}'
            again = await gateway.http.get(SCRIPT, headers={"accept-encoding": accepted, "if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            tags.add(first.headers["etag"])
        assert len(tags) == 2

    async def test_only_get_and_head_are_taken(self, gateway: RunningGateway) -> None:
        assert (await gateway.http.post(SCRIPT)).status_code == 405
        head = await gateway.http.head(SCRIPT)
        assert (head.status_code, head.content) == (200, b"")

    def test_what_is_served_is_the_source_without_comments(self) -> None:
        served = script.load()
        assert gzip.decompress(served.gzipped.body) == served.plain.body
        assert served.plain.body.startswith(b"// SPDX-License-Identifier: Apache-2.0\n")
        assert served.plain.body.count(b"\n//") == 0
        assert script.shorten("// licence\n  // note\n\n  a();\n") == "// licence\na();\n"


class TestEvents:
    """What a page tells."""

    async def test_a_page_a_customer_and_an_order_arrive_as_they_are(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        url = pages.add("/상품", f"<title>제주 감귤 🍊</title>{TAG}{INIT}")
        await browser.open(f"{url}?q=귤&utm_source=naver&utm_campaign=가을")
        await browser.run(
            "dangol.page('shop', '상품', {sku: 'sku-1'});"
            "dangol.identify('customer-1', {name: '김단골', mood: '😀'});"
            "dangol.track('Order Completed', {revenue: 29000, item: '제주 감귤 5kg 🍊'});"
            "dangol.group('company-1', {plan: 'pro'}); dangol.alias('customer-2')"
        )
        page, identify, track, group, alias = await arrived(gateway, 5)
        assert (page.type, page.category, page.name) == (pb.EVENT_TYPE_PAGE, "shop", "상품")
        properties = json.loads(page.properties)
        assert (properties["title"], properties["sku"]) == ("제주 감귤 🍊", "sku-1")
        assert json.loads(identify.traits) == {"name": "김단골", "mood": "😀"}
        assert json.loads(track.properties) == {"revenue": 29000, "item": "제주 감귤 5kg 🍊"}
        assert (group.group_id, json.loads(group.traits)) == ("company-1", {"plan": "pro"})
        assert (alias.user_id, alias.previous_id) == ("customer-2", "customer-1")
        assert [event.user_id for event in (page, identify, track)] == ["", "customer-1", "customer-1"]
        (visitor,) = {event.anonymous_id for event in (page, identify, track, group, alias)}
        assert visitor == await browser.run("return dangol.anonymousId()")
        context = json.loads(track.context)
        assert context["campaign"] == {"source": "naver", "name": "가을"}
        assert context["library"]["name"] == "dangol.js"
        assert context["screen"]["width"] > 0
        assert context["page"]["path"] == "/%EC%83%81%ED%92%88"
        assert context["locale"].startswith("ko")
        assert await gateway.rejected() == []
        assert await browser.complaints() == []

    async def test_calls_from_before_the_script_has_loaded_are_not_lost(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        """The snippet of the guide; the page goes on calling the stub that it got hold of."""
        (snippet,) = re.findall(r"```html\n(<script>\n.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
        snippet = snippet.replace("http://127.0.0.1:8080", "GATEWAY").replace("dangol.page();", "dangol.page('Home');")
        shown = "dangol.recommendations({limit: 2}).then(items => { window.shown = items.length })"
        early = f"<script>var old = dangol; {shown}</script>"
        await browser.open(pages.add("/", f"{snippet}{early}"))
        await browser.until("window.shown === 2")
        await browser.run("old.track('Late')")
        assert [event.name for event in await arrived(gateway, 2)] == ["Home", "Late"]

    async def test_a_tag_alone_is_enough_under_a_strict_content_security_policy(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        tag = "<script src='GATEWAY/sdk/v1/dangol.js' data-write-key=dk_write_local data-auto-page async></script>"
        policy = "default-src 'none'; script-src GATEWAY; connect-src GATEWAY; require-trusted-types-for 'script'"
        await browser.open(pages.add("/strict", tag, content_security_policy=policy))
        (page,) = await arrived(gateway, 1)
        assert page.type == pb.EVENT_TYPE_PAGE
        assert await browser.complaints() == []

    async def test_an_application_of_one_page_tells_each_of_its_views(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        init = INIT.replace("'}", "', autoPage: true}")
        url = pages.add("/", f"<title>앱</title>{TAG}{init}")
        await browser.open(url)
        await browser.run("history.pushState({}, '', '/cart'); document.title = '장바구니'")
        await arrived(gateway, 2)
        await browser.run("history.replaceState({step: 2}, '', '/cart#top')")
        await browser.run("history.back()")
        views = [json.loads(event.properties) for event in await arrived(gateway, 3)]
        assert [(view["path"], view["title"]) for view in views[:2]] == [("/", "앱"), ("/cart", "장바구니")]
        assert [view["referrer"] for view in views] == ["", url, f"{pages.url}/cart#top"]

    async def test_another_customer_on_the_same_browser_is_another_visitor(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        first = await browser.run("dangol.identify('c-1'); return dangol.anonymousId()")
        assert await browser.run("dangol.identify('c-1', {vip: true}); return dangol.anonymousId()") == first
        second = await browser.run("dangol.identify(2); return dangol.user()")
        assert second["userId"] == "2"
        third = await browser.run("dangol.reset(); dangol.identify({city: '서울'}); return dangol.user()")
        assert third["userId"] is None
        assert len({first, second["anonymousId"], third["anonymousId"]}) == 3
        events = await arrived(gateway, 4)
        assert [event.user_id for event in events] == ["c-1", "c-1", "2", ""]

    async def test_a_mistake_in_a_call_never_breaks_the_page(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        await browser.run(
            "const loop = {}; loop.loop = loop; dangol.track('Circular', loop);"
            "dangol.track('Large', {text: '가'.repeat(12000)}); dangol.init({}); dangol.track('Good')"
        )
        assert [event.name for event in await arrived(gateway, 1)] == ["Good"]
        complaints = await browser.complaints()
        assert any("circular" in text for text in complaints)
        assert any("32 KiB" in text for text in complaints)
        assert not any("Uncaught" in text for text in complaints)


class TestDelivery:
    """Nothing that was told is lost."""

    async def test_events_outlast_being_offline_and_a_reload(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        await browser.block("*/v1/batch*")
        await browser.run("dangol.track('Offline', {n: 1}); dangol.track('Offline', {n: 2})")
        await browser.until(f"{STORED}.includes('wait')")
        await browser.reload()
        await browser.run("dangol.track('Offline', {n: 3})")
        assert await gateway.collected() == []
        await browser.block()
        await browser.run("dispatchEvent(new Event('online'))")
        assert [json.loads(event.properties)["n"] for event in await arrived(gateway, 3)] == [1, 2, 3]
        await browser.until(f"!{STORED}.some(name => name.startsWith('q:'))")
        assert len(await gateway.collected()) == 3

    async def test_what_is_left_when_a_page_goes_is_sent_by_a_beacon(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{LAZY}"))
        await browser.run("dangol.track('Link Clicked', {to: '다음'})")
        assert await gateway.collected() == []
        await browser.open(pages.add("/next", "no script here"))
        (event,) = await arrived(gateway, 1)
        assert json.loads(event.properties) == {"to": "다음"}
        assert await browser.complaints() == []

    async def test_a_beacon_is_no_complaint_in_the_console(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{LAZY}"))
        await browser.run("dangol.track('Kept'); dispatchEvent(new Event('pagehide'))")
        await arrived(gateway, 1)
        await browser.until("performance.getEntriesByType('resource').some(e => e.initiatorType === 'beacon')")
        assert await browser.complaints() == []

    async def test_the_next_page_repeats_what_only_a_beacon_has_sent_under_the_same_message_id(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        """Nobody hears whether a beacon arrived; the message id lets the server count once."""
        await browser.open(pages.add("/", f"{TAG}{LAZY}"))
        await browser.run("dangol.track('Link Clicked')")
        await browser.open(pages.add("/next", f"{TAG}{INIT}"))
        await browser.until(f"!{STORED}.some(name => name.startsWith('q:'))")
        copies = await gateway.collected()
        assert len(copies) == 2
        assert len({event.message_id for event in copies}) == 1

    async def test_many_events_go_in_batches_that_a_page_may_leave_behind(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        await browser.run("for (let n = 0; n < 30; n++) dangol.track('Large', {n, text: '가'.repeat(3000)})")
        events = await arrived(gateway, 30)
        assert [json.loads(event.properties)["n"] for event in events] == list(range(30))
        requests = "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/v1/batch'))"
        await browser.until(f"{requests}.length >= 5")

    async def test_a_gateway_that_asks_to_wait_is_left_alone_as_long_as_it_says(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        init = INIT.replace("dk_write_local", "slow-browser-key")
        await browser.open(pages.add("/", f"{TAG}{init}"))
        await browser.run("dangol.track('First')")
        await arrived(gateway, 1)
        await browser.run("dangol.track('Second')")
        wait = await browser.until("localStorage.getItem('dangol:slow-browser-key:wait')")
        left = await browser.run("return arguments[0] - Date.now()", wait)
        assert 200_000 < left <= 300_000
        await browser.reload()
        await browser.run("return dangol.flush()")
        assert len(await gateway.collected()) == 1

    async def test_a_key_that_nobody_knows_is_said_once_and_not_tried_for_ever(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        init = INIT.replace("dk_write_local", "unknown")
        await browser.open(pages.add("/", f"{TAG}{init}"))
        await browser.run("dangol.track('Lost'); return dangol.flush()")
        assert any("UNKNOWN_KEY" in text for text in await browser.complaints())
        assert await browser.run("return Object.keys(localStorage).filter(k => k.includes(':q:'))") == []

    async def test_two_tabs_are_one_visitor_and_send_each_event_once(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        url = pages.add("/", f"{TAG}{INIT}")
        await browser.open(url)
        many = "for (let n = 0; n < 20; n++) dangol.track(arguments[0], {n}); return dangol.anonymousId()"
        visitor = await browser.run(many, "First tab")
        first = await browser.new_tab()
        await browser.open(url)
        assert await browser.run(many, "Second tab") == visitor
        await browser.switch(first)
        await browser.run(many, "Third")
        events = await arrived(gateway, 60)
        assert {event.anonymous_id for event in events} == {visitor}
        assert len(await gateway.collected()) == 60

    async def test_a_browser_that_stores_nothing_still_tells(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        """A sandboxed page: reading localStorage raises, as it does where people have turned it off."""
        url = pages.add("/", f"{TAG}{INIT}", content_security_policy="sandbox allow-scripts")
        await browser.open(url)
        assert await browser.run("try { return localStorage.length } catch (e) { return e.name }") == "SecurityError"
        await browser.run("dangol.page('A'); dangol.identify('c-1')")
        page, identify = await arrived(gateway, 2)
        assert page.anonymous_id == identify.anonymous_id != ""
        assert identify.user_id == "c-1"


class TestConsent:
    """Nothing is sent or stored that the visitor has not agreed to."""

    async def test_nothing_leaves_the_page_before_the_visitor_has_answered(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{ASKING}"))
        visitor = await browser.run(
            "dangol.page('Home'); dangol.identify('c-1'); await dangol.flush(); return dangol.anonymousId()"
        )
        assert await browser.run("return localStorage.length") == 0
        kinds = "['fetch', 'beacon'].includes(e.initiatorType)"
        sent = f"return performance.getEntriesByType('resource').filter(e => {kinds}).length"
        assert await browser.run(sent) == 0
        await browser.run("dangol.consent({marketing: false})")
        assert await browser.run(f"await dangol.flush(); {sent}") == 0
        await browser.run("dangol.consent({analytics: true})")
        events = await arrived(gateway, 4)
        assert sorted(event.name for event in events) == sorted(["Home", "", CONSENT_EVENT, CONSENT_EVENT])
        assert {event.anonymous_id for event in events} == {visitor}
        assert all(consent_of(event) == {"marketing": False, "analytics": True} for event in events)
        assert await browser.run(f"return localStorage['{PREFIX}anonymousId']") == visitor

    async def test_a_refusal_is_all_that_is_sent_and_takes_the_ids_away(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        visitor = await browser.run("dangol.identify('c-1'); return dangol.anonymousId()")
        await arrived(gateway, 1)
        await browser.run(
            "dangol.track('Never Sent'); dangol.consent({analytics: false, personalization: false});"
            "dangol.track('Never Sent'); dangol.identify('c-2'); dangol.page()"
        )
        identify, refusal = await arrived(gateway, 2)
        assert identify.type == pb.EVENT_TYPE_IDENTIFY
        assert (refusal.name, refusal.anonymous_id, refusal.user_id) == (CONSENT_EVENT, visitor, "c-1")
        assert consent_of(refusal) == {"analytics": False, "personalization": False}
        await browser.until(f"{STORED}.join() === 'consent'")
        assert await browser.run("return dangol.user()") == {"userId": None, "anonymousId": None}
        await browser.reload()
        await browser.run("dangol.track('Never Sent'); dangol.consent({analytics: false}); await dangol.flush()")
        assert len(await gateway.collected()) == 2
        await browser.run("dangol.consent({analytics: true}); dangol.track('Again')")
        *_, granted, again = await arrived(gateway, 4)
        assert (granted.name, again.name) == (CONSENT_EVENT, "Again")
        assert again.anonymous_id not in ("", visitor)
        assert again.user_id == ""

    async def test_a_visitor_who_refuses_at_once_leaves_nothing_but_the_refusal(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{ASKING}"))
        await browser.run("dangol.page('Home'); dangol.consent({analytics: false})")
        (refusal,) = await arrived(gateway, 1)
        assert refusal.name == CONSENT_EVENT
        await browser.until(f"{STORED}.join() === 'consent'")

    async def test_an_answer_in_one_tab_holds_in_the_other(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        url = pages.add("/", f"{TAG}{ASKING}")
        await browser.open(url)
        await browser.run("dangol.track('First tab')")
        first = await browser.new_tab()
        await browser.open(url)
        visitor = await browser.run("dangol.consent({analytics: true}); return dangol.anonymousId()")
        events = await arrived(gateway, 2)
        assert {event.name for event in events} == {"First tab", CONSENT_EVENT}
        assert {event.anonymous_id for event in events} == {visitor}
        await browser.switch(first)
        await browser.run("dangol.consent({analytics: false})")
        await arrived(gateway, 3)
        assert await browser.run("return dangol.anonymousId()") is None

    @pytest.mark.parametrize("signal", ["globalPrivacyControl: true", "doNotTrack: '1'"])
    async def test_the_browser_s_own_signal_is_a_refusal_where_the_site_says_so(
        self, gateway: RunningGateway, browser: Browser, pages: Pages, signal: str
    ) -> None:
        name, value = signal.split(": ")
        handle = await browser.before_pages(f"Object.defineProperty(navigator, '{name}', {{value: {value}}})")
        try:
            tag = TAG.replace("<script", "<script data-write-key=dk_write_local data-respect-signals")
            await browser.open(pages.add("/", tag))
            await browser.run("dangol.page('Never Sent'); await dangol.flush()")
            assert await browser.run("return localStorage.length") == 0
            await browser.run("dangol.consent({analytics: true}); dangol.page('Home')")
            assert [event.name for event in await arrived(gateway, 2)] == [CONSENT_EVENT, "Home"]
        finally:
            await browser.no_longer_before_pages(handle)


class TestRecommendations:
    """The one question that a write key may ask."""

    SHOW = (
        "const items = await dangol.recommendations({limit: 3});"
        "document.body.innerHTML = items.map(item => `<li>${item.title}</li>`).join('');"
        "return document.body.innerText"
    )
    ASKED = (
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => n.includes('recommendations'))"
    )

    async def test_a_page_shows_what_is_recommended_to_its_visitor(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        assert (await browser.run(self.SHOW)).split("\n") == ["제주 감귤 5kg"] * 3
        visitor = await browser.run("return dangol.anonymousId()")
        (asked,) = await browser.run(self.ASKED)
        assert f"anonymous_id%3A{visitor}" in asked

    async def test_who_refused_personalisation_is_asked_for_as_somebody_unknown(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        await browser.open(pages.add("/", f"{TAG}{INIT}"))
        visitor = await browser.run("dangol.consent({personalization: false}); return dangol.anonymousId()")
        await browser.run(self.SHOW)
        (asked,) = await browser.run(self.ASKED)
        assert visitor not in asked

    async def test_a_failure_is_the_caller_s_to_handle(
        self, gateway: RunningGateway, browser: Browser, pages: Pages
    ) -> None:
        init = INIT.replace("dk_write_local", "unknown")
        await browser.open(pages.add("/", f"{TAG}{init}"))
        said = await browser.run("return dangol.recommendations().catch(error => error.message)")
        assert said == "dangol: no recommendations (401)"
