# SPDX-License-Identifier: Apache-2.0
"""A customer's no, obeyed by the whole platform."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bench.platform.running import WRITE_KEY, Platform
from tests.e2e.patience import everything_handled, found

ITEMS = [
    {"itemId": f"consent-{n}", "title": f"보성 녹차 {n}호", "categories": ["tea"], "price": 5900, "currency": "KRW"}
    for n in range(4)
]


def say(platform: Platform, name: str, **event: Any) -> None:
    """Send one event as a browser would."""
    body = {"event": name, "properties": {"product_id": "consent-0"}, **event}
    headers = {"X-API-Key": WRITE_KEY}
    response = httpx.post(f"{platform.url}/v1/track", json=body, headers=headers, timeout=30, trust_env=False)
    response.raise_for_status()


def record(api: httpx.Client, profile: str, purpose: str, answer: str) -> None:
    decisions = [{"purposeId": purpose, "answer": f"CONSENT_ANSWER_{answer}"}]
    api.post(f"/v1/profiles/{profile}/consents", json={"decisions": decisions}).raise_for_status()


def get(api: httpx.Client, path: str) -> dict[str, Any]:
    """Return an answer."""
    response = api.get(path)
    response.raise_for_status()
    return dict(response.json())


def names(api: httpx.Client, profile: str) -> list[str]:
    """Return the names of the events that svc-metrics knows of a customer; none of somebody it never heard of."""
    answer: Any = found(api, f"/v1/profiles/{profile}/events") or {}
    return sorted(event["name"] for event in answer.get("events", []))


@pytest.fixture(scope="module")
def shop(api: httpx.Client) -> httpx.Client:
    """A catalogue."""
    api.post("/v1/items:batchUpsert", json={"items": ITEMS}).raise_for_status()
    return api


@pytest.fixture(scope="module")
def visitor(platform: Platform) -> Iterator[httpx.Client]:
    """The public HTTP API, with the key of a browser."""
    headers = {"X-API-Key": WRITE_KEY}
    with httpx.Client(base_url=platform.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


async def test_events_of_who_refuses_analytics_reach_no_service(platform: Platform, shop: httpx.Client) -> None:
    """Not even those of a device that logs in later; what came before stays, and a new grant lets events in again."""
    user = "user_id:consent-ana"
    say(platform, "Product Viewed", userId="consent-ana")
    await everything_handled(platform, 60)
    record(shop, user, "analytics", "WITHDRAWN")
    say(platform, "Product Added", userId="consent-ana")
    say(platform, "Product Added", userId="consent-ana", anonymousId="consent-ana-phone")
    await everything_handled(platform, 60)
    say(platform, "Product Shared", anonymousId="consent-ana-phone")
    await everything_handled(platform, 60)
    assert names(shop, user) == ["Product Viewed"]
    assert get(shop, f"/v1/profiles/{user}")["eventCounts"] == {"Product Viewed": 1}
    record(shop, user, "analytics", "GRANTED")
    say(platform, "Order Completed", anonymousId="consent-ana-phone")
    await everything_handled(platform, 60)
    assert names(shop, user) == ["Order Completed", "Product Viewed"]


async def test_an_event_that_refuses_is_dropped_and_remembered(platform: Platform, shop: httpx.Client) -> None:
    """A visitor says no in the banner: the ledger knows, and nobody else hears anything."""
    refusal = {"consent": {"categoryPreferences": {"analytics": False}}}
    say(platform, "Product Viewed", anonymousId="consent-bo", context=refusal)
    await everything_handled(platform, 60)
    say(platform, "Product Viewed", anonymousId="consent-bo")
    await everything_handled(platform, 60)
    assert names(shop, "anonymous_id:consent-bo") == []
    (record,) = get(shop, "/v1/profiles/anonymous_id:consent-bo/consent-records")["records"]
    assert (record["purposeId"], record["answer"]) == ("analytics", "CONSENT_ANSWER_DENIED")


async def test_who_refuses_personalization_gets_what_is_popular(
    platform: Platform, shop: httpx.Client, visitor: httpx.Client
) -> None:
    """With her secret key and in the browser alike, and the access log says so."""
    for user in ("consent-1", "consent-2", "consent-3"):
        for item in ("consent-0", "consent-1", "consent-2"):
            say(platform, "Product Viewed", userId=user, properties={"product_id": item})
    say(platform, "Product Viewed", anonymousId="consent-chris", properties={"product_id": "consent-0"})
    await everything_handled(platform, 60)
    path = "/v1/profiles/anonymous_id:consent-chris/recommendations"
    assert get(shop, path)["personalized"]
    record(shop, "anonymous_id:consent-chris", "personalization", "DENIED")
    await everything_handled(platform, 60)
    for answer in (get(shop, path), get(visitor, path)):
        assert not answer.get("personalized", False)
        assert {each["reason"]["type"] for each in answer["recommendations"]} == {"REASON_TYPE_POPULAR"}
    log = get(shop, "/v1/accesses?profile=anonymous_id:consent-chris")["accesses"]
    outcomes = [each["outcome"] for each in log if each["service"] == "recommend"]
    assert outcomes == ["ACCESS_OUTCOME_IMPERSONAL"] * 2 + ["ACCESS_OUTCOME_GRANTED"]
    assert {each["caller"] for each in log} == {"key:local-secret", "key:local-write"}
