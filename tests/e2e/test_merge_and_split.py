# SPDX-License-Identifier: Apache-2.0
"""Merge and split are each other's exact inverse, in every service."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from bench.platform.running import Platform
from tests.e2e.patience import eventually, everything_handled

ITEMS = [{"itemId": f"merge-{n}", "title": f"귤 {n}", "categories": ["food"], "price": 9900 + n} for n in range(12)]
EMAIL = "marketing_email"
EAGER, COHORT = "merge-eager", "merge-cohort"
ONCE, TWICE = "merge-once", "merge-twice"
KIM, LEE = "user_id:merge-kim", "user_id:merge-lee"
HANDLED_SECONDS = 60

Answers = dict[str, Any]


@pytest.fixture(scope="module")
async def shop(platform: Platform, api: httpx.Client) -> httpx.Client:
    """Two people who are known to every service, two segments, and others who make recommendations possible."""
    _opens(api)
    await everything_handled(platform, HANDLED_SECONDS)
    return api


def _opens(api: httpx.Client) -> None:
    api.post("/v1/items:batchUpsert", json={"items": ITEMS}).raise_for_status()
    api.post("/v1/segments", json={"name": EAGER, "rule": "count('Product Viewed', days(30)) >= 5"}).raise_for_status()
    api.post("/v1/segments", json={"name": COHORT, "rule": "traits.cohort == 'merge'"}).raise_for_status()
    for number in range(8):
        _lives(api, f"merge-other-{number}", range(number, number + 4), {})
    _lives(api, "merge-kim", range(3), {"cohort": "merge", "city": "Seoul"})
    _lives(api, "merge-lee", range(3, 6), {"cohort": "merge", "plan": "gold"})
    for user, text in (("merge-kim", "정말 달아요. 최고예요!"), ("merge-lee", "Terrible, it broke.")):
        body = {"profile": f"user_id:{user}", "kind": "FEEDBACK_KIND_COMMENT", "text": text}
        api.post("/v1/feedback", json=body).raise_for_status()
    for user, answer in (("merge-kim", "GRANTED"), ("merge-lee", "DENIED")):
        consent: dict[str, object] = {
            "decisions": [{"purposeId": EMAIL, "answer": f"CONSENT_ANSWER_{answer}"}],
            "channel": "web",
        }
        api.post(f"/v1/profiles/user_id:{user}/consents", json=consent).raise_for_status()


def _lives(api: httpx.Client, user: str, items: range, traits: dict[str, str]) -> None:
    events: list[dict[str, Any]] = [
        {"type": "page", "anonymousId": f"{user}-device", "name": "Home"},
        {"type": "identify", "userId": user, "anonymousId": f"{user}-device", "traits": traits},
    ]
    for item in items:
        properties = {"product_id": f"merge-{item % len(ITEMS)}"}
        events.append({"type": "track", "userId": user, "event": "Product Viewed", "properties": properties})
    order = {"order_id": f"{user}-1", "revenue": 1000, "currency": "KRW", "products": []}
    events.append({"type": "track", "userId": user, "event": "Order Completed", "properties": order})
    api.post("/v1/batch", json={"batch": events}).raise_for_status()


def answers(api: httpx.Client, reference: str) -> Answers:
    """What every service says about a customer."""
    at = f"/v1/profiles/{reference}"
    profile = api.get(at).raise_for_status().json()
    memberships = api.get(f"{at}/segments").raise_for_status().json().get("segments", [])
    recommended = api.get(f"{at}/recommendations?pageSize=5").raise_for_status().json()
    feedback = api.get(f"/v1/feedback?profile={reference}").raise_for_status().json().get("feedback", [])
    events = api.get(f"{at}/events?pageSize=100").raise_for_status().json().get("events", [])
    consents = api.get(f"{at}/consents").raise_for_status().json()["consents"]
    return {
        "profile": profile,
        "segments": sorted(membership["name"] for membership in memberships),
        "recommended": sorted(each["itemId"] for each in recommended.get("recommendations", [])),
        "personalized": recommended.get("personalized", False),
        "feedback": sorted(each["text"] for each in feedback),
        "events": sorted(each["messageId"] for each in events),
        "consents": {each["purposeId"]: each.get("granted", False) for each in consents},
    }


def cohort(api: httpx.Client) -> dict[str, Any]:
    """What svc-metrics counts for the two: customers, orders, revenue."""
    today = datetime.now(UTC).date().isoformat()
    query = {"startDate": today, "endDate": today, "timeZone": "UTC", "segment": COHORT}
    total = api.post("/v1/kpis:query", json=query).raise_for_status().json()["total"]
    return {name: total.get(name) for name in ("activeCustomers", "orders", "revenue")}


def names(profile: dict[str, Any]) -> list[str]:
    return [f"{each['namespace']}:{each['value']}" for each in profile["identifiers"]]


def _answer(api: httpx.Client, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(f"/v1/profiles/{KIM}:{verb}", json={**body, "reason": "tried out"})
    return dict(answer.raise_for_status().json())


def _decide(api: httpx.Client, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = _answer(api, verb, body)
    assert answer["unavailableServices"] == []
    return dict(answer["change"])


async def test_a_split_takes_a_merge_back_in_every_service(platform: Platform, shop: httpx.Client) -> None:
    """Profile, segments, recommendations, feedback, events, figures, consents: as one, then exactly as before."""
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: cohort(shop)["activeCustomers"] == 2, "metrics counts two customers")
    before = {each: answers(shop, each) for each in (KIM, LEE)}
    assert [before[each]["segments"] for each in (KIM, LEE)] == [[COHORT], [COHORT]]
    _decide(shop, "merge", {"absorb": [LEE]})
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: answers(shop, KIM)["segments"] == [COHORT, EAGER], "the whole is in both segments")
    whole = answers(shop, KIM)
    assert whole == answers(shop, LEE) == answers(shop, before[LEE]["profile"]["profileId"])
    assert whole["profile"]["eventCounts"] == {"page": 2, "identify": 2, "Product Viewed": 6, "Order Completed": 2}
    assert whole["profile"]["traits"] == {"cohort": "merge", "city": "Seoul", "plan": "gold"}
    for part in ("feedback", "events"):
        assert whole[part] == sorted(before[KIM][part] + before[LEE][part])
    assert whole["personalized"]
    assert [before[each]["consents"][EMAIL] for each in (KIM, LEE)] == [True, False]
    assert not whole["consents"][EMAIL]
    assert not set(whole["recommended"]) & {f"merge-{item}" for item in range(6)}
    eventually(lambda: cohort(shop)["activeCustomers"] == 1, "metrics counts one customer")
    assert cohort(shop) == {"activeCustomers": 1, "orders": 2, "revenue": 2000}
    _decide(shop, "split", {"identifiers": names(before[LEE]["profile"])})
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: {each: answers(shop, each) for each in (KIM, LEE)} == before, "both are who they were")
    eventually(lambda: cohort(shop)["activeCustomers"] == 2, "metrics counts two customers again")


async def test_a_merge_takes_a_split_back_in_every_service(platform: Platform, shop: httpx.Client) -> None:
    """The device leaves with the visit that it saw; both sides answer for themselves, then as before."""
    await everything_handled(platform, HANDLED_SECONDS)
    before, device = answers(shop, KIM), "anonymous_id:merge-kim-device"
    _decide(shop, "split", {"identifiers": [device]})
    await everything_handled(platform, HANDLED_SECONDS)
    left, stayed = answers(shop, device), answers(shop, KIM)
    assert (left["profile"]["eventCounts"], left["segments"], left["feedback"]) == ({"page": 1}, [], [])
    assert sorted(left["events"] + stayed["events"]) == before["events"]
    assert (stayed["segments"], stayed["feedback"]) == ([COHORT], before["feedback"])
    _decide(shop, "merge", {"absorb": [device]})
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: answers(shop, KIM) == before == answers(shop, device), "the customer is whole again")


async def test_a_dry_run_over_http_names_traits_segments_and_consents(shop: httpx.Client) -> None:
    """And leaves everything as it is."""
    before = answers(shop, KIM)
    would = _decide(shop, "merge", {"absorb": [LEE], "dryRun": True})
    assert (would["beforeCount"], would["afterCount"]) == (2, 1)
    assert would["after"][0]["traits"] == {"cohort": "merge", "city": "Seoul", "plan": "gold"}
    assert COHORT in [segment["name"] for segment in would["after"][0]["segments"]]
    assert [c["granted"] for c in would["after"][0]["consents"] if c["purposeId"] == "analytics"] == [True]
    assert answers(shop, KIM) == before


async def test_a_dry_run_tells_the_segments_that_each_customer_would_be_in(
    platform: Platform, shop: httpx.Client
) -> None:
    """True of the whole only, true of a part only: as it comes about, and nothing has changed before that."""
    _counts_orders(shop)
    await everything_handled(platform, HANDLED_SECONDS)
    before = {each: answers(shop, each) for each in (KIM, LEE)}
    assert [before[each]["segments"] for each in (KIM, LEE)] == [[COHORT, ONCE]] * 2
    would = _decide(shop, "merge", {"absorb": [LEE], "dryRun": True})
    assert [_entering(each) for each in would["before"]] == [{COHORT: False, ONCE: False}] * 2
    assert [_entering(each) for each in would["after"]] == [{COHORT: False, EAGER: True, TWICE: True}]
    await everything_handled(platform, HANDLED_SECONDS)
    assert {each: answers(shop, each) for each in (KIM, LEE)} == before
    _decide(shop, "merge", {"absorb": [LEE]})
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: answers(shop, KIM)["segments"] == [COHORT, EAGER, TWICE], "the whole is as it was told")
    whole, leaves = answers(shop, KIM), {"identifiers": names(before[LEE]["profile"])}
    would = _decide(shop, "split", {**leaves, "dryRun": True})
    assert [set(_entering(each)) for each in would["after"]] == [{COHORT, ONCE}] * 2
    await everything_handled(platform, HANDLED_SECONDS)
    assert answers(shop, KIM) == whole == answers(shop, LEE)
    _decide(shop, "split", leaves)
    await everything_handled(platform, HANDLED_SECONDS)
    eventually(lambda: {each: answers(shop, each) for each in (KIM, LEE)} == before, "both are as it was told")


async def test_a_dry_run_answers_without_svc_segmentation_and_says_so(platform: Platform, shop: httpx.Client) -> None:
    """With the segments of both parts, and neither more nor less."""
    await asyncio.to_thread(platform.supervisor.halt, "segmentation")
    try:
        would = _answer(shop, "merge", {"absorb": [LEE], "dryRun": True})
    finally:
        await asyncio.to_thread(platform.supervisor.resume, "segmentation")
        await asyncio.to_thread(
            eventually, lambda: shop.get("/v1/segments").status_code == httpx.codes.OK, "segmentation is back"
        )
    assert would["unavailableServices"] == ["segmentation"]
    parts = set().union(*map(_entering, would["change"]["before"]))
    [whole] = would["change"]["after"]
    assert set(_entering(whole)) == parts >= {COHORT}
    assert EAGER not in parts


async def test_a_dry_run_of_a_resolved_conflict_tells_the_segments_that_come(
    platform: Platform, shop: httpx.Client
) -> None:
    """An alias says that two known people are one: decided that they are, what was told comes."""
    _claims_to_be_one(shop)
    await everything_handled(platform, HANDLED_SECONDS)
    assert not {EAGER} & {*answers(shop, KIM)["segments"], *answers(shop, LEE)["segments"]}
    apart = _resolve(shop, "KEEP_APART", dry_run=True)
    assert [EAGER in _entering(each) for each in apart["after"]] == [False, False]
    merged = _resolve(shop, "MERGE", dry_run=True)
    assert (merged["beforeCount"], merged["afterCount"]) == (2, 1)
    assert _entering(merged["after"][0]).items() >= {COHORT: False, EAGER: True}.items()
    await everything_handled(platform, HANDLED_SECONDS)
    assert EAGER not in answers(shop, KIM)["segments"]
    _resolve(shop, "MERGE", dry_run=False)
    await everything_handled(platform, HANDLED_SECONDS)
    told = sorted(_entering(merged["after"][0]))
    eventually(lambda: answers(shop, KIM)["segments"] == told == answers(shop, LEE)["segments"], "one, as it was told")


def _claims_to_be_one(api: httpx.Client) -> None:
    alias = {"type": "alias", "userId": "merge-kim", "previousId": "merge-lee"}
    api.post("/v1/batch", json={"batch": [alias]}).raise_for_status()


def _resolve(api: httpx.Client, resolution: str, *, dry_run: bool) -> dict[str, Any]:
    [conflict] = api.get(f"/v1/identity-conflicts?profile={LEE}").raise_for_status().json()["conflicts"]
    body = {"resolution": f"CONFLICT_RESOLUTION_{resolution}", "reason": "tried out", "dryRun": dry_run}
    answer = api.post(f"/v1/identity-conflicts/{conflict['conflictId']}:resolve", json=body).raise_for_status().json()
    assert answer["unavailableServices"] == []
    return dict(answer["change"])


def _counts_orders(api: httpx.Client) -> None:
    for name, count in ((ONCE, 1), (TWICE, 2)):
        rule = f"count('Order Completed') == {count}"
        api.post("/v1/segments", json={"name": name, "rule": rule}).raise_for_status()


def _entering(profile: dict[str, Any]) -> dict[str, bool]:
    """The segments of a customer, and whether each is one that the customer would enter."""
    return {segment["name"]: "enteredTime" not in segment for segment in profile["segments"]}
