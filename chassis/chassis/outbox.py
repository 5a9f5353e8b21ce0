# SPDX-License-Identifier: Apache-2.0
"""Publish what transactions announced: rows of the outbox become messages of the DOMAIN stream, at least once."""

import asyncio
import logging

from chassis import telemetry
from chassis.bus import Bus, Outgoing
from chassis.database import OUTBOX_PAYLOAD, Database, lost_connection
from chassis.encryption.vault import Row, opened
from chassis.errors import Unavailable

log = logging.getLogger(__name__)

_BATCH = 200
_IDLE_S = 1.0
_RETRY_S = 0.5

# SKIP LOCKED lets every process run a relay; the broker drops what two of them publish both.
_TAKE = """
DELETE FROM outbox WHERE outbox_id IN (
    SELECT outbox_id FROM outbox ORDER BY outbox_id LIMIT :batch FOR UPDATE SKIP LOCKED
) RETURNING outbox_id, message_id, subject, type, payload, headers
"""


class Relay:
    """Moves the outbox of one database to JetStream."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._wake = asyncio.Event()
        self._stopping = False
        database.on_announced(self._wake.set)

    def stop(self) -> None:
        """Finish what is in hand."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Publish until stopped: at once after a commit in this process, every second for the others'."""
        while not self._stopping:
            self._wake.clear()
            try:
                while await self._publish_some() == _BATCH:
                    pass
            except Exception as error:
                if not isinstance(error, Unavailable) and not lost_connection(error):
                    log.exception("the outbox relay failed")
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), _IDLE_S)
            except TimeoutError:
                continue

    async def _publish_some(self) -> int:
        """Publish one batch; the rows are gone only if the broker has stored them all."""
        async with self._database.transaction() as tx:
            rows = sorted(await tx.rows(_TAKE, batch=_BATCH))
            telemetry.OUTBOX.set(len(rows))
            payloads = await opened(tx, [Row(OUTBOX_PAYLOAD, row.message_id.encode(), row.payload) for row in rows])
            await self._bus.publish_all(
                Outgoing(
                    subject=row.subject,
                    payload=payload or b"",
                    message_id=row.message_id,
                    type=row.type,
                    headers={"traceparent": row.headers} if row.headers else None,
                )
                for row, payload in zip(rows, payloads, strict=True)
            )
        return len(rows)
