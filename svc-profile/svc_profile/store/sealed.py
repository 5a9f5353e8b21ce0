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
GROUP_TRAITS = "groups.traits"
UPLOADED = "import_chunks.data"
REFUSED_RULE = "import_rejects.rule"
REFUSED_ROW = "import_rejects.body"
EXPORTED = "export_chunks.data"
DRAFTED = "export_drafts.data"
PSEUDONYM_KEY = "export_jobs.key"
PART = "data_export_parts.rows"
PIECE = "data_export_chunks.data"
SENT = "webhook_deliveries.body"
ASKED_TRAITS = "data_requests.traits"
TRACES = "data_requests.traces"
DECIDED = "identity_decisions.reason"
REVOKED = "identity_decisions.revoked_reason"

_FILE_PIECES = 8
"""Pieces of files that are sealed at once; each has up to some megabytes."""

_REFUSED_KEY = {"import_id": "text", "row_number": "bigint", "position": "integer"}

_INTERACTION = "convert_to(interaction_id, 'UTF8')"


def _bound(*names: str) -> str:
    """Return the SQL of what `row_of` answers for the values of some columns."""
    together = " || E'\\n' || ".join(f"CAST({name} AS text)" for name in names)
    return f"convert_to({together}, 'UTF8')"


COLUMNS = (
    SealedColumn("events", "payload", {"event_key": "uuid"}, "uuid_send(event_key)"),
    SealedColumn(
        "rejected_events",
        "body",
        {"rejected_event_id": "bigint"},
        "convert_to(message_id || E'\\n' || received_time_us || E'\\n' || position, 'UTF8')",
    ),
    SealedColumn(
        "legal_hold.records",
        "payload",
        {"record_id": "bigint"},
        "convert_to(data_request_id || E'\\n' || event || E'\\n' || event_time_us, 'UTF8')",
        is_searched=False,
    ),
    # The name of a derived fragment is made of other fragments, and read by statements.
    SealedColumn(
        "fragments",
        "value",
        {"fragment_id": "uuid"},
        "uuid_send(fragment_id)",
        is_text=True,
        among=f"namespace <> '{DERIVED}'",
    ),
    SealedColumn(
        "fragments",
        "traits",
        {"fragment_id": "uuid"},
        "uuid_send(fragment_id)",
        is_json=True,
        among="traits <> '{}'",
    ),
    SealedColumn("interactions", "subject", {"interaction_id": "text"}, _INTERACTION, is_text=True),
    SealedColumn("interactions", "text", {"interaction_id": "text"}, _INTERACTION, is_text=True),
    SealedColumn("interactions", "outcome", {"interaction_id": "text"}, _INTERACTION, is_text=True),
    SealedColumn("groups", "traits", {"group_id": "text"}, _bound("group_id"), is_json=True, among="traits <> '{}'"),
    SealedColumn(
        "import_chunks",
        "data",
        {"import_id": "text", "first_byte": "bigint"},
        _bound("import_id", "first_byte"),
        is_searched=False,
        at_once=_FILE_PIECES,
    ),
    # The words of a rule may quote what breaks it.
    SealedColumn("import_rejects", "rule", _REFUSED_KEY, _bound(*_REFUSED_KEY), is_text=True),
    SealedColumn("import_rejects", "body", _REFUSED_KEY, _bound(*_REFUSED_KEY), is_text=True),
    SealedColumn(
        "export_chunks",
        "data",
        {"export_id": "text", "first_byte": "bigint"},
        _bound("export_id", "first_byte"),
        at_once=_FILE_PIECES,
    ),
    SealedColumn(
        "export_drafts",
        "data",
        {"export_id": "text", "number": "integer"},
        _bound("export_id", "number"),
        at_once=_FILE_PIECES,
    ),
    # With it and a file, customers could be told from their pseudonyms; it is gone when the export ends.
    SealedColumn(
        "export_jobs",
        "key",
        {"export_id": "text"},
        _bound("export_id"),
        among="key <> ''",
        is_searched=False,
    ),
    SealedColumn(
        "data_export_parts",
        "rows",
        {"data_request_id": "text", "service": "text", "attempt": "text", "number": "integer"},
        _bound("data_request_id", "service", "attempt", "number"),
        is_searched=False,
        at_once=_FILE_PIECES,
    ),
    SealedColumn(
        "data_export_chunks",
        "data",
        {"data_request_id": "text", "index": "integer"},
        _bound("data_request_id", "index"),
        is_searched=False,
        at_once=_FILE_PIECES,
    ),
    SealedColumn(
        "webhook_deliveries",
        "body",
        {"endpoint_id": "text", "webhook_id": "text"},
        _bound("endpoint_id", "webhook_id"),
    ),
    SealedColumn(
        "data_requests",
        "traits",
        {"data_request_id": "text"},
        _bound("data_request_id"),
        is_text=True,
        is_searched=False,
    ),
    SealedColumn(
        "data_requests",
        "traces",
        {"data_request_id": "text"},
        _bound("data_request_id"),
        is_text=True,
        among="traces <> ''",
        is_searched=False,
    ),
    # The number of a decision is made when it is kept, so what is said of it is bound to its time.
    SealedColumn(
        "identity_decisions",
        "reason",
        {"decision_id": "bigint"},
        _bound("decided_time_us"),
        is_text=True,
        among="reason <> ''",
    ),
    SealedColumn(
        "identity_decisions",
        "revoked_reason",
        {"decision_id": "bigint"},
        _bound("revoked_time_us"),
        is_text=True,
        among="revoked_reason <> ''",
    ),
)


