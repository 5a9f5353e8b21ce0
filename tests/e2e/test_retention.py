# SPDX-License-Identifier: Apache-2.0
"""Rules of retention, obeyed by the whole platform and seen over HTTP."""

import asyncio
from typing import Any

import httpx

from bench.platform.running import WRITE_KEY, Platform
from tests.e2e.patience import everything_handled, found

EVENT = "Kept For A Day"


def get(api: httpx.Client, path: str, **query: Any) -> dict[str, Any]:
    """Return an answer."""
    response = api.get(path, params=query)
    response.raise_for_status()
    return dict(response.json())


def say(platform: Platform) -> None:
    """Let a customer do something months ago."""
    body = {"event": EVENT, "userId": "retention-kim", "timestamp": "2026-01-02T03:04:05Z"}
    headers = {"X-API-Key": WRITE_KEY}
    httpx.post(f"{platform.url}/v1/track", json=body, headers=headers, timeout=30, trust_env=False).raise_for_status()


def create(api: httpx.Client, rule: dict[str, Any]) -> str:
    """Add a rule; returns its id."""
    created = api.post("/v1/retention-rules", json=rule)
    created.raise_for_status()
    return str(created.json()["ruleId"])


def delete(api: httpx.Client, rule_id: str) -> None:
    """Remove a rule."""
    api.delete(f"/v1/retention-rules/{rule_id}").raise_for_status()


async def test_a_rule_is_previewed_then_enforced_by_every_service(platform: Platform, api: httpx.Client) -> None:
    """The preview says what each service would let go of; the runs say what it did."""
    say(platform)
    await everything_handled(platform, 60)
    preview = get(api, "/v1/retention-rules:preview", event=EVENT, days=1)
    due = {(each["service"], each["table"]): int(each.get("dueCount", 0)) for each in preview["previews"]}
    assert due == {
        ("profile", "events"): 1,
        ("segmentation", "event_days"): 1,
        ("recommend", "interactions"): 0,
        ("feedback", "feedback"): 0,
        ("metrics", "events"): 1,
    }
    rule = {"event": EVENT, "days": 1, "action": "RETENTION_ACTION_DESTROY"}
    rule_id = create(api, rule)
    async with asyncio.timeout(60):
        while (await touched(api, rule_id)) != {"profile": 1, "segmentation": 1, "metrics": 1}:
            await asyncio.sleep(0.2)
    # Nobody is known by this reference to svc-metrics any more.
    assert found(api, "/v1/profiles/user_id:retention-kim/events") is None
    assert get(api, "/v1/profiles/user_id:retention-kim")["eventCounts"] == {EVENT: 1}
    delete(api, rule_id)


async def touched(api: httpx.Client, rule_id: str) -> dict[str, int]:
    """Return how many rows each service has let go of."""
    runs = get(api, "/v1/retention-runs").get("runs", [])
    counts = {run["service"]: int(run.get("totalCount", 0)) for run in runs if run["ruleId"] == rule_id}
    return {service: count for service, count in counts.items() if count}


async def test_what_is_on_hold_and_how_data_are_encrypted_has_a_route(platform: Platform, api: httpx.Client) -> None:
    """Without settings nothing is held, and nothing is encrypted."""
    assert get(api, "/v1/held-records").get("records", []) == []
    assert not get(api, "/v1/encryption-status").get("enabled", False)
