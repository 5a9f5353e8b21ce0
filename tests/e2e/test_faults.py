# SPDX-License-Identifier: Apache-2.0
"""Processes die and engines stop while events flow; nothing acknowledged is lost, nothing is counted twice."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from bench.platform.load import Load
from bench.platform.running import Platform
from tests.e2e.even_load import REVENUE, EvenLoad
from tests.e2e.patience import eventually, everything_handled

EVENTS = int(os.environ.get("DANGOL_TEST_EVENTS", "200000"))
"""Events that flow while every process is killed in turn."""
RATE = 8_000
CUSTOMERS = 400
RECOVERY_SECONDS = 60
HANDLED_SECONDS = 120
STOPPED_SECONDS = 10
COUPLES = 12
DECISION_ROUNDS = 8
KILLS = 5
WEIGHTS = {"Product Viewed": 1, "Product Added": 3, "Order Completed": 5}
"""What svc-recommend adds for each event, in thousandths, by column."""
INTERACTIONS = """
SELECT count(*), viewed, wanted, bought FROM (
    SELECT sum(viewed_weight)::bigint AS viewed, sum(wanted_weight)::bigint AS wanted,
        sum(bought_weight)::bigint AS bought
    FROM interactions WHERE item_id LIKE $1 GROUP BY fragment_id
) AS of_customers GROUP BY viewed, wanted, bought
"""


async def test_killing_every_process_in_turn_loses_and_doubles_nothing(platform: Platform, api: httpx.Client) -> None:
    """Each acknowledged event is counted once in profile, segmentation, recommend and metrics."""
    cohort = EvenLoad(f"killed-{time.time_ns()}", CUSTOMERS)
    await everything_handled(platform, HANDLED_SECONDS)
    before = _metrics(api)
    victims = [name for name in platform.supervisor.pids if name != "gateway"] + ["gateway"]
    async with Load(platform.gateway_port, cohort, RATE, connections=4) as load:
        for number, name in enumerate(victims, start=1):
            await load.reached(EVENTS * number // (len(victims) + 1))
            await asyncio.to_thread(platform.supervisor.kill, name)
            await asyncio.to_thread(platform.supervisor.wait_until_healthy, RECOVERY_SECONDS)
        # Events flow until the last process is back, and then until everybody has done the same.
        load.stop_after = cohort.whole_rounds(max(EVENTS, load.started))
        await load.done()
    assert load.acknowledged == load.stop_after >= EVENTS
    await everything_handled(platform, HANDLED_SECONDS)
    await _assert_counted_once(platform, api, cohort, before)


@pytest.mark.parametrize("engine", ["nats", "postgres"])
async def test_an_engine_that_stops_for_ten_seconds_is_missed_but_not_for_long(
    platform: Platform, api: httpx.Client, engine: str
) -> None:
    """The gateway says 503 and when to come again; afterwards everything is as if nothing had happened."""
    cohort = EvenLoad(f"{engine}-{time.time_ns()}", 100)
    before = _metrics(api)
    async with Load(platform.gateway_port, cohort, 1_000, connections=2) as load:
        await load.reached(2_000)
        await asyncio.to_thread(platform.supervisor.halt, engine)
        refused = await asyncio.to_thread(_refusals, api, engine)
        await asyncio.to_thread(platform.supervisor.resume, engine)
        await load.reached(load.acknowledged + 2_000)
        load.stop_after = cohort.whole_rounds(load.started)
        await load.done()
    await asyncio.to_thread(platform.supervisor.wait_until_healthy, RECOVERY_SECONDS)
    assert {response.status_code for response in refused} == {503}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
    await everything_handled(platform, HANDLED_SECONDS)
    await _assert_counted_once(platform, api, cohort, before)


async def test_killing_the_profile_service_between_merges_and_splits_leaves_nothing_half_done(
    platform: Platform, api: httpx.Client
) -> None:
    """Each decision is whole or was never taken, and every service has heard of the same ones."""
    tag = f"couple-{time.time_ns()}"
    couples = [(f"{tag}-{number}-a", f"{tag}-{number}-b") for number in range(COUPLES)]
    _let_live(api, tag, [user for couple in couples for user in couple])
    await everything_handled(platform, HANDLED_SECONDS)
    before = {user: _profile(api, user) for couple in couples for user in couple}
    decided: list[str] = []
    deciding = asyncio.create_task(asyncio.to_thread(_join_and_part, api, couples, decided))
    for number in range(1, KILLS + 1):
        mark = COUPLES * 2 * DECISION_ROUNDS * number // (KILLS + 1)
        await asyncio.to_thread(_wait_for_decisions, decided, mark)
        await asyncio.to_thread(platform.supervisor.kill, "profile")
    await deciding
    await asyncio.to_thread(platform.supervisor.wait_until_healthy, RECOVERY_SECONDS)
    await everything_handled(platform, HANDLED_SECONDS)
    for number, couple in enumerate(couples):
        _assert_decided(api, couple, before, together=number % 2 == 0)
    assert _segment_size(api, f"traits.cohort == '{tag}'") == COUPLES + COUPLES // 2
    await _assert_mappings_agree(platform, tag)


def _wait_for_decisions(decided: list[str], mark: int) -> None:
    eventually(lambda: len(decided) >= mark, f"{mark} decisions are taken", HANDLED_SECONDS)


def _segment_size(api: httpx.Client, rule: str) -> int:
    preview = api.post("/v1/segments:preview", json={"rule": rule}).raise_for_status().json()
    return int(preview["count"])


def _let_live(api: httpx.Client, cohort: str, users: list[str]) -> None:
    for user in users:
        events = [
            {"type": "page", "anonymousId": f"{user}-device"},
            {"type": "identify", "userId": user, "anonymousId": f"{user}-device", "traits": {"cohort": cohort}},
        ]
        api.post("/v1/batch", json={"batch": events}).raise_for_status()


def _profile(api: httpx.Client, user: str) -> dict[str, Any]:
    return dict(api.get(f"/v1/profiles/user_id:{user}").raise_for_status().json())


def _join_and_part(api: httpx.Client, couples: list[tuple[str, str]], decided: list[str]) -> None:
    """Merge and split every couple round after round; in the end every other one is together."""
    for number in range(DECISION_ROUNDS):
        for place, (one, other) in enumerate(couples):
            _decide(api, f"/v1/profiles/user_id:{one}:merge", {"absorb": [f"user_id:{other}"]})
            decided.append("merge")
            if number < DECISION_ROUNDS - 1 or place % 2:
                leaving = [f"user_id:{other}", f"anonymous_id:{other}-device"]
                _decide(api, f"/v1/profiles/user_id:{one}:split", {"identifiers": leaving})
            decided.append("split")


def _decide(api: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Ask until there is an answer. Whoever lost the answer to a split is told that the identifiers are gone."""
    end = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            answer = api.post(path, json={**body, "reason": "fault test"})
        except httpx.TransportError:
            answer = httpx.Response(503)
        if answer.is_success or "must be an identifier of this customer" in answer.text:
            return
        assert answer.status_code >= 500, answer.text
        assert time.monotonic() < end, answer.text
        time.sleep(0.2)


