# SPDX-License-Identifier: Apache-2.0
"""Endpoints of webhooks, and what waits for them."""

from collections.abc import Sequence
from typing import Any

from chassis.database import Transaction
from chassis.encryption.vault import opened
from sqlalchemy import Row

from svc_profile.domain.webhooks import Delivery, Endpoint, Message, State
from svc_profile.store.sealed import SENT, row_of, sealed_message

_ADD = """
INSERT INTO webhook_endpoints (endpoint_id, url, event_types, description, disabled, create_time_us)
VALUES (:endpoint_id, :url, CAST(:event_types AS text[]), :description, :disabled, :create_time_us)
"""
_COUNT = "SELECT count(*) FROM webhook_endpoints"
_FIND = "SELECT * FROM webhook_endpoints WHERE endpoint_id = :endpoint_id"
_LOCK = "SELECT * FROM webhook_endpoints WHERE endpoint_id = :endpoint_id FOR UPDATE"
_LIST = "SELECT * FROM webhook_endpoints ORDER BY endpoint_id"
_PUT = """
UPDATE webhook_endpoints SET url = :url, event_types = CAST(:event_types AS text[]), description = :description,
    disabled = :disabled, disabled_reason = :disabled_reason, secret_number = :secret_number,
    former_secret_until_us = :former_secret_until_us
WHERE endpoint_id = :endpoint_id
"""
_DELETE = "DELETE FROM webhook_endpoints WHERE endpoint_id = :endpoint_id"

_ENQUEUE = """
INSERT INTO webhook_deliveries (endpoint_id, webhook_id, event_type, event_time_us, body, next_attempt_us)
SELECT * FROM unnest(
    CAST(:endpoints AS text[]), CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:times AS bigint[]),
    CAST(:bodies AS bytea[]), CAST(:due AS bigint[])
) ON CONFLICT DO NOTHING
"""

# What is taken is due again when its time is over: whoever took it has died then.
_TAKE = """
UPDATE webhook_deliveries AS d SET next_attempt_us = :again_us
FROM webhook_endpoints AS e CROSS JOIN LATERAL (
    SELECT endpoint_id, webhook_id FROM webhook_deliveries
    WHERE endpoint_id = e.endpoint_id AND state = 1 AND next_attempt_us <= :now_us
    ORDER BY next_attempt_us LIMIT :most FOR UPDATE SKIP LOCKED
) AS due
WHERE NOT e.disabled AND e.endpoint_id <> ALL (CAST(:but AS text[]))
    AND d.endpoint_id = due.endpoint_id AND d.webhook_id = due.webhook_id
RETURNING d.*
"""
_DONE = """
UPDATE webhook_deliveries AS d SET state = g.state, attempts = d.attempts + 1, last_status = g.status,
    last_error = g.error, last_attempt_us = :now_us, next_attempt_us = g.next_us
FROM unnest(
    CAST(:endpoints AS text[]), CAST(:ids AS text[]), CAST(:states AS smallint[]), CAST(:statuses AS integer[]),
    CAST(:errors AS text[]), CAST(:next AS bigint[])
) AS g (endpoint_id, webhook_id, state, status, error, next_us)
WHERE d.endpoint_id = g.endpoint_id AND d.webhook_id = g.webhook_id
"""
_SUCCEEDED = """
UPDATE webhook_endpoints SET last_success_us = :now_us WHERE endpoint_id = ANY (CAST(:endpoints AS text[]))
"""
_DISABLE = """
UPDATE webhook_endpoints SET disabled = true, disabled_reason = :reason
WHERE endpoint_id = :endpoint_id AND NOT disabled AND coalesce(last_success_us, 0) < :before_us
"""

_PAGE = """
SELECT * FROM webhook_deliveries
WHERE endpoint_id = :endpoint_id AND (:state = 0 OR state = :state)
    AND (event_time_us, webhook_id) < (CAST(:before_us AS bigint), CAST(:before_id AS text))
ORDER BY event_time_us DESC, webhook_id DESC LIMIT :most
"""
_REPLAY = """
UPDATE webhook_deliveries SET state = 1, attempts = 0, next_attempt_us = :now_us
WHERE endpoint_id = :endpoint_id AND CASE
    WHEN cardinality(CAST(:ids AS text[])) = 0 THEN state = 3 ELSE webhook_id = ANY (CAST(:ids AS text[])) END
"""
_FORGET = """
DELETE FROM webhook_deliveries WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM webhook_deliveries WHERE event_time_us < :before_us LIMIT :most
))
"""

_NEWEST = (2**63 - 1, "\U0010ffff")


