# SPDX-License-Identifier: Apache-2.0
"""The ledger of consent: appended to by one transaction at a time, never changed, erased only row by row."""

import os
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction

from svc_profile.domain.consent import Answer
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.ledger import FIRST_HASH, Record, Row, chain_hash, row_hash

_SALT_BYTES = 16

# Two halves of one 64-bit key. It comes after row locks of fragments and after the identity lock, and whoever holds it
# waits for nobody.
_LOCK = "SELECT pg_advisory_xact_lock(9, 1)"

_LAST = "SELECT sequence, hash FROM consent_ledger ORDER BY sequence DESC LIMIT 1"

_KNOWN = """
SELECT l.* FROM unnest(CAST(:keys AS uuid[]), CAST(:purposes AS text[])) AS g (event_key, purpose_id)
JOIN consent_ledger l USING (event_key, purpose_id)
"""

_APPEND = """
INSERT INTO consent_ledger (
    sequence, fragment_id, purpose_id, answer, time_us, received_time_us, event_key, device_id, notice_version,
    locale, channel, actor, source, message_id, reason, recorded_us, salt, row_hash, hash
)
SELECT * FROM unnest(
    CAST(:sequences AS bigint[]), CAST(:fragments AS uuid[]), CAST(:purposes AS text[]), CAST(:answers AS text[]),
    CAST(:times AS bigint[]), CAST(:received AS bigint[]), CAST(:keys AS uuid[]), CAST(:devices AS uuid[]),
    CAST(:versions AS integer[]), CAST(:locales AS text[]), CAST(:channels AS text[]), CAST(:actors AS text[]),
    CAST(:sources AS text[]), CAST(:message_ids AS text[]), CAST(:reasons AS text[]), CAST(:recorded AS bigint[]),
    CAST(:salts AS bytea[]), CAST(:row_hashes AS bytea[]), CAST(:hashes AS bytea[])
)
"""

_OF_FRAGMENTS = """
SELECT * FROM consent_ledger WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

_PAGE = """
SELECT * FROM consent_ledger
WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
    AND (CAST(:purpose_id AS text) = '' OR purpose_id = :purpose_id)
    AND (CAST(:before AS bigint) IS NULL OR sequence < :before)
ORDER BY sequence DESC LIMIT :most
"""


class LedgerStore:
    """Keeps what customers said, and the chain that proves it."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def append(self, records: Sequence[Record], now_us: int) -> list[Record]:
        """Append rows that are new, in their order; returns every given one as it stands in the ledger."""
        if not records:
            return []
        await self._tx.execute(_LOCK)
        known = await self._known(records)
        last = await self._tx.row(_LAST)
        sequence, before = (last.sequence, last.hash) if last else (0, FIRST_HASH)
        rows: dict[tuple[bytes, str], Row] = {}
        for record in records:
            key = record.event_key, record.purpose_id
            if key in known or key in rows:
                continue
            sequence += 1
            written = msgspec.structs.replace(record, sequence=sequence, recorded_us=now_us)
            salt = os.urandom(_SALT_BYTES)
            of_row = row_hash(written, salt)
            before = chain_hash(before, of_row)
            rows[key] = Row(sequence, written, salt, of_row, before)
        await self._insert(list(rows.values()))
        found = known | {key: row.record for key, row in rows.items() if row.record is not None}
        return [found[record.event_key, record.purpose_id] for record in records]

    async def _known(self, records: Sequence[Record]) -> dict[tuple[bytes, str], Record]:
        rows = await self._tx.rows(
            _KNOWN,
            keys=[UUID(record.event_key) for record in records],
            purposes=[record.purpose_id for record in records],
        )
        return {(record.event_key, record.purpose_id): record for record in map(_record, rows)}

    async def _insert(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        records = [row.record for row in rows if row.record is not None]
        await self._tx.execute(
            _APPEND,
            sequences=[row.sequence for row in rows],
            fragments=[UUID(record.fragment) for record in records],
            purposes=[record.purpose_id for record in records],
            answers=[record.answer.value for record in records],
            times=[record.time_us for record in records],
            received=[record.received_time_us for record in records],
            keys=[UUID(record.event_key) for record in records],
            devices=[UUID(record.device) if record.device else None for record in records],
            versions=[record.notice_version for record in records],
            locales=[record.locale for record in records],
            channels=[record.channel for record in records],
            actors=[record.actor for record in records],
            sources=[record.source for record in records],
            message_ids=[record.message_id for record in records],
            reasons=[record.reason for record in records],
            recorded=[record.recorded_us for record in records],
            salts=[row.salt for row in rows],
            row_hashes=[row.row_hash for row in rows],
            hashes=[row.hash for row in rows],
        )

    async def of_fragments(self, fragments: Collection[FragmentKey]) -> list[Record]:
        """Return all rows of some fragments."""
        if not fragments:
            return []
        rows = await self._tx.rows(_OF_FRAGMENTS, fragments=[UUID(each) for each in fragments])
        return [_record(row) for row in rows]

    async def page(
        self, fragments: Collection[FragmentKey], *, purpose_id: str, before: int | None, most: int
    ) -> list[Row]:
        """Return rows of some fragments, newest first."""
        rows = await self._tx.rows(
            _PAGE,
            fragments=[UUID(each) for each in fragments],
            purpose_id=purpose_id,
            before=before,
            most=most,
        )
        return [_row(row) for row in rows]

    async def with_hashes(self, sequences: Collection[int]) -> dict[int, Row]:
        """Return rows by their place."""
        if not sequences:
            return {}
        rows = await self._tx.rows(
            "SELECT * FROM consent_ledger WHERE sequence = ANY (CAST(:sequences AS bigint[]))",
            sequences=list(sequences),
        )
        return {row.sequence: _row(row) for row in rows}

    async def next_rows(self, after: int, most: int) -> list[Row]:
        """Return the rows after a place in the chain, in its order."""
        rows = await self._tx.rows(
            "SELECT * FROM consent_ledger WHERE sequence > :after ORDER BY sequence LIMIT :most", after=after, most=most
        )
        return [_row(row) for row in rows]

    async def hash_at(self, sequence: int) -> bytes | None:
        """Return the chain's hash at a place, None when nothing is there."""
        value: bytes | None = await self._tx.value(
            "SELECT hash FROM consent_ledger WHERE sequence = :sequence", sequence=sequence
        )
        return value


def _row(row: Any) -> Row:
    return Row(
        sequence=row.sequence,
        record=None if row.salt is None else _read(row),
        salt=row.salt or b"",
        row_hash=row.row_hash,
        hash=row.hash,
        redaction_request_id=row.redaction_request_id,
    )


def _read(row: Any) -> Record:
    """Read a row whoever wrote it: one that is no record any more is one that fits nothing."""
    try:
        return _record(row)
    except (ValueError, AttributeError):
        return Record(b"", "", Answer.DENIED, 0, 0, b"")


def _record(row: Any) -> Record:
    return Record(
        fragment=row.fragment_id.bytes,
        purpose_id=row.purpose_id,
        answer=Answer(row.answer),
        time_us=row.time_us,
        received_time_us=row.received_time_us,
        event_key=row.event_key.bytes,
        device=row.device_id.bytes if row.device_id else b"",
        notice_version=row.notice_version,
        locale=row.locale,
        channel=row.channel,
        actor=row.actor,
        source=row.source,
        message_id=row.message_id,
        reason=row.reason,
        recorded_us=row.recorded_us,
        sequence=row.sequence,
    )
