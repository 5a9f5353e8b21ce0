# SPDX-License-Identifier: Apache-2.0
"""A customer is exported and erased over the running platform; nothing is left in any store of any service."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import asyncpg
import httpx
import nats
import pytest
from chassis.identity import PREFIX, parse_profile_id
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bench.platform.running import Platform
from tests.e2e.patience import eventually, everything_handled, found

STAMP = str(time.time_ns())[-9:]
GONE, STAYS = f"erased{STAMP}", f"kept{STAMP}"
SERVICES = ("profile", "segmentation", "recommend", "feedback", "metrics")
ENGINE_FOLDERS = {"postgres", "nats", "metrics"}
"""Searched through their own engines, because their files hold what is no more for a while."""


def history(who: str) -> list[dict[str, Any]]:
    """What a customer does: as a visitor, then known, in every way that a service keeps."""
    device, mail = f"{who}-device", f"{who}@example.com"
    products = [{"product_id": f"item-{n}", "price": 1000} for n in range(3)]
    calls: list[dict[str, Any]] = [
        {"type": "page", "anonymousId": device, "name": "Home", "properties": {"url": f"https://x.example/?m={mail}"}},
        *({"type": "track", "anonymousId": device, "event": "Product Viewed", "properties": p} for p in products),
        {"type": "identify", "userId": who, "anonymousId": device, "traits": {"email": mail, "city": "Jeju"}},
        {"type": "identify", "userId": who, "traits": {"phone": f"010-{STAMP[:4]}-{len(who)}234", "name": "김단골"}},
        {"type": "group", "userId": who, "groupId": f"company-{STAMP}"},
        {
            "type": "track",
            "userId": who,
            "event": "Order Completed",
            "properties": {"order_id": f"o-{who}", "revenue": 5000, "products": products},
        },
        {
            "type": "track",
            "userId": who,
            "event": "Product Reviewed",
            "properties": {"product_id": "item-1", "rating": 5, "review_body": f"좋아요! {mail}"},
        },
    ]
    return [{**call, "messageId": f"m{STAMP}-{len(who)}-{number}"} for number, call in enumerate(calls)]


@pytest.fixture(scope="module")
def told(platform: Platform, api: httpx.Client) -> httpx.Client:
    """Two customers with a history in every service, a rejected event of each, and a dead letter of both."""
    api.post("/v1/segments", json={"name": f"in-jeju-{STAMP}", "rule": "traits.city == 'Jeju'"}).raise_for_status()
    for who in (GONE, STAYS):
        api.post("/v1/batch", json={"batch": history(who)}).raise_for_status()
        api.post("/v1/batch", json={"batch": [{"type": "track", "userId": who, "event": ""}]})
        body = {"profile": f"user_id:{who}", "kind": "FEEDBACK_KIND_COMMENT", "text": f"{who}@example.com 느려요"}
        eventually(partial(_knows, api, who), "the customer is known")
        api.post("/v1/feedback", json=body).raise_for_status()
    asyncio.run(_bury(platform))
    asyncio.run(everything_handled(platform, 60))
    for who in (GONE, STAYS):
        eventually(partial(_is_in_segment, api, who), "the customer is in the segment")
    asyncio.run(everything_handled(platform, 60))
    return api


def _knows(api: httpx.Client, who: str) -> bool:
    return found(api, f"/v1/profiles/user_id:{who}") is not None


def _is_in_segment(api: httpx.Client, who: str) -> bool:
    return f"in-jeju-{STAMP}" in api.get(f"/v1/profiles/user_id:{who}/segments").text


async def _bury(platform: Platform) -> None:
    """Put a letter with events of both among the dead of svc-metrics."""
    client = await nats.connect(platform.nats_url)
    events = [
        Event(type=EventType.EVENT_TYPE_TRACK, name="Lost", source="web", message_id=f"lost-{len(who)}", user_id=who)
        for who in (GONE, STAYS)
    ]
    headers = {
        "Dangol-Consumer": "metrics-events-resolved",
        "Dangol-Subject": "events.resolved.0",
        "Dangol-Message-Id": "lost",
        "Dangol-Error": "KeyError: ",
        "Dangol-Deliveries": "8",
        "Dangol-Buried-Time": "2026-11-26T00:00:00+00:00",
    }
    payload = EventBatch(events=events).SerializeToString()
    await client.jetstream().publish("dead.metrics-events-resolved", payload, headers=headers)
    await client.close()


def test_an_access_request_brings_everything_in_one_file(told: httpx.Client) -> None:
    """From all services, and nothing of others."""
    data_request = _file(told, "ACCESS")
    answer = told.get(f"/v1/data-requests/{data_request}/export").raise_for_status()
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert {name.split("/")[0] for name in archive.namelist()} >= {*SERVICES, "index.html"}
    assert len(json.loads(archive.read("metrics/events.json"))) == len(history(GONE))
    assert [name for name in archive.namelist() if STAYS.encode() in archive.read(name)] == []
    page = archive.read("index.html").decode()
    assert "marketing_email" in page
    assert "metrics/events.csv" in page


def test_after_an_erasure_nothing_is_left_anywhere(platform: Platform, told: httpx.Client) -> None:
    """Not in a table, not in ClickHouse, not in a message of a stream, not in a file; not even after a replay.

    svc-profile is killed in the middle of it.
    """
    profile = told.get(f"/v1/profiles/user_id:{GONE}").raise_for_status().json()
    references = [f"{each['namespace']}:{each['value']}" for each in profile["identifiers"]]
    values = [each["value"] for each in profile["identifiers"]] + [f"{GONE}-device", profile["profileId"]]
    assert len(references) == 4
    others = _seen_of_others(told)
    data_request = _file(told, "ERASE", platform)
    assert all(found(told, f"/v1/profiles/{reference}") is None for reference in references)
    asyncio.run(everything_handled(platform, 60))
    _assert_nowhere(platform, values)
    assert _seen_of_others(told) == others
    certificate = told.get(f"/v1/data-requests/{data_request}/certificate").raise_for_status().json()
    _assert_genuine(told, certificate)
    account = json.loads(certificate["text"])
    assert account["probe"]["leftovers"] == []
    assert set(account["removed"]) == {*SERVICES, "streams"}
    # Every old event again, under new ids: the same person as before, as far as anybody can tell.
    again = [{**call, "messageId": f"again-{call['messageId']}"} for call in history(GONE)]
    told.post("/v1/batch", json={"batch": [*history(GONE), *again]}).raise_for_status()
    asyncio.run(everything_handled(platform, 60))
    assert all(found(told, f"/v1/profiles/{reference}") is None for reference in references)
    asyncio.run(_assert_in_no_table(platform, values))


def _file(api: httpx.Client, kind: str, platform: Platform | None = None) -> str:
    """File a request and wait until it is done; with a platform, kill svc-profile meanwhile."""
    body = {"profile": f"user_id:{GONE}", "kind": f"DATA_REQUEST_KIND_{kind}", "channel": "web"}
    filed = api.post("/v1/data-requests", json=body).raise_for_status().json()
    path = f"/v1/data-requests/{filed['dataRequestId']}"
    if platform is not None:
        for seconds in (0.7, 1.9):
            time.sleep(seconds)
            platform.supervisor.kill("profile")
            platform.supervisor.wait_until_healthy(60)
    eventually(lambda: "doneTime" in api.get(path).json(), f"the request to {kind} is done", patience=120)
    done = api.get(path).json()
    assert done["state"] == "DATA_REQUEST_STATE_DONE", done
    assert {each["service"] for each in done["services"] if "doneTime" in each} == set(SERVICES)
    return str(filed["dataRequestId"])


def _seen_of_others(api: httpx.Client) -> list[Any]:
    """What each service answers about the other customer."""
    reference = f"user_id:{STAYS}"
    return [
        api.get(f"/v1/profiles/{reference}").raise_for_status().json(),
        api.get(f"/v1/profiles/{reference}/segments").raise_for_status().json(),
        api.get(f"/v1/profiles/{reference}/events?pageSize=100").raise_for_status().json(),
        api.get(f"/v1/feedback?profile={reference}").raise_for_status().json(),
        [each for each in api.get("/v1/dead-letters").json().get("deadLetters", []) if each["messageId"] == "lost"]
        != [],
    ]


def _assert_genuine(api: httpx.Client, certificate: dict[str, Any]) -> None:
    """With the public key alone, and by the platform's word."""
    key = load_pem_public_key(api.get("/v1/erasure-certificates/key").json()["publicKeyPem"].encode())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(base64.b64decode(certificate["signature"]), certificate["text"].encode())
    body = {"text": certificate["text"], "signature": certificate["signature"]}
    assert api.post("/v1/erasure-certificates:verify", json=body).json() == {"signatureValid": True, "known": True}


