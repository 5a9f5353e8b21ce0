# SPDX-License-Identifier: Apache-2.0
"""The released, unmodified clients of Segment and RudderStack against the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dangol.events.v1 import events_pb2 as pb
from rudderstack.analytics.client import Client as RudderClient
from segment.analytics.client import Client as SegmentClient

from .conftest import WRITE, RunningGateway

NODE_PACKAGES = ("@segment/analytics-node@3.1.0", "@rudderstack/rudder-sdk-node@3.0.13")
OLD_PYTHON = "segment-analytics-python==2.3.4"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dangol" / "clients"

Errors = list[Any]


def client_of(kind: type[Any], url: str, errors: Errors, **options: Any) -> Any:
    """Return a client that reports what it could not deliver."""
    options = {"write_key": WRITE, "max_retries": 2, "upload_interval": 0.05, **options}
    return kind(host=url, on_error=lambda error, _: errors.append(error), **options)


async def use(client: Any, do: Callable[[Any], None]) -> None:
    """Use a client in a thread until it has sent everything."""

    def run() -> None:
        do(client)
        client.flush()
        client.join()

    await asyncio.to_thread(run)


def all_six(client: Any) -> None:
    """Make one call of each kind, with everything that is awkward."""
    client.identify(user_id="py-1", traits={"city": "서울", "emoji": "🍊", "none": None})
    client.track(user_id=42, event="Order Completed", properties={"revenue": 12900.5, "none": None})
    client.track(anonymous_id="py-a", event="Viewed", timestamp=datetime(2026, 11, 1, 12, tzinfo=UTC))
    client.page(user_id="py-1", name="Home", category="shop")
    client.screen(user_id="py-1", name="Cart")
    client.group(user_id="py-1", group_id="g-1", traits={"plan": "pro"})
    client.alias(previous_id="py-a", user_id="py-1")


@pytest.mark.parametrize("kind", [SegmentClient, RudderClient])
@pytest.mark.parametrize("gzip", [False, True])
class TestPython:
    """PyPI segment-analytics-python 2.4.0 and rudder-sdk-python 2.1.9."""

    async def test_every_call_arrives_once(self, gateway: RunningGateway, kind: type[Any], gzip: bool) -> None:
        errors: Errors = []
        await use(client_of(kind, gateway.url, errors, gzip=gzip), all_six)
        assert errors == []
        events = await gateway.collected()
        assert sorted(event.type for event in events) == [1, 2, 2, 3, 4, 5, 6]
        by_type = {event.type: event for event in events}
        assert json.loads(by_type[pb.EVENT_TYPE_IDENTIFY].traits) == {"city": "서울", "emoji": "🍊", "none": None}
        assert {event.user_id for event in events} == {"py-1", "42", ""}
        assert by_type[pb.EVENT_TYPE_ALIAS].previous_id == "py-a"
        assert by_type[pb.EVENT_TYPE_GROUP].group_id == "g-1"
        assert (by_type[pb.EVENT_TYPE_PAGE].name, by_type[pb.EVENT_TYPE_PAGE].category) == ("Home", "shop")
        assert all(event.message_id and event.sent_time_us and event.original_time_us for event in events)
        assert await gateway.rejected() == []

    async def test_501_events_arrive_once_each(self, gateway: RunningGateway, kind: type[Any], gzip: bool) -> None:
        errors: Errors = []

        def send(client: Any) -> None:
            for number in range(501):
                client.track(user_id=f"py-{number}", event="Counted")

        await use(client_of(kind, gateway.url, errors, gzip=gzip), send)
        assert errors == []
        events = await gateway.collected()
        assert len(events) == len({event.message_id for event in events}) == 501

    async def test_an_unknown_key_is_told_once_and_in_words(
        self, gateway: RunningGateway, kind: type[Any], gzip: bool
    ) -> None:
        errors: Errors = []
        client = client_of(kind, gateway.url, errors, gzip=gzip, write_key="unknown")
        await use(client, lambda one: one.track(user_id="u", event="A"))
        assert [(error.status, error.code) for error in errors] == [(401, "UNKNOWN_KEY")]


async def test_a_33_kb_event_of_a_client_without_a_limit_costs_only_itself(gateway: RunningGateway) -> None:
    """RudderStack's client sends what is larger than Segment allows."""
    errors: Errors = []

    def send(client: Any) -> None:
        client.track(user_id="u", event="Large", properties={"x": "y" * 33_000})
        client.track(user_id="u", event="Small")

    await use(client_of(RudderClient, gateway.url, errors), send)
    assert errors == []
    assert [event.name for event in await gateway.collected()] == ["Small"]
    assert [event.reason for event in await gateway.rejected()] == ["EVENT_TOO_LARGE"]