def _assert_decided(
    api: httpx.Client, couple: tuple[str, str], before: dict[str, dict[str, Any]], *, together: bool
) -> None:
    one, other = (_profile(api, user) for user in couple)
    listed = api.get(f"/v1/identity-decisions?profile=user_id:{couple[0]}").raise_for_status().json()["decisions"]
    standing = [decision for decision in listed if "revokeTime" not in decision]
    if together:
        assert one == other
        assert one["eventCounts"] == {"page": 2, "identify": 2}
        assert [decision["kind"] for decision in standing] == ["IDENTITY_DECISION_KIND_MERGE"]
    else:
        assert [one, other] == [before[user] for user in couple]
        assert standing == []


async def _assert_mappings_agree(platform: Platform, tag: str) -> None:
    """Where svc-profile says that fragments belong, every service believes so."""
    mappings = {}
    fragments = await _rows(platform, "profile", "SELECT fragment_id FROM fragments WHERE value LIKE $1", f"{tag}-%")
    ids = [row["fragment_id"] for row in fragments]
    for service in ("profile", "segmentation", "recommend", "feedback"):
        sql = "SELECT * FROM fragment_profiles WHERE fragment_id = ANY ($1) AND revision > 0 ORDER BY fragment_id"
        mappings[service] = [tuple(row) for row in await _rows(platform, service, sql, ids)]
    assert len(mappings["profile"]) >= COUPLES * 3
    assert mappings["segmentation"] == mappings["recommend"] == mappings["feedback"] == mappings["profile"]


