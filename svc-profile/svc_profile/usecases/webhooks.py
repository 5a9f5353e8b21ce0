# SPDX-License-Identifier: Apache-2.0
"""Tell other systems what happens: keep endpoints, let messages wait for them, remember how sending ended."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, NotFound, ResourceExhausted
from chassis.ids import new_ulid
from chassis.streams import Delivery as Heard
from google.protobuf import any_pb2

from svc_profile.domain.webhooks import GONE, Delivery, Endpoint, Outcome, State, wait_seconds
from svc_profile.store.webhooks import WebhookStore
from svc_profile.wire.webhooks import endpoint_disabled, message_of, pinged, read_messages

_MOST_ENDPOINTS = 100
_HOUR_US = 3_600_000_000
_FORGET_AT_ONCE = 10_000


async def create_endpoint(tx: Transaction, endpoint: Endpoint) -> Endpoint:
    """Keep a new endpoint."""
    store = WebhookStore(tx)
    if await store.count() >= _MOST_ENDPOINTS:
        raise ResourceExhausted(f"there are {_MOST_ENDPOINTS} endpoints, more are not possible")
    await store.add(endpoint)
    return endpoint


async def get_endpoint(tx: Transaction, endpoint_id: str) -> Endpoint:
    """Return an endpoint."""
    return _found(await WebhookStore(tx).find(endpoint_id))


async def list_endpoints(tx: Transaction) -> list[Endpoint]:
    """Return all endpoints."""
    return await WebhookStore(tx).all()


async def update_endpoint(tx: Transaction, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
    """Change an endpoint; one that is used again no longer has a reason why it was not."""
    store = WebhookStore(tx)
    endpoint = replace(_found(await store.find(endpoint_id, lock=True)), **changes)
    if not endpoint.disabled:
        endpoint = replace(endpoint, disabled_reason="")
    await store.put(endpoint)
    return endpoint


async def delete_endpoint(tx: Transaction, endpoint_id: str) -> None:
    """Forget an endpoint and what waits for it."""
    if not await WebhookStore(tx).delete(endpoint_id):
        raise NotFound("no such endpoint")


async def rotate_secret(tx: Transaction, endpoint_id: str, *, former_hours: int, now_us: int) -> Endpoint:
    """Give an endpoint a new secret, and let the former one sign a while longer."""
    store = WebhookStore(tx)
    endpoint = _found(await store.find(endpoint_id, lock=True))
    until = now_us + former_hours * _HOUR_US if former_hours else 0
    endpoint = replace(endpoint, secret_number=endpoint.secret_number + 1, former_secret_until_us=until)
    await store.put(endpoint)
    return endpoint


async def ping_endpoint(tx: Transaction, endpoint_id: str, *, now_us: int) -> str:
    """Let a test message wait for an endpoint; returns its id."""
    endpoint = await get_endpoint(tx, endpoint_id)
    if endpoint.disabled:
        raise FailedPrecondition("nothing is sent to an endpoint that is disabled", reason="ENDPOINT_DISABLED")
    message = message_of(pinged(endpoint_id), new_ulid(), now_us)
    await WebhookStore(tx).enqueue([(endpoint_id, message)], now_us=now_us)
    return message.webhook_id


async def enqueue(tx: Transaction, heard: Iterable[Heard[any_pb2.Any]], *, now_us: int) -> None:
    """Let what was announced wait for the endpoints that want it. A repeated message waits once."""
    store = WebhookStore(tx)
    endpoints = [endpoint for endpoint in await store.all() if not endpoint.disabled]
    # Most of what happens nobody wants: only the rest is read and written as JSON.
    messages = read_messages(h for h in heard if any(e.wants(h.message.TypeName()) for e in endpoints))
    wanted = [(e.endpoint_id, message) for e in endpoints for message in messages if e.wants(message.event_type)]
    await store.enqueue(wanted, now_us=now_us)


async def take_due(
    tx: Transaction, *, now_us: int, lease_us: int, most: int, but: Sequence[str]
) -> list[tuple[Endpoint, Delivery]]:
    """Take what is due, some of each endpoint but of those that are named, each with its endpoint."""
    store = WebhookStore(tx)
    deliveries = await store.take(now_us=now_us, again_us=now_us + lease_us, most=most, but=but)
    if not deliveries:
        return []
    endpoints = {endpoint.endpoint_id: endpoint for endpoint in await store.all()}
    return [(endpoints[each.endpoint_id], each) for each in deliveries]


async def remember_outcomes(
    tx: Transaction, outcomes: Sequence[tuple[Delivery, Outcome]], *, delays: Sequence[float], now_us: int
) -> None:
    """Remember how attempts ended, and stop sending to endpoints that take nothing any more."""
    store = WebhookStore(tx)
    results = [_judged(delivery, outcome, delays, now_us) for delivery, outcome in outcomes]
    await store.done(results, now_us=now_us)
    patience_us = int(sum(delays) * 1e6)
    for result in results:
        if result.last_status == GONE:
            await _disable(tx, result.endpoint_id, "it answered that it is gone (410)", since_us=now_us + 1)
        elif result.state is State.DEAD:
            reason = f"it has taken nothing since a message was first tried: {result.last_error}"
            await _disable(tx, result.endpoint_id, reason, since_us=now_us - patience_us)


async def _disable(tx: Transaction, endpoint_id: str, reason: str, *, since_us: int) -> None:
    if await WebhookStore(tx).disable(endpoint_id, reason, unless_success_since_us=since_us):
        tx.publish(endpoint_disabled(endpoint_id, reason))


def _judged(delivery: Delivery, outcome: Outcome, delays: Sequence[float], now_us: int) -> Delivery:
    state, wait = State.DELIVERED, 0.0
    if not outcome.is_success:
        found = wait_seconds(delays, delivery.attempts + 1, outcome, random.random())  # noqa: S311  no secret
        gone = found is None or outcome.status == GONE
        state, wait = (State.DEAD, 0.0) if gone or found is None else (State.PENDING, found)
    return replace(
        delivery,
        state=state,
        last_status=outcome.status,
        last_error=outcome.error,
        next_attempt_us=now_us + int(wait * 1e6),
    )


async def list_deliveries(
    tx: Transaction, endpoint_id: str, *, state: int, before: tuple[int, str] | None, most: int
) -> list[Delivery]:
    """Return what was sent to an endpoint or waits for it."""
    await get_endpoint(tx, endpoint_id)
    return await WebhookStore(tx).page(endpoint_id, state=state, before=before, most=most)


async def replay_deliveries(tx: Transaction, endpoint_id: str, webhook_ids: Sequence[str], *, now_us: int) -> int:
    """Send again what is named, or all that is dead."""
    await get_endpoint(tx, endpoint_id)
    return await WebhookStore(tx).replay(endpoint_id, webhook_ids, now_us=now_us)


async def forget_deliveries(tx: Transaction, *, before_us: int) -> bool:
    """Forget some deliveries of old events; tells whether there may be more."""
    return await WebhookStore(tx).forget(before_us=before_us, most=_FORGET_AT_ONCE) == _FORGET_AT_ONCE


def _found(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise NotFound("no such endpoint")
    return endpoint
