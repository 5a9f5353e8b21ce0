# SPDX-License-Identifier: Apache-2.0
"""The ledger of consent: rows that prove one another.

Each row has a hash of its salted content, and the chain hashes these. So what a row says can be erased, content and
salt, when a customer has the right to it: the row's own hash stays and holds the chain together, and nobody can guess
the content back from it. Any other change, a row taken out, added or moved, breaks the chain from there on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from svc_profile.domain.consent import Answer, Entry
from svc_profile.domain.events import FragmentKey

FIRST_HASH = bytes(32)
"""What the first row is chained to."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """What one row of the ledger says."""

    fragment: FragmentKey
    purpose_id: str
    answer: Answer
    time_us: int
    """When it was said; for what a device repeats with each event, when it began to."""
    received_time_us: int
    event_key: bytes
    """Names the event or the call that brought it."""
    device: FragmentKey = b""
    """The device that repeats it with each event; of these only the latest row of a device counts."""
    notice_version: int = 0
    locale: str = ""
    channel: str = ""
    actor: str = ""
    source: str = ""
    message_id: str = ""
    reason: str = ""
    """Why it was not written as it was said; empty normally."""
    recorded_us: int = 0
    sequence: int = 0

    def entry(self) -> Entry:
        """Return what the state depends on."""
        return Entry(
            self.fragment,
            self.purpose_id,
            self.answer,
            self.time_us,
            self.event_key,
            self.received_time_us,
            self.sequence,
        )


def entries_of(records: Iterable[Record]) -> list[Entry]:
    """Return what counts of some rows: of what a device repeats, only what was written last."""
    counting: dict[tuple[bytes, ...], Record] = {}
    for record in records:
        key = (record.fragment, record.device, record.purpose_id.encode()) if record.device else (_number(record),)
        known = counting.get(key)
        if known is None or known.sequence < record.sequence:
            counting[key] = record
    return [record.entry() for record in counting.values()]


def _number(record: Record) -> bytes:
    return record.event_key + record.purpose_id.encode() + record.sequence.to_bytes(8, "big")


@dataclass(frozen=True)
class Row:
    """One row as it is kept."""

    sequence: int
    record: Record | None
    """None when the content was lawfully erased."""
    salt: bytes
    row_hash: bytes
    hash: bytes
    redaction_request_id: str = ""


def row_hash(record: Record, salt: bytes) -> bytes:
    """Hash the content of a row with its salt."""
    return sha256(salt + msgspec.json.encode(record)).digest()


def chain_hash(before: bytes, of_row: bytes) -> bytes:
    """Hash a row's hash onto the chain."""
    return sha256(before + of_row).digest()


@dataclass(frozen=True)
class Verdict:
    """What verifying found."""

    valid: bool
    record_count: int
    redacted_count: int
    hash: bytes
    """Of the last row that fits."""
    broken_sequence: int = 0
    problem: str = ""


def verify(rows: Iterable[Row], so_far: Verdict, sequence: int) -> Verdict:
    """Check rows that follow one another from `sequence` on; goes on where an earlier verdict ended."""
    for number, row in enumerate(rows, sequence):
        problem = _problem(row, number, so_far.hash)
        if problem:
            return replace(so_far, valid=False, broken_sequence=number, problem=problem)
        so_far = replace(
            so_far,
            record_count=so_far.record_count + 1,
            redacted_count=so_far.redacted_count + (row.record is None),
            hash=row.hash,
        )
    return so_far


def _problem(row: Row, number: int, before: bytes) -> str:
    if row.sequence != number:
        return "the record is missing"
    if row.record is None and not row.redaction_request_id:
        return "its content is gone, and no request asked for that"
    if row.record is not None and row_hash(row.record, row.salt) != row.row_hash:
        return "its content is not what was written"
    if chain_hash(before, row.row_hash) != row.hash:
        return "it does not follow from the record before"
    return ""