def row_of(*key: str | int) -> bytes:
    """Return what the values of a row are bound to: its key."""
    return "\n".join(map(str, key)).encode()


def rejected_row(message_id: str, received_time_us: int, position: int) -> bytes:
    """Return what the body of a rejected event is bound to."""
    return row_of(message_id, received_time_us, position)


def sealed_body(row: Any) -> Row:
    """Return the body of a row of rejected events, to be opened."""
    return Row(REJECTED, rejected_row(row.message_id, row.received_time_us, row.position), row.body, is_foreign=True)


def sealed_message(row: Any) -> Row:
    """Return the body of a row of deliveries of webhooks, to be opened."""
    return Row(SENT, row_of(row.endpoint_id, row.webhook_id), row.body)


async def opened_refused(tx: Transaction, rows: Sequence[Any]) -> list[tuple[str, str]]:
    """Return rule and body of rows of imports that were not taken."""
    keys = [row_of(row.import_id, row.row_number, row.position) for row in rows]
    rules = await opened_texts(tx, [(REFUSED_RULE, key, row.rule) for key, row in zip(keys, rows, strict=True)])
    bodies = await opened_texts(tx, [(REFUSED_ROW, key, row.body) for key, row in zip(keys, rows, strict=True)])
    return list(zip(rules, bodies, strict=True))


def held_row(data_request_id: str, event: str, event_time_us: int) -> bytes:
    """Return what a record on hold is bound to."""
    return row_of(data_request_id, event, event_time_us)


def sealed_reason(tx: Transaction, column: str, reason: str, time_us: int) -> str:
    """Seal why something was decided or taken back; no reason stays none."""
    return tx.sealer.seal_text(column, row_of(time_us), reason) if reason else ""


async def opened_reasons(tx: Transaction, reasons: Sequence[tuple[str, str | None, int | None]]) -> list[str]:
    """Open reasons: column, what stands there, and the time of the decision."""
    return await opened_texts(tx, [(column, row_of(time_us or 0), text or "") for column, text, time_us in reasons])


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
    if table == "identity_decisions":
        decided = (DECIDED, row["reason"], row["decided_time_us"])
        revoked = (REVOKED, row["revoked_reason"], row["revoked_time_us"])
        reason, revoked_reason = await opened_reasons(tx, [decided, revoked])
        return {**row, "reason": reason, "revoked_reason": revoked_reason or row["revoked_reason"]}
    if table == "data_requests" and row["traits"]:
        (asked,) = await opened_texts(tx, [(ASKED_TRAITS, row_of(row["data_request_id"]), row["traits"])])
        return {**row, "traits": msgspec.json.decode(asked)}
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
