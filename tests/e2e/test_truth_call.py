# SPDX-License-Identifier: Apache-2.0
"""What became of an event: one call, and every service answers for its part."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from bench.platform.running import WRITE_KEY, Platform
from tests.e2e.patience import eventually

SEGMENT = {"name": "truth-buyers", "rule": "count('Order Completed', days(30)) >= 1"}


@pytest.fixture(scope="module")
def shop(platform: Platform, api: httpx.Client) -> httpx.Client:
    """A segment, and a customer who visits, logs in, buys and says what it was like."""
    api.post("/v1/segments", json=SEGMENT).raise_for_status()
    user, device = {"userId": "truth-1"}, {"anonymousId": "truth-device"}
    send(
        platform,
        {"type": "page", "messageId": "truth-page", **device},
        {"type": "identify", "messageId": "truth-identify", **user, **device, "traits": {"city": "Seoul"}},
        {
            "type": "track",
            "event": "Order Completed",
            "messageId": "주문/1 & more",
            **user,
            "properties": {"order_id": "o1", "revenue": 29000, "currency": "KRW", "products": [{"sku": "truth-item"}]},
        },
        {
            "type": "track",
            "event": "Product Reviewed",
            "messageId": "truth-review",
            **user,
            "properties": {"product_id": "truth-item", "review_body": "정말 맛있어요. 또 살게요!", "rating": 5},
        },
        {"type": "track", "messageId": "truth-nameless", **user},
    )
    return api


def send(platform: Platform, *events: dict[str, Any]) -> None:
    body = {"batch": list(events), "sentAt": datetime.now(UTC).isoformat()}
    httpx.post(f"{platform.url}/v1/batch", json=body, auth=(WRITE_KEY, "")).raise_for_status()


def trace(api: httpx.Client, message_id: str, **query: str) -> dict[str, Any]:
    answer = api.get(f"/v1/events/{quote(message_id, safe='')}:trace", params=query)
    return dict(answer.json()) if answer.status_code == httpx.codes.OK else {"steps": [], "events": []}


def outcomes(traced: dict[str, Any]) -> set[tuple[str, str]]:
    return {(step["service"], step["outcome"]) for step in traced["steps"]}


def facts(traced: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    return (step[name] for step in traced["steps"] if name in step)


def test_an_order_is_followed_through_every_service(shop: httpx.Client) -> None:
    """Taken, in the segment, part of the recommendations, counted with its amount."""
    wanted = {("profile", "ACCEPTED"), ("segmentation", "ENTERED"), ("recommend", "FED"), ("metrics", "COUNTED")}
    eventually(lambda: wanted <= outcomes(trace(shop, "주문/1 & more")), "every service knows the order")
    traced = trace(shop, "주문/1 & more", source="local-write")
    assert traced["unavailableServices"] == []
    (event,) = traced["events"]
    assert (event["name"], event["source"], event["properties"]["order_id"]) == ("Order Completed", "local-write", "o1")
    assert event["profileId"] == shop.get("/v1/profiles/user_id:truth-1").json()["profileId"]
    # Segments that other tests made on the same platform may have taken the customer in too.
    assert "truth-buyers" in [segment["name"] for segment in facts(traced, "segment")]
    assert [each["itemId"] for each in facts(traced, "interaction")] == ["truth-item"]
    assert list(facts(traced, "row")) == [{"countedName": "Order Completed", "revenue": 29000, "currency": "KRW"}]


def test_a_review_is_followed_to_what_was_understood_of_it(shop: httpx.Client) -> None:
    eventually(lambda: ("feedback", "ANALYSED") in outcomes(trace(shop, "truth-review")), "the review is analysed")
    (feedback,) = facts(trace(shop, "truth-review"), "feedback")
    assert (feedback["language"], feedback["sentiment"]) == ("ko", "POSITIVE")


def test_a_login_is_followed_to_the_link_and_the_traits(shop: httpx.Client) -> None:
    eventually(lambda: ("profile", "LINKED") in outcomes(trace(shop, "truth-identify")), "the login links")
    traced = trace(shop, "truth-identify")
    (link,) = facts(traced, "link")
    assert {link["namespace"], link["linkedNamespace"]} == {"user_id", "anonymous_id"}
    assert {"name": "city", "newValue": "Seoul"} in list(facts(traced, "trait"))


def test_a_rejected_event_leads_from_the_log_to_its_trace(shop: httpx.Client) -> None:
    """The log gives the path of the call."""

    def rejected() -> list[dict[str, Any]]:
        return list(shop.get("/v1/rejected-events?messageId=truth-nameless").json()["rejectedEvents"])

    eventually(lambda: bool(rejected()), "the event without a name is in the log")
    (event,) = rejected()
    traced = shop.get(event["trace"]).raise_for_status().json()
    (step,) = traced["steps"]
    assert (step["outcome"], step["rejection"]["reason"]) == ("REJECTED", event["reason"])
    assert step["detail"] == event["detail"]


def test_an_event_that_breaks_a_schema_goes_nowhere(platform: Platform, shop: httpx.Client) -> None:
    """No service hears of it, and both the log and the trace say why."""
    schema = {"type": "object", "required": ["plan"], "properties": {"plan": {"enum": ["free", "pro"]}}}
    wanted = {"name": "Truth Plan Chosen", "schema": schema, "enforcement": "SCHEMA_ENFORCEMENT_REJECT"}
    shop.post("/v1/event-schemas", json=wanted).raise_for_status()
    bad = {
        "type": "track",
        "event": "Truth Plan Chosen",
        "messageId": "truth-bad-plan",
        "userId": "truth-2",
        "properties": {"plan": "비밀"},
    }

    def is_rejected() -> bool:
        return ("profile", "REJECTED") in outcomes(trace(shop, str(bad["messageId"])))

    # Consumers are other processes, and hear of a schema within a second.
    eventually(lambda: _knows(platform, shop, bad), "the schema is enforced")
    send(platform, bad)
    eventually(is_rejected, "the event is rejected")
    traced = trace(shop, "truth-bad-plan")
    assert outcomes(traced) == {("profile", "REJECTED"), ("profile", "KEY_ONLY")}
    assert "#/plan" in traced["steps"][0]["detail"]
    assert "비밀" not in str(traced)
    assert shop.get("/v1/profiles/user_id:truth-2").status_code == httpx.codes.NOT_FOUND


def _knows(platform: Platform, shop: httpx.Client, bad: dict[str, Any]) -> bool:
    """Send an event of another id until the schema rejects it."""
    probe = f"truth-probe-{datetime.now(UTC).timestamp()}"
    send(platform, {**bad, "messageId": probe, "userId": "truth-probe"})
    eventually(lambda: bool(trace(shop, probe)["steps"]), "the probe is judged")
    return ("profile", "REJECTED") in outcomes(trace(shop, probe))


def test_what_nobody_sent_is_not_found(shop: httpx.Client) -> None:
    assert shop.get("/v1/events/never-sent:trace").status_code == httpx.codes.NOT_FOUND


def test_the_tracking_plan_shows_what_was_sent(shop: httpx.Client) -> None:
    """Names with their volume, and properties with their types."""

    def event() -> dict[str, Any]:
        answer = shop.get("/v1/tracked-events/Product%20Reviewed")
        return dict(answer.json()) if answer.status_code == httpx.codes.OK else {"properties": []}

    def properties() -> set[str]:
        return {each["path"] for each in event()["properties"]}

    eventually(lambda: {"rating", "review_body"} <= properties(), "the plan knows the review")
    assert int(event()["eventCount"]) >= 1
    assert "local-write" in [source["source"] for source in event()["sources"]]
    names = [each["name"] for each in shop.get("/v1/tracked-events?pageSize=1000").json()["trackedEvents"]]
    assert names == sorted(names)
    assert {"page", "identify", "Order Completed"} <= set(names)
