# SPDX-License-Identifier: Apache-2.0
"""Records on legal hold: in a schema of their own, which nothing else reads."""

from collections.abc import Collection, Sequence

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row, opened

from svc_profile.domain.legal_hold import HeldRecord
from svc_profile.store.sealed import EVENTS, HELD, held_row

_PUT = """
INSERT INTO legal_hold.records (data_request_id, event, event_time_us, law, held_time_us, expire_time_us, payload)
SELECT request_id, event, event_time_us, law, :now_us, expire_time_us, payload FROM unnest(
    CAST(:requests AS text[]), CAST(:events AS text[]), CAST(:times AS bigint[]), CAST(:laws AS text[]),
    CAST(:expiries AS bigint[]), CAST(:payloads AS bytea[])
) AS g (request_id, event, event_time_us, law, expire_time_us, payload)
"""

_PAGE = """
SELECT * FROM legal_hold.records
WHERE (:request_id = '' OR data_request_id = :request_id)
    AND (CAST(:before AS bigint) IS NULL OR record_id < CAST(:before AS bigint))
ORDER BY record_id DESC LIMIT :most
"""

_DESTROY = """
DELETE FROM legal_hold.records WHERE record_id = ANY (ARRAY(
    SELECT record_id FROM legal_hold.records WHERE expire_time_us <= :now_us ORDER BY expire_time_us LIMIT :most
))
"""

_OF_CUSTOMER = """
SELECT event_key, name, time_us, payload FROM events
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND name = ANY (CAST(:names AS text[])) AND payload IS NOT NULL
"""

_REQUEST = """
SELECT data_request_id FROM data_requests
WHERE state = 2 AND kind = 5 AND fragment_ids && CAST(:fragments AS uuid[]) ORDER BY data_request_id LIMIT 1
"""


class LegalHoldStore:
    """Keeps records on hold."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def put(self, records: Sequence[HeldRecord], now_us: int) -> None:
        """Set records apart."""
        if records:
            seal = self._tx.sealer.seal
            await self._tx.execute(
                _PUT,
                now_us=now_us,
                requests=[record.data_request_id for record in records],
                events=[record.event for record in records],
                times=[record.event_time_us for record in records],
                laws=[record.law for record in records],
                expiries=[record.expire_time_us for record in records],
                payloads=[seal(HELD, _row_id(record), record.payload) for record in records],
            )

    async def page(self, request_id: str, *, before: int | None, most: int) -> list[HeldRecord]:
        """Return records of one erasure or of all, newest first."""
        rows = await self._tx.rows(_PAGE, request_id=request_id, before=before, most=most)
        payloads = await opened(
            self._tx,
            [Row(HELD, held_row(row.data_request_id, row.event, row.event_time_us), row.payload) for row in rows],
        )
        return [
            HeldRecord(
                row.data_request_id,
                row.event,
                row.event_time_us,
                row.law,
                row.expire_time_us,
                payload or b"",
                row.record_id,
                row.held_time_us,
            )
            for row, payload in zip(rows, payloads, strict=True)
        ]

    async def counts(self, request_id: str) -> dict[str, int]:
        """Return how many records of an erasure each law demands."""
        sql = (
            "SELECT law, count(*) AS held FROM legal_hold.records WHERE data_request_id = :id GROUP BY law ORDER BY law"
        )
        return {row.law: row.held for row in await self._tx.rows(sql, id=request_id)}

    async def destroy(self, now_us: int, most: int) -> int:
        """Delete records whose time is over; returns how many, at most `most`."""
        return await self._tx.execute(_DESTROY, now_us=now_us, most=most)

    async def running_erasure(self, fragments: Collection[bytes]) -> str:
        """Return the erasure that runs for a customer, empty when none does."""
        found = await self._tx.value(_REQUEST, fragments=[UUID(each) for each in fragments])
        return str(found or "")

    async def events_of(self, fragments: Collection[bytes], names: Collection[str]) -> list[tuple[str, int, bytes]]:
        """Return name, time and content of a customer's events of some names."""
        rows = await self._tx.rows(_OF_CUSTOMER, fragments=[UUID(each) for each in fragments], names=list(names))
        payloads = await opened(self._tx, [Row(EVENTS, row.event_key.bytes, row.payload) for row in rows])
        return [(row.name, row.time_us, payload or b"") for row, payload in zip(rows, payloads, strict=True)]


def _row_id(record: HeldRecord) -> bytes:
    return held_row(record.data_request_id, record.event, record.event_time_us)
