# SPDX-License-Identifier: Apache-2.0
"""From an event in a shop to a personalised answer, with the clients that people really use."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from segment.analytics.client import Client

from bench.platform.running import WRITE_KEY, Platform
from tests.e2e.patience import eventually, found

ROOT = Path(__file__).parents[2]
ITEMS = [
    {"itemId": f"thin-{n}", "title": f"제주 감귤 {n}kg", "categories": ["food"], "price": 9900 + n, "currency": "KRW"}
    for n in range(6)
]
# The platform is shared: customers of other tests live in Seoul too, and some of them ordered twice.
SEGMENT = {
    "name": "thin-loyal",
    "rule": "traits.city == 'Seoul' && traits.shop == 'thin' && count('Order Completed', days(30)) >= 2",
}


@pytest.fixture(scope="module")
def shop(platform: Platform, api: httpx.Client) -> httpx.Client:
    """A catalogue, a segment, and six customers who looked at things, through the unmodified Segment client."""
    api.post("/v1/items:batchUpsert", json={"items": ITEMS}).raise_for_status()
    api.post("/v1/segments", json=SEGMENT).raise_for_status()
    client = Client(WRITE_KEY, host=platform.url, on_error=lambda error, _: pytest.fail(str(error)))
    for number in range(6):
        user = f"thin-customer-{number}"
        client.page(anonymous_id=f"thin-device-{number}", name="Home")
        traits = {"city": "Seoul", "shop": "thin", "email": f"{user}@example.com"}
        client.identify(user, traits, anonymous_id=f"thin-device-{number}")
        for item in (number % 6, (number + 1) % 6, (number + 2) % 6):
            client.track(user, "Product Viewed", {"product_id": f"thin-{item}"})
    for order in ("first", "second"):
        properties = {"order_id": order, "revenue": 29000, "currency": "KRW", "products": [{"product_id": "thin-0"}]}
        client.track("thin-customer-0", "Order Completed", properties)
    client.shutdown()
    return api


def test_a_visitor_who_logs_in_is_one_person(shop: httpx.Client) -> None:
    """What the device did before the login belongs to the customer."""

    def is_whole() -> bool:
        profile = found(shop, "/v1/profiles/anonymous_id:thin-device-0") or {}
        return profile.get("eventCounts") == {"page": 1, "identify": 1, "Product Viewed": 3, "Order Completed": 2}

    eventually(is_whole, "the profile shows seven events")
    profile = shop.get("/v1/profiles/email:THIN-customer-0@example.com").json()
    assert profile["revenue"] == {"KRW": 58000}
    assert profile["traits"]["city"] == "Seoul"
    assert {i["namespace"] for i in profile["identifiers"]} == {"user_id", "anonymous_id", "email"}
    assert profile["firstSeenTime"] <= profile["lastSeenTime"]


def test_two_orders_bring_the_customer_into_the_segment(shop: httpx.Client) -> None:
    """And nobody else."""

    def members() -> list[str]:
        return [m["profileId"] for m in shop.get("/v1/segments/thin-loyal/members").json().get("members", [])]

    eventually(lambda: len(members()) == 1, "the segment has one member")
    profile = shop.get("/v1/profiles/user_id:thin-customer-0").json()
    assert members() == [profile["profileId"]]
    mine = shop.get("/v1/profiles/user_id:thin-customer-0/segments").json()["segments"]
    assert "thin-loyal" in [segment["name"] for segment in mine]


def test_a_recommendation_follows_from_what_was_viewed(shop: httpx.Client) -> None:
    """Items that others viewed too, with a reason, and none that the customer knows."""

    def answer() -> dict[str, object]:
        return dict(shop.get("/v1/profiles/user_id:thin-customer-0/recommendations?pageSize=3").json())

    eventually(lambda: bool(answer().get("personalized")), "the recommendation is the customer's own")
    recommended = answer()["recommendations"]
    assert isinstance(recommended, list)
    assert {item["itemId"] for item in recommended}.isdisjoint({"thin-0", "thin-1", "thin-2"})
    assert all(item["reason"]["text"] and item["reason"]["textKo"] for item in recommended)


def test_feedback_in_korean_and_english_is_understood(shop: httpx.Client) -> None:
    """The language and a calibrated sentiment."""
    texts = {
        "배송이 빠르고 감귤이 정말 달아요. 최고예요!": ("ko", "POSITIVE"),
        "Terrible, it broke.": ("en", "NEGATIVE"),
    }
    for text, (language, label) in texts.items():
        body = {"profile": "user_id:thin-customer-0", "kind": "FEEDBACK_KIND_COMMENT", "text": text}
        kept = shop.post("/v1/feedback", json=body).raise_for_status().json()
        assert kept["language"] == language
        assert kept["sentiment"]["label"] == f"SENTIMENT_LABEL_{label}"
        assert 0.5 < kept["sentiment"]["probability"] <= 1
    listed = shop.get("/v1/feedback?profile=user_id:thin-customer-0").json()["feedback"]
    assert {piece["text"] for piece in listed} == set(texts)


def test_today_s_figures_count_the_orders(shop: httpx.Client) -> None:
    """Orders and revenue of the segment's one member."""
    today = datetime.now(UTC).date().isoformat()
    query = {"startDate": today, "endDate": today, "timeZone": "UTC", "segment": "thin-loyal"}

    def total() -> dict[str, object]:
        return dict(shop.post("/v1/kpis:query", json=query).raise_for_status().json()["total"])

    eventually(lambda: total().get("orders") == 2, "metrics counts two orders")
    assert total()["revenue"] == 58000
    assert total()["activeCustomers"] == 1


def test_the_demo_prints_answers_and_can_run_twice(platform: Platform, api: httpx.Client) -> None:
    """A second run adds nothing."""
    arguments = ["--url", platform.url, "--customers", "150", "--days", "6", "--seed", "9"]
    outputs = [_run_demo(arguments) for _ in range(2)]
    assert "Who is it?" in outputs[0]
    assert "Where do customers drop out?" in outputs[0]
    told = [[line.strip() for line in output.splitlines()] for output in outputs]
    # How fast they were sent is another number each time.
    counts = [[line for line in lines if line.startswith("events ") and "events sent" not in line] for lines in told]
    assert counts[0]
    assert counts[0] == counts[1]


def _run_demo(arguments: list[str]) -> str:
    command = [sys.executable, "-m", "demo", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
