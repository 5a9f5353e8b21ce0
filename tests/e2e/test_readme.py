# SPDX-License-Identifier: Apache-2.0
"""The calls of the README and of the guides work as they stand there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.platform.running import Platform
from tests.e2e.patience import everything_handled

README = Path(__file__).parents[2] / "README.md"
GUIDES = Path(__file__).parents[2] / "docs" / "guides"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
HANDLED_SECONDS = 60
EXPORTED = Path("/tmp/dangol-export.csv")
# The same command, but an error of the platform is an error of the command, and answers are told apart.
CURL = """
curl() { command curl --silent --show-error --fail-with-body --max-time 30 "$@" && echo; }
set -e
"""


def blocks(page: Path, after: str = "", until: str = "") -> list[str]:
    """The blocks of shell that use curl, in their order; those of a part of the page, if need be."""
    text = page.read_text(encoding="utf-8").partition(after)[2] if after else page.read_text(encoding="utf-8")
    found: list[str] = BLOCK.findall(text.partition(until)[0] if until else text)
    return [block for block in found if block.startswith("curl")]


async def test_the_tour_of_the_readme_works(platform: Platform) -> None:
    """Someone who copies block after block sees what the README promises."""
    answers = await _answers(README, platform)
    ingested, profile, segment, memberships, items, _, recommended, feedback, kpis, funnel, events = answers
    assert (ingested["success"], ingested["accepted"]) == (True, 4)
    assert profile["eventCounts"] == {"page": 1, "Product Viewed": 1, "identify": 1, "Order Completed": 1}
    assert segment["name"] == "seoul-buyers"
    assert "seoul-buyers" in [membership["name"] for membership in memberships["segments"]]
    assert items["createdCount"] + items.get("updatedCount", 0) == 2
    assert "sku-1002" in [item["itemId"] for item in recommended["recommendations"]]
    assert "sku-1001" not in [item["itemId"] for item in recommended["recommendations"]]
    assert (feedback["language"], feedback["sentiment"]["label"]) == ("ko", "SENTIMENT_LABEL_POSITIVE")
    assert kpis["total"]["orders"] >= 1
    assert [step["event"] for step in funnel["steps"]] == ["Product Viewed", "Order Completed"]
    assert len(events["events"]) == 4


async def test_the_guide_to_traits_works(platform: Platform) -> None:
    """Policies, definitions, history, computed traits, groups and households answer as the guide says."""
    answers = await _answers(GUIDES / "traits.md", platform)
    _, channel, _, _, derivation, _, segments, age, profile, history, favourite, *answers = answers
    _, _, computed, acme, members, home, groups, _ = answers
    assert (channel["name"], channel["policy"]) == ("channel", "TRAIT_POLICY_FIRST_NON_EMPTY")
    assert not derivation.get("running", False)
    assert "from-the-fair" in [segment["name"] for segment in segments["segments"]]
    assert age["enforcement"] == "TRAIT_ENFORCEMENT_REJECT"
    traits = profile["traits"]
    assert traits == {"plan": "gold", "tags": ["ink", "tea"], "points": 15, "age": 34, "channel": "fair"}
    assert [(c.get("oldValue"), c["newValue"]) for c in history["changes"]] == [("silver", "gold"), (None, "silver")]
    assert favourite["value"] == "tea"
    assert computed["computedTraits"] == {"big_orders": 1, "spent_by_category": {"tea": 42.5, "ink": 30}}
    assert (acme["kind"], acme["memberCount"], acme["traits"]["name"]) == ("account", "1", "Acme")
    assert members["members"][0]["profileId"] == profile["profileId"]
    assert home["traits"]["name"] == "At home"
    assert [group["group"]["groupId"] for group in groups["groups"]] == ["acme", "home-1"]


async def test_the_guide_to_identity_works(platform: Platform) -> None:
    """Explained, decided about, merged and split; and in the end both are who they were."""
    answers = await _answers(GUIDES / "identity.md", platform)
    collected, why, conflicts, kept, rehearsed, merged, whole, parting, parted, lee, decisions = answers
    assert collected["accepted"] == 4
    assert [(link["rule"], link["confidence"]) for link in why["path"]] == [("same_event", 0.8), ("same_event", 0.9)]
    assert why["path"][0]["belongsTo"]["value"] == "i-kim"
    assert round(why["pathConfidence"], 2) == 0.72
    assert [conflict["identifier"]["value"] for conflict in conflicts["conflicts"]] == ["i-tablet"]
    assert [decision["kind"] for decision in kept["change"]["made"]] == ["IDENTITY_DECISION_KIND_SPLIT"]
    assert (rehearsed["change"]["beforeCount"], rehearsed["change"]["afterCount"]) == (2, 1)
    assert rehearsed["change"]["after"][0]["traits"] == merged["change"]["after"][0]["traits"] == whole["traits"]
    assert (whole["traits"]["city"], whole["traits"]["plan"]) == ("Seoul", "gold")
    assert [each["traits"] for each in parting["change"]["after"]] == [
        each["traits"] for each in parted["change"]["after"]
    ]
    assert {each["value"] for each in lee["identifiers"]} == {"i-lee", "lee@identity.example", "+821077771234"}
    assert ("city" in lee["traits"], lee["traits"]["plan"]) == (False, "gold")
    taken_back = ["revokeTime" in decision for decision in decisions["decisions"]]
    assert (len(taken_back), any(taken_back)) == (2, True)


async def test_the_guide_to_collecting_events_works(platform: Platform) -> None:
    """What was sent is found again: in the log, beside its schema, in the tracking plan, and by its id."""
    answers = await _answers(GUIDES / "collecting-events.md", platform)
    sent, log, _, schema, tried, rejecting, versions, plan, event, login, order, nameless, _ = answers
    assert (sent["accepted"], [error["messageId"] for error in sent["errors"]]) == (3, ["guide-nameless-1"])
    assert [each["messageId"] for each in log["rejectedEvents"]] == ["guide-nameless-1"]
    assert (schema["version"], schema["createdBy"]) == (1, "key:local-secret")
    assert [verdict["valid"] for verdict in tried["verdicts"]] == [True, False]
    assert [violation["pointer"] for violation in tried["verdicts"][1]["violations"]] == ["#/order_id", "#/total"]
    assert (rejecting["version"], rejecting["enforcement"]) == (2, "SCHEMA_ENFORCEMENT_REJECT")
    assert [each["version"] for each in versions["eventSchemas"]] == [2, 1]
    assert plan["trackedEvents"]
    assert event["eventCount"] == "1"
    properties = {each["path"]: each for each in event["properties"]}
    assert [path for path, each in properties.items() if not each["planned"]] == ["coupon"]
    assert [path for path, each in properties.items() if each["eventCount"] == "0"] == ["currency"]
    outcomes = {(step["phase"].removeprefix("TRACE_PHASE_"), step["outcome"]) for step in login["steps"]}
    assert {
        ("COLLECTED", "ACCEPTED"),
        ("IDENTITY", "LINKED"),
        ("TRAITS", "CHANGED"),
        ("METRICS", "COUNTED"),
    } <= outcomes
    assert order["events"][0]["properties"]["coupon"] == "감귤10"
    assert [step["outcome"] for step in nameless["steps"]] == ["REJECTED"]


async def test_the_guide_to_consent_works(platform: Platform) -> None:
    """Purposes, what was said, what holds, what is enforced, who read what, and the proof."""
    answers = await _answers(GUIDES / "consent-and-privacy.md", platform, until="## How long events are kept")
    purposes, newsletter, recorded, tracked, held, records, recommended, segments, accesses, verdict = answers
    assert "night_marketing" in [purpose["purposeId"] for purpose in purposes["purposes"]]
    assert newsletter["notices"][0]["version"] == 1
    assert len(recorded["records"]) == 2
    assert tracked["success"]
    state = {consent["purposeId"]: consent for consent in held["consents"]}
    assert state["marketing_email"]["granted"]
    assert state["marketing_email"]["record"]["noticeVersion"] == 1
    assert not state["personalization"].get("granted", False)
    assert state["analytics"]["reason"] == "CONSENT_REASON_DEFAULT"
    assert [record["purposeId"] for record in records["records"]] == ["personalization", "marketing_email"]
    assert not recommended.get("personalized", False)
    assert segments.get("segments", []) == []
    outcomes = {(access["service"], access["outcome"]) for access in accesses["accesses"]}
    assert {("recommend", "ACCESS_OUTCOME_IMPERSONAL"), ("profile", "ACCESS_OUTCOME_GRANTED")} <= outcomes
    assert verdict["valid"]


async def test_the_guide_to_what_customers_may_ask_for_works(platform: Platform) -> None:
    """A copy, an erasure with a genuine certificate, and a way back."""
    answers = await _answers(GUIDES / "consent-and-privacy.md", platform, after="## What a customer may ask for")
    identified, filed, listed, overdue, erasing, verdict, lifted = answers
    assert identified["success"]
    assert filed["dueTime"] > filed["filedTime"]
    assert [each["dataRequestId"] for each in listed["dataRequests"]] == [filed["dataRequestId"]]
    assert filed["dataRequestId"] not in str(overdue)
    assert erasing["state"] == "DATA_REQUEST_STATE_RECEIVED"
    assert verdict == {"signatureValid": True, "known": True}
    assert lifted == {}


async def test_the_guide_to_the_agent_view_works(platform: Platform) -> None:
    """A customer is found by all that is remembered, shown, written about, and told of in one list."""
    answers = await _answers(GUIDES / "agent-view.md", platform)
    collected, *found, profile, ticket, open_ones, closed, timeline, events = answers
    assert collected["accepted"] == 3
    assert [answer["matches"][0]["name"] for answer in found] == ["선우단골"] * 4
    assert [answer["matches"][0]["match"]["namespace"] for answer in found] == ["name", "name", "phone", "order_id"]
    assert profile["traits"]["plan"] == "gold"
    assert [event["name"] for event in profile["recentEvents"]] == ["Order Completed", "identify", "page"]
    assert "analytics" in [consent["purposeId"] for consent in profile["consents"] if consent["granted"]]
    assert profile["eventCounts"] == {}
    assert ticket["interactionId"] in [each["interactionId"] for each in open_ones["interactions"]]
    assert (closed["status"], closed["outcome"]) == ("INTERACTION_STATUS_CLOSED", "refunded")
    assert closed["subject"] == "귤이 상해서 왔어요"
    kinds = [entry["kind"].removeprefix("TIMELINE_KIND_") for entry in timeline["entries"]]
    assert kinds[:2] == ["INTERACTION", "EVENT"]
    assert kinds.count("EVENT") == 3
    assert "LINK" in kinds
    assert (len(events["entries"]), bool(events["nextPageToken"])) == (1, True)


async def test_the_guide_to_files_and_webhooks_works(platform: Platform) -> None:
    """A file comes in but for its broken row, a customer goes out, an endpoint is tried."""
    answers = await _answers(GUIDES / "files-and-webhooks.md", platform)
    _, uploaded, imported, rejected, started, written, endpoint, ping, deliveries, rotated, _ = answers
    assert uploaded["importJob"]["state"] in ("IMPORT_STATE_RUNNING", "IMPORT_STATE_COMPLETED")
    assert (imported["importJob"]["takenEvents"], imported["importJob"]["rejectedRows"]) == ("2", "1")
    assert [(each["row"], each["field"]) for each in rejected["rejects"]] == [("3", "time")]
    assert written["exportJob"]["exportId"] == started["exportJob"]["exportId"]
    assert "file-guide-1" in EXPORTED.read_text(encoding="utf-8-sig")  # noqa: ASYNC240  once, and small
    assert endpoint["secret"].startswith("whsec_")
    assert ping["webhookId"] in [each["webhookId"] for each in deliveries["deliveries"]]
    assert rotated["secret"] != endpoint["secret"]


async def _answers(page: Path, platform: Platform, after: str = "", until: str = "") -> list[dict[str, Any]]:
    """Do what a reader does who copies block after block."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    answers: list[dict[str, Any]] = []
    for block in blocks(page, after, until):
        answers += _run(block, platform)
        # A reader needs longer for the next block than the platform for the last one.
        await everything_handled(platform, HANDLED_SECONDS)
    return answers


def _run(block: str, platform: Platform) -> list[dict[str, Any]]:
    """Run a block as a shell would; returns the answers of its calls."""
    commands = CURL + block.replace("127.0.0.1:8080", f"127.0.0.1:{platform.gateway_port}")
    finished = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, f"{block}\n{finished.stdout}\n{finished.stderr}"
    return [json.loads(line) for line in finished.stdout.splitlines() if line.strip()]