def _assert_nowhere(platform: Platform, values: list[str]) -> None:
    asyncio.run(_assert_in_no_table(platform, values))
    asyncio.run(_assert_in_no_message(platform, values))
    files = [
        path
        for path in platform.home.rglob("*")
        if path.is_file() and path.relative_to(platform.home).parts[0] not in ENGINE_FOLDERS
    ]
    assert not [path for path in files if _names(path.read_bytes(), values)]


async def _assert_in_no_table(platform: Platform, values: list[str]) -> None:
    """Every row of every table of every database, but the tombstones, which name no person and drop late events."""
    for service in SERVICES:
        connection = await asyncpg.connect(f"{platform.supervisor.postgres_url}/dangol_{service}")
        try:
            tables = await connection.fetch("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")  # fmt: skip  # noqa: E501
            for table in {row[0] for row in tables} - {"forgotten_fragments"}:
                async for text in _rows(connection, table):
                    assert not _names(text, values), f"{service}.{table}: {text!r}"
        finally:
            await connection.close()


async def _rows(connection: asyncpg.Connection, table: str) -> AsyncIterator[bytes]:
    for row in await connection.fetch(f'SELECT * FROM "{table}"'):
        yield b"\n".join(each if isinstance(each, bytes) else str(each).encode() for each in row)


async def _assert_in_no_message(platform: Platform, values: list[str]) -> None:
    client = await nats.connect(platform.nats_url)
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
    try:
        for stream in ("EVENTS", "DOMAIN", "DEAD"):
            state = (await client.jetstream().stream_info(stream)).state
            subscription = await client.jetstream().pull_subscribe(">", stream=stream, config=config)
            seen = 0
            while seen < state.messages:
                for message in await subscription.fetch(min(100, state.messages - seen), timeout=10):
                    assert not _names(message.data, values), (stream, message.subject)
                    seen += 1
            await subscription.unsubscribe()
    finally:
        await client.close()


def _names(data: bytes, values: list[str]) -> bool:
    """Tell whether bytes hold one of the values, in any case of letters, or the id behind a profile's name."""
    lower = data.lower()
    return any(value.lower().encode() in lower for value in values) or any(
        parse_profile_id(value).bytes in data for value in values if value.startswith(PREFIX)
    )