async def test_a_batch_of_2501_events_loses_the_last_one_and_is_not_sent_again(gateway: RunningGateway) -> None:
    errors: Errors = []

    def send(client: Any) -> None:
        for number in range(2501):
            client.track(user_id=f"u{number}", event="Counted")

    options = {"upload_size": 2501, "upload_interval": 5, "max_queue_size": 5000}
    await use(client_of(RudderClient, gateway.url, errors, **options), send)
    assert errors == []
    taken, refused = await gateway.collected(), await gateway.rejected()
    assert len(taken) + len(refused) == 2501
    assert {event.reason for event in refused} <= {"BATCH_TOO_LONG"}


async def test_not_a_number_does_not_cost_the_batch(gateway: RunningGateway) -> None:
    """Python writes NaN where JSON has none."""
    errors: Errors = []
    client = client_of(SegmentClient, gateway.url, errors)
    await use(client, lambda one: one.track(user_id="u", event="A", properties={"x": float("nan"), "y": 1}))
    assert errors == []
    (event,) = await gateway.collected()
    assert json.loads(event.properties) == {"x": None, "y": 1}


async def test_a_client_that_is_too_fast_waits_as_it_is_told_and_loses_nothing(gateway: RunningGateway) -> None:
    errors: Errors = []

    def send(client: Any) -> None:
        for number in range(3):
            client.track(user_id=f"u{number}", event="A")
            client.flush()

    await use(client_of(SegmentClient, gateway.url, errors, write_key="brisk-key", max_retries=5), send)
    assert errors == []
    assert len(await gateway.collected()) == 3


async def test_the_widely_pinned_python_client_sends_its_key_in_the_body_alone(gateway: RunningGateway) -> None:
    """PyPI segment-analytics-python 2.3.4."""
    folder = await asyncio.to_thread(_old_python)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from segment.analytics.client import Client\n"
        "from segment.analytics.version import VERSION\n"
        "errors = []\n"
        "client = Client(sys.argv[3], host=sys.argv[2], max_retries=2, on_error=lambda e, _: errors.append(e))\n"
        "client.track('u', 'A')\n"
        "client.flush()\n"
        "client.join()\n"
        "print(VERSION, errors)\n"
    )
    told = await _run(sys.executable, "-c", script, str(folder), gateway.url, WRITE)
    assert told.strip() == "2.3.4 []"
    assert [event.name for event in await gateway.collected()] == ["A"]
    refused = await _run(sys.executable, "-c", script, str(folder), gateway.url, "unknown")
    assert "401" in refused
    assert len(await gateway.collected()) == 1


@pytest.mark.parametrize("name", ["segment", "rudder"])
class TestNode:
    """npm @segment/analytics-node 3.1.0 and @rudderstack/rudder-sdk-node 3.0.13."""

    async def test_every_call_arrives_once(self, gateway: RunningGateway, name: str) -> None:
        assert await _node(name, gateway.url, WRITE, "all") == []
        events = await gateway.collected()
        assert sorted(event.type for event in events) == [1, 2, 2, 3, 4, 5, 6]
        by_type = {event.type: event for event in events}
        assert json.loads(by_type[pb.EVENT_TYPE_IDENTIFY].traits) == {"city": "서울", "emoji": "🍊", "none": None}
        assert await gateway.rejected() == []

    async def test_501_events_arrive_once_each(self, gateway: RunningGateway, name: str) -> None:
        assert await _node(name, gateway.url, WRITE, "many") == []
        events = await gateway.collected()
        assert len(events) == len({event.message_id for event in events}) == 501

    async def test_an_unknown_key_loses_the_events_and_says_so(self, gateway: RunningGateway, name: str) -> None:
        assert await _node(name, gateway.url, "unknown", "all") != []
        assert await gateway.collected() == []


async def _node(name: str, url: str, key: str, scenario: str) -> list[str]:
    folder = await asyncio.to_thread(_node_packages)
    script = Path(__file__).parent / "clients" / "node.cjs"
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    errors: list[str] = json.loads(await _run("node", str(script), name, url, key, scenario, environment=environment))
    return errors


async def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    output, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return output.decode()


def _node_packages() -> Path:
    """Install the Node clients once per machine; skips where that cannot be done."""
    folder = CACHE / "node"
    if not (folder / "installed").exists():
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            pytest.skip("Node is not installed")
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts"]
        _install([*command, *NODE_PACKAGES], folder)
    return folder


def _old_python() -> Path:
    """Install the older Python client beside the one of the environment; skips where that cannot be done."""
    folder = CACHE / "python-2.3.4"
    if not (folder / "installed").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        _install([uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), OLD_PYTHON], folder)
    return folder


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{command[0]} cannot install: {type(error).__name__}")
    if done.returncode != 0:
        pytest.skip(f"{command[0]} cannot install: {done.stderr.decode()[-300:]}")
    (folder / "installed").touch()
