# SPDX-License-Identifier: Apache-2.0
"""Drives a released Python client of Segment or RudderStack: package, host, write key, scenario, options as JSON.

Runs in a process of its own, so that an older release can stand before the installed one. Prints what the client
could not deliver.
"""

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any


def everything(client: Any) -> None:
    """Make one call of each kind, with everything that is awkward."""
    client.identify(user_id="known-1", traits={"city": "서울", "emoji": "🍊", "none": None})
    client.track(user_id=42, event="주문 완료", properties={"revenue": 12900.5, "none": None})
    client.track(anonymous_id="visitor-1", event="Viewed", timestamp=datetime(2026, 11, 1, 12, tzinfo=UTC))
    client.page(user_id="known-1", name="Home", category="shop")
    client.screen(user_id="known-1", name="Cart")
    client.group(user_id="known-1", group_id=7, traits={"plan": "pro"})
    client.alias(previous_id="visitor-1", user_id="known-1")


def order(client: Any, customer: str) -> None:
    """A customer who is known, and orders."""
    client.identify(user_id=customer, traits={"city": "서울"})
    client.track(user_id=customer, event="Order Completed", properties={"revenue": 29000})


def many(client: Any, count: int = 501) -> None:
    """Say the same of many customers."""
    for number in range(count):
        client.track(user_id=f"customer-{number}", event="Counted")


def too_many(client: Any) -> None:
    """One event more than a batch may hold."""
    many(client, 2501)


def large(client: Any) -> None:
    """An event above 32 KiB, which some releases refuse themselves, and one that is not."""
    with suppress(RuntimeError):
        client.track(user_id="customer-1", event="Large", properties={"text": "y" * 33_000})
    client.track(user_id="customer-1", event="Small")


def paced(client: Any) -> None:
    """Three requests in a row."""
    for number in range(3):
        client.track(user_id=f"customer-{number}", event="Paced")
        client.flush()


def not_a_number(client: Any) -> None:
    """Python writes NaN where JSON has none."""
    client.track(user_id="customer-1", event="Measured", properties={"x": float("nan"), "y": 1})


SCENARIOS = {do.__name__: do for do in (everything, order, many, too_many, large, paced, not_a_number)}


def main(package: str, host: str, key: str, scenario: str, options: str) -> None:
    """Use a client until it has sent everything."""
    errors: list[str] = []
    kind = import_module(f"{package}.analytics.client").Client
    given = {"max_retries": 10, "upload_interval": 0.05, **json.loads(options)}
    client = kind(key, host=host, on_error=lambda error, _: errors.append(str(error)), **given)
    name, *arguments = scenario.split(":")
    SCENARIOS[name](client, *arguments)
    client.flush()
    client.join()
    version = import_module(f"{package}.analytics.version").VERSION
    sys.stdout.write(json.dumps({"version": version, "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