class WebhookStore:
    """Keeps endpoints and deliveries."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, endpoint: Endpoint) -> None:
        """Keep a new endpoint."""
        await self._tx.execute(
            _ADD,
            endpoint_id=endpoint.endpoint_id,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            description=endpoint.description,
            disabled=endpoint.disabled,
            create_time_us=endpoint.create_time_us,
        )

    async def count(self) -> int:
        """Return how many endpoints there are."""
        return int(await self._tx.value(_COUNT))

    async def find(self, endpoint_id: str, *, lock: bool = False) -> Endpoint | None:
        """Return an endpoint."""
        row = await self._tx.row(_LOCK if lock else _FIND, endpoint_id=endpoint_id)
        return _endpoint(row) if row else None

    async def all(self) -> list[Endpoint]:
        """Return all endpoints, oldest first."""
        return [_endpoint(row) for row in await self._tx.rows(_LIST)]

    async def put(self, endpoint: Endpoint) -> None:
        """Keep what has changed."""
        await self._tx.execute(
            _PUT,
            endpoint_id=endpoint.endpoint_id,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            description=endpoint.description,
            disabled=endpoint.disabled,
            disabled_reason=endpoint.disabled_reason,
            secret_number=endpoint.secret_number,
            former_secret_until_us=endpoint.former_secret_until_us,
        )

    async def delete(self, endpoint_id: str) -> bool:
        """Forget an endpoint and what waits for it; False when there is none."""
        return bool(await self._tx.execute(_DELETE, endpoint_id=endpoint_id))

    async def enqueue(self, wanted: Sequence[tuple[str, Message]], *, now_us: int) -> None:
        """Let messages wait for endpoints; what waits already is not added again."""
        if not wanted:
            return
        seal = self._tx.sealer.seal
        await self._tx.execute(
            _ENQUEUE,
            endpoints=[endpoint_id for endpoint_id, _ in wanted],
            ids=[message.webhook_id for _, message in wanted],
            types=[message.event_type for _, message in wanted],
            times=[message.event_time_us for _, message in wanted],
            bodies=[
                seal(SENT, row_of(endpoint_id, message.webhook_id), message.body) for endpoint_id, message in wanted
            ],
            due=[now_us] * len(wanted),
        )

    async def take(self, *, now_us: int, again_us: int, most: int, but: Sequence[str]) -> list[Delivery]:
        """Take what is due, at most some of each endpoint, none of those that are named."""
        rows = await self._tx.rows(_TAKE, now_us=now_us, again_us=again_us, most=most, but=list(but))
        return await self._deliveries(rows)

    async def done(self, results: Sequence[Delivery], *, now_us: int) -> None:
        """Remember how attempts ended: state, status, error and next time of each."""
        await self._tx.execute(
            _DONE,
            now_us=now_us,
            endpoints=[each.endpoint_id for each in results],
            ids=[each.message.webhook_id for each in results],
            states=[int(each.state) for each in results],
            statuses=[each.last_status for each in results],
            errors=[each.last_error for each in results],
            next=[each.next_attempt_us for each in results],
        )
        succeeded = sorted({each.endpoint_id for each in results if each.state is State.DELIVERED})
        if succeeded:
            await self._tx.execute(_SUCCEEDED, endpoints=succeeded, now_us=now_us)

    async def disable(self, endpoint_id: str, reason: str, *, unless_success_since_us: int) -> bool:
        """Stop sending to an endpoint; False when it has taken something since, or was disabled before."""
        return bool(
            await self._tx.execute(_DISABLE, endpoint_id=endpoint_id, reason=reason, before_us=unless_success_since_us)
        )

    async def page(self, endpoint_id: str, *, state: int, before: tuple[int, str] | None, most: int) -> list[Delivery]:
        """Return deliveries, newest event first."""
        before = before or _NEWEST
        rows = await self._tx.rows(
            _PAGE, endpoint_id=endpoint_id, state=state, before_us=before[0], before_id=before[1], most=most
        )
        return await self._deliveries(rows)

    async def replay(self, endpoint_id: str, webhook_ids: Sequence[str], *, now_us: int) -> int:
        """Let deliveries wait for a first attempt again: those that are named, or all that are dead."""
        return await self._tx.execute(_REPLAY, endpoint_id=endpoint_id, ids=list(webhook_ids), now_us=now_us)

    async def forget(self, *, before_us: int, most: int) -> int:
        """Forget deliveries of old events; returns how many, at most `most`."""
        return await self._tx.execute(_FORGET, before_us=before_us, most=most)

    async def _deliveries(self, rows: Sequence[Row[Any]]) -> list[Delivery]:
        bodies = await opened(self._tx, [sealed_message(row) for row in rows])
        return [_delivery(row, body or b"") for row, body in zip(rows, bodies, strict=True)]


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        endpoint_id=row.endpoint_id,
        url=row.url,
        event_types=tuple(row.event_types),
        description=row.description,
        disabled=row.disabled,
        disabled_reason=row.disabled_reason,
        create_time_us=row.create_time_us,
        secret_number=row.secret_number,
        former_secret_until_us=row.former_secret_until_us,
        last_success_us=row.last_success_us,
    )


def _delivery(row: Row[Any], body: bytes) -> Delivery:
    return Delivery(
        endpoint_id=row.endpoint_id,
        message=Message(row.webhook_id, row.event_type, row.event_time_us, body),
        state=State(row.state),
        attempts=row.attempts,
        last_status=row.last_status,
        last_error=row.last_error,
        last_attempt_us=row.last_attempt_us,
        next_attempt_us=row.next_attempt_us,
    )
