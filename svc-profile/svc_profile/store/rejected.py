# SPDX-License-Identifier: Apache-2.0
"""Events that were not taken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chassis.database import Transaction
from chassis.encryption.vault import opened

from svc_profile.domain.fragments import storable_text
from svc_profile.domain.rejects import RejectedEvent
from svc_profile.store.sealed import REJECTED, rejected_row, sealed_body

_PUT = """
INSERT INTO rejected_events (message_id, source, reason, detail, position, received_time_us, body)
SELECT * FROM unnest(
    CAST(:message_ids AS text[]), CAST(:sources AS text[]), CAST(:reasons AS text[]), CAST(:details AS text[]),
    CAST(:positions AS integer[]), CAST(:received AS bigint[]), CAST(:bodies AS bytea[])
)
"""

_LIST = """
SELECT rejected_event_id, message_id, source, reason, detail, position, received_time_us, body FROM rejected_events
WHERE (received_time_us, rejected_event_id) < (CAST(:before_us AS bigint), CAST(:before_id AS bigint))
    AND (:message_id = '' OR message_id = :message_id)
    AND (:reason = '' OR reason = :reason)
    AND (:source = '' OR source = :source)
    AND (CAST(:start_us AS bigint) IS NULL OR received_time_us >= :start_us)
    AND (CAST(:end_us AS bigint) IS NULL OR received_time_us < :end_us)
ORDER BY received_time_us DESC, rejected_event_id DESC LIMIT :most
"""

_FORGET = """
DELETE FROM rejected_events WHERE rejected_event_id = ANY (ARRAY(
    SELECT rejected_event_id FROM rejected_events WHERE received_time_us < :before_us LIMIT :most
))
"""

_NEWEST = (2**63 - 1, 2**63 - 1)


@dataclass(frozen=True)
class Filter:
    """Which rejected events are wanted; an empty text is any, a time of None is no limit."""

    message_id: str = ""
    reason: str = ""
    source: str = ""
    start_us: int | None = None
    """Received at this time or later."""
    end_us: int | None = None
    """Received before this time."""


class RejectedStore:
    """Keeps events that were not taken."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, events: Sequence[RejectedEvent]) -> None:
        """Keep some more."""
        if not events:
            return
        seal = self._tx.sealer.seal
        await self._tx.execute(
            _PUT,
            message_ids=[storable_text(event.message_id) for event in events],
            sources=[storable_text(event.source) for event in events],
            reasons=[storable_text(event.reason) for event in events],
            details=[storable_text(event.detail) for event in events],
            positions=[event.position for event in events],
            received=[event.received_time_us for event in events],
            bodies=[seal(REJECTED, _row_id(event), event.body) for event in events],
        )

    async def page(
        self, wanted: Filter, *, before: tuple[int, int] | None, most: int
    ) -> list[tuple[tuple[int, int], RejectedEvent]]:
        """Return the newest before a position, each with its own position."""
        before = before or _NEWEST
        rows: Sequence[Any] = await self._tx.rows(
            _LIST,
            before_us=before[0],
            before_id=before[1],
            **asdict(wanted),
            most=most,
        )
        bodies = await opened(self._tx, [sealed_body(row) for row in rows])
        return [
            ((row.received_time_us, row.rejected_event_id), RejectedEvent(*[*row[1:-1], body or b""]))
            for row, body in zip(rows, bodies, strict=True)
        ]

    async def forget(self, *, before_us: int, most: int) -> int:
        """Forget what was received before a time; returns how many were forgotten, at most `most`."""
        return await self._tx.execute(_FORGET, before_us=before_us, most=most)


def _row_id(event: RejectedEvent) -> bytes:
    return rejected_row(storable_text(event.message_id), event.received_time_us, event.position)