async def _rows(platform: Platform, service: str, sql: str, argument: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(f"{platform.supervisor.postgres_url}/dangol_{service}")
    try:
        return list(await connection.fetch(sql, argument))
    finally:
        await connection.close()


def _refusals(api: httpx.Client, engine: str) -> list[httpx.Response]:
    """What the gateway answers during ten seconds without an engine to calls that need it."""
    answers, end = [], time.monotonic() + STOPPED_SECONDS
    while time.monotonic() < end:
        if engine == "nats":
            answers.append(api.post("/v1/track", json={"userId": "nobody", "event": "Refused"}))
        else:
            answers.append(api.get("/v1/profiles/user_id:nobody"))
        time.sleep(1)
    return answers


async def _assert_counted_once(
    platform: Platform, api: httpx.Client, cohort: EvenLoad, before: dict[str, float]
) -> None:
    expected = cohort.expected()
    _assert_profiles(api, cohort, expected)
    _assert_segmentation(api, cohort, expected)
    _assert_metrics(api, cohort, expected, before)
    await _assert_recommend(platform, cohort, expected)


def _assert_profiles(api: httpx.Client, cohort: EvenLoad, expected: dict[str, int]) -> None:
    for number in range(cohort.customers):
        profile = api.get(f"/v1/profiles/user_id:{cohort.customer(number)}").raise_for_status().json()
        assert profile["eventCounts"] == expected, cohort.customer(number)
        assert profile["revenue"] == {"KRW": REVENUE * expected["Order Completed"]}


def _assert_segmentation(api: httpx.Client, cohort: EvenLoad, expected: dict[str, int]) -> None:
    counts = " && ".join(f"count('{name}', days(2)) == {count}" for name, count in expected.items())
    revenue = f"sum('Order Completed', 'revenue', days(2)) == {REVENUE * expected['Order Completed']}"
    rule = f"traits.cohort == '{cohort.cohort}' && {counts} && {revenue}"
    preview = api.post("/v1/segments:preview", json={"rule": rule}).raise_for_status().json()
    assert preview["count"] == cohort.customers


def _metrics(api: httpx.Client) -> dict[str, float]:
    """Counts by name, and the orders and revenue of these days."""
    names = api.get("/v1/event-names?pageSize=1000").raise_for_status().json().get("eventNames", [])
    today = datetime.now(UTC).date()
    body = {"startDate": (today - timedelta(days=1)).isoformat(), "endDate": today.isoformat(), "timeZone": "UTC"}
    total = api.post("/v1/kpis:query", json={**body, "currency": "KRW"}).raise_for_status().json()["total"]
    return {name["name"]: name["count"] for name in names} | {"revenue": total.get("revenue", 0)}


def _assert_metrics(api: httpx.Client, cohort: EvenLoad, expected: dict[str, int], before: dict[str, float]) -> None:
    after = _metrics(api)
    grown = {name: after[name] - before.get(name, 0) for name in (*expected, "revenue")}
    revenue = cohort.customers * REVENUE * expected["Order Completed"]
    assert grown == {name: cohort.customers * count for name, count in expected.items()} | {"revenue": revenue}


async def _assert_recommend(platform: Platform, cohort: EvenLoad, expected: dict[str, int]) -> None:
    """No public answer holds sums, so the store is asked: one row for each customer, each with the same sums."""
    connection = await asyncpg.connect(f"{platform.supervisor.postgres_url}/dangol_recommend")
    try:
        rows = await connection.fetch(INTERACTIONS, f"{cohort.cohort}-%")
    finally:
        await connection.close()
    sums = {name: 1000 * weight * expected[name] for name, weight in WEIGHTS.items()}
    assert [tuple(row) for row in rows] == [(cohort.customers, *sums.values())]
