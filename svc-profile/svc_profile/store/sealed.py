# SPDX-License-Identifier: Apache-2.0
"""Which columns are sealed when there are keys, and what their values are bound to."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
from chassis.database import Transaction
from chassis.encryption.columns import SealedColumn
from chassis.encryption.vault import Row, opened, opened_texts, opened_values

from svc_profile.domain.claims import DERIVED

EVENTS = "events.payload"
REJECTED = "rejected_events.body"
HELD = "legal_hold.records.payload"
SUBJECT = "interactions.subject"
TEXT = "interactions.text"
OUTCOME = "interactions.outcome"
IDENTIFIER = "fragments.value"
TRAITS = "fragments.traits"
ENTRY = "search_entries.text"
FOUND = "search_entries.value"

_INTERACTION = "convert_to(interaction_id, 'UTF8')"

COLUMNS = (
    SealedColumn("events", "payload", "event_key", "uuid", "uuid_send(event_key)"),
    SealedColumn(
        "rejected_events",
        "body",
        "rejected_event_id",
        "bigint",
        "convert_to(message_id || E'\\n' || received_time_us || E'\\n' || position, 'UTF8')",
    ),
    SealedColumn(
        "legal_hold.records",
        "payload",
        "record_id",
        "bigint",
        "convert_to(data_request_id || E'\\n' || event || E'\\n' || event_time_us, 'UTF8')",
        is_searched=False,
    ),
    # The name of a derived fragment is made of other fragments, and read by statements.
    SealedColumn(
        "fragments",
        "value",
        "fragment_id",
        "uuid",
        "uuid_send(fragment_id)",
        is_text=True,
        among=f"namespace <> '{DERIVED}'",
    ),
    SealedColumn(
        "fragments", "traits", "fragment_id", "uuid", "uuid_send(fragment_id)", is_json=True, among="traits <> '{}'"
    ),
    SealedColumn("interactions", "subject", "interaction_id", "text", _INTERACTION, is_text=True),
    SealedColumn("interactions", "text", "interaction_id", "text", _INTERACTION, is_text=True),
    SealedColumn("interactions", "outcome", "interaction_id", "text", _INTERACTION, is_text=True),
)


def rejected_row(message_id: str, received_time_us: int, position: int) -> bytes:
    """Return what the body of a rejected event is bound to."""
    return f"{message_id}\n{received_time_us}\n{position}".encode()


def sealed_body(row: Any) -> Row:
    """Return the body of a row of rejected events, to be opened."""
    return Row(REJECTED, rejected_row(row.message_id, row.received_time_us, row.position), row.body, is_foreign=True)


def held_row(data_request_id: str, event: str, event_time_us: int) -> bytes:
    """Return what a record on hold is bound to."""
    return f"{data_request_id}\n{event}\n{event_time_us}".encode()


async def reveal(tx: Transaction, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Open what is sealed in a row that is exported, as JSON of PostgreSQL."""
    if table == "events" and row.get("payload"):
        key = bytes.fromhex(row["event_key"].replace("-", ""))
        sealed = bytes.fromhex(row["payload"].removeprefix("\\x"))
        (value,) = await opened(tx, [Row(EVENTS, key, sealed)])
        return {**row, "payload": f"\\x{(value or b'').hex()}"}
    if table == "fragments":
        row_id = bytes.fromhex(row["fragment_id"].replace("-", ""))
        (name,) = await opened_texts(tx, [(IDENTIFIER, row_id, row["value"])])
        (traits,) = await opened_values(tx, [(TRAITS, row_id, msgspec.json.encode(row["traits"]).decode())])
        return {**row, "value": name, "traits": msgspec.json.decode(traits)}
    if table == "interactions":
        row_id = row["interaction_id"].encode()
        names = {"subject": SUBJECT, "text": TEXT, "outcome": OUTCOME}
        texts = await opened_texts(tx, [(column, row_id, row[name]) for name, column in names.items()])
        return {**row, **dict(zip(names, texts, strict=True))}
    return row


def seal_identifier(tx: Transaction, fragment: bytes, namespace: str, value: str) -> str:
    """Seal the value of an identifier."""
    return value if namespace == DERIVED else tx.sealer.seal_text(IDENTIFIER, fragment, value)


async def revealed(
    tx: Transaction, rows: Sequence[Any], identifiers: Mapping[str, str], traits: Mapping[str, str] = {}
) -> Sequence[Any]:
    """Return rows with what is sealed of fragments opened: names of columns, each with that of the fragment's id."""
    if tx.vault is None or not tx.sealer.is_on:
        return rows
    found = [dict(row._mapping) for row in rows]
    for column, id_column in identifiers.items():
        sealed = [(IDENTIFIER, row[id_column].bytes, row[column] or "") for row in found]
        for row, value in zip(found, await opened_texts(tx, sealed), strict=True):
            row[column] = value
    for column, id_column in traits.items():
        sealed = [(TRAITS, row[id_column].bytes, row[column] or "{}") for row in found]
        for row, value in zip(found, await opened_values(tx, sealed), strict=True):
            row[column] = value
    return [SimpleNamespace(**row) for row in found]


async def revealed_fragments(tx: Transaction, rows: Sequence[Any]) -> Sequence[Any]:
    """Return rows of fragments with identifier and traits opened."""
    return await revealed(tx, rows, {"value": "fragment_id"}, {"traits": "fragment_id"})
