# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-profile."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.database import Transaction
from chassis.events import TYPE_NAMES, json_object
from chassis.privacy import PersonalTable, PersonalTables
from chassis.privacy.tables import by_profile
from dangol.events.v1.events_pb2 import Event

from svc_profile.store.sealed import reveal
from svc_profile.store.subjects import hold_fragments

_OF_CUSTOMER = (
    "data_request_id IN (SELECT data_request_id FROM data_requests WHERE profile_id = ANY (CAST(:fragments AS uuid[])))"
)

_IN_EXPORT = """
    export_id IN (
        SELECT export_id FROM export_chunks WHERE profiles && CAST(:fragments AS uuid[])
        UNION ALL SELECT export_id FROM export_drafts WHERE profiles && CAST(:fragments AS uuid[])
    )
"""

_BOTH_ENDS = "child = ANY (CAST(:fragments AS uuid[])) AND parent = ANY (CAST(:fragments AS uuid[]))"

_EXPORT_REDACTED = """
    state = CASE state WHEN 2 THEN 5 ELSE state END, cursor = NULL, file_bytes = 0, written_profiles = 0,
    withheld_profiles = 0, lease_holder = '', lease_until = '-infinity',
    fragments = ARRAY(SELECT unnest(fragments) EXCEPT SELECT unnest(CAST(:fragments AS uuid[])))
"""

_NEXT_HUB = """
    hub = (
        SELECT o.fragment_id FROM decision_members o
        WHERE o.decision_id = decision_members.decision_id AND o.side = decision_members.side
        ORDER BY o.fragment_id LIMIT 1
    )
"""

_LEDGER_REDACTED = """
    fragment_id = NULL, purpose_id = NULL, answer = NULL, time_us = NULL, received_time_us = NULL, event_key = NULL,
    device_id = NULL, notice_version = NULL, locale = NULL, channel = NULL, actor = NULL, source = NULL,
    message_id = NULL, reason = NULL, salt = NULL, redaction_request_id = coalesce((
        SELECT data_request_id FROM data_requests
        WHERE state = 2 AND kind = 5 AND fragment_ids && CAST(:fragments AS uuid[]) LIMIT 1
    ), 'erased')
"""

# What the customer's own events said of a group, and what staff called a household of nobody else.
_SAID_OF_GROUP = """
    EXISTS (
        SELECT FROM events e WHERE e.event_key = CAST(t.value ->> 2 AS uuid)
            AND e.fragment_id = ANY (CAST(:fragments AS uuid[]))
    ) OR (
        t.key <> 'kind' AND t.value ->> 3 = 'staff' AND NOT EXISTS (
            SELECT FROM group_members m
            WHERE m.group_id = groups.group_id AND m.fragment_id <> ALL (CAST(:fragments AS uuid[]))
        )
    )
"""
_IN_GROUP = f"""
    group_id IN (SELECT group_id FROM group_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[])))
    AND EXISTS (SELECT FROM jsonb_each(traits) AS t WHERE {_SAID_OF_GROUP})
"""  # noqa: S608  no data in it
_GROUP_REDACTED = f"""
    traits = (
        SELECT coalesce(jsonb_object_agg(t.key, t.value), '{{}}')
        FROM jsonb_each(traits) AS t WHERE NOT ({_SAID_OF_GROUP})
    )
"""  # noqa: S608  no data in it


def personal_tables() -> PersonalTables:
    """Declare the tables; a table that nothing is said about fails a test of the architecture."""
    return PersonalTables(
        [
            # Locked first, as in a fold: whoever learns about the customer waits, and then finds nobody.
            PersonalTable("fragments", on_rebuild=False, left_out=("flags",), file="identifiers_and_traits"),
            PersonalTable(
                "links",
                "child = ANY (CAST(:fragments AS uuid[])) OR parent = ANY (CAST(:fragments AS uuid[]))",
                on_rebuild=False,
                exported_where=_BOTH_ENDS,
                left_out=("event_key", "rank", "eligible"),
                file="identity_links",
            ),
            # What others did on a device of the customer is under a parent of theirs.
            PersonalTable(
                "derived_fragments",
                "parent_id = ANY (CAST(:fragments AS uuid[]))",
                on_rebuild=False,
                exported=False,
            ),
            PersonalTable(
                "identity_decisions",
                "reason <> '' AND decision_id IN ("
                "SELECT decision_id FROM decision_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[])))",
                redact="reason = '', revoked_reason = NULL",
                on_rebuild=False,
            ),
            PersonalTable("decision_members", on_rebuild=False, exported=False),
            # What is left of a decision hangs on another of its members.
            PersonalTable(
                "decision_members",
                "hub = ANY (CAST(:fragments AS uuid[]))",
                redact=_NEXT_HUB,
                on_rebuild=False,
                exported=False,
            ),
            # Before events and members, by which it is known who said what.
            PersonalTable("groups", _IN_GROUP, redact=_GROUP_REDACTED, on_rebuild=False, exported=False),
            PersonalTable(
                "repetitions",
                "event_key IN (SELECT event_key FROM events WHERE fragment_id = ANY (CAST(:fragments AS uuid[])))",
                on_rebuild=False,
                exported=False,
            ),
            # Only the key is kept, which tells a repetition and nothing else.
            PersonalTable(
                "events",
                redact="fragment_id = NULL, payload = NULL, name = '', time_us = 0, received_time_us = 0",
                on_rebuild=False,
                present=_readable_event,
            ),
            PersonalTable("interactions", left_out=("request_id",), on_rebuild=False, file="contacts"),
            by_profile("segment_memberships", on_rebuild=False, left_out=("revision",)),
            by_profile("profile_stages", on_rebuild=False, left_out=("revision",), file="stages"),
            PersonalTable("heard_feedback", on_rebuild=False, exported=False),
            PersonalTable("group_members", on_rebuild=False, file="groups"),
            PersonalTable("search_queue", on_rebuild=False, exported=False),
            PersonalTable("search_entries", on_rebuild=False, exported=False),
            PersonalTable("consent_due", on_rebuild=False, exported=False),
            PersonalTable("consent_reports", on_rebuild=False, exported=False),
            PersonalTable("consent_expiries", on_rebuild=False, left_out=("announced",)),
            # The hashes stay, so that the chain still proves the rows of others.
            PersonalTable(
                "consent_ledger",
                redact=_LEDGER_REDACTED,
                why_kept="the chain that proves the records of others; what this one said is gone",
                on_rebuild=False,
                left_out=("event_key", "salt", "redaction_request_id", "row_hash", "device_id"),
                present=_readable_record,
            ),
            # A file that names the customer goes as a whole; one that is still being written begins again.
            PersonalTable(
                "export_jobs",
                f"{_IN_EXPORT} OR fragments && CAST(:fragments AS uuid[])",
                redact=_EXPORT_REDACTED,
                on_rebuild=False,
                exported=False,
            ),
            PersonalTable("export_chunks", _IN_EXPORT, on_rebuild=False, exported=False),
            PersonalTable("export_drafts", _IN_EXPORT, on_rebuild=False, exported=False),
            PersonalTable("data_export_chunks", _OF_CUSTOMER, on_rebuild=False, exported=False),
            PersonalTable("data_export_parts", _OF_CUSTOMER, on_rebuild=False, exported=False),
            by_profile(
                "data_requests",
                redact="profile_id = NULL, traits = NULL",
                why_kept="that a request was filed, and when it was done, is proof towards the authority",
                on_rebuild=False,
                left_out=("request_id", "fragment_ids", "shared_fragment_ids", "traces", "stream_ends", "subject_hash"),
            ),
        ],
        impersonal=(
            "data_keys",
            "data_request_answers",
            "erasure_certificates",
            "event_schema_set",
            "event_schema_versions",
            "event_schemas",
            "heard_segments",
            # Files are removed when their import ends, and what they say comes in through the door of events.
            "import_chunks",
            "import_jobs",
            "purpose_notices",
            "purposes",
            "retention_rules",
            "sealing_progress",
            "search_filling",
            "suppressions",
            "tracked_events",
            "tracked_properties",
            "trait_derivation",
            "trait_schema",
            "webhook_endpoints",
        ),
        # They say whom a request is about while it runs.
        unsearched=("data_requests", "data_export_parts", "data_export_chunks", "import_chunks"),
        before=_hold,
        reveal=reveal,
    )


async def _hold(tx: Transaction, fragments: Sequence[UUID]) -> None:
    await hold_fragments(tx, [each.bytes for each in fragments])


def _readable_record(row: dict[str, Any]) -> Mapping[str, Any]:
    times = {name: row.pop(f"{name}_us") for name in ("time", "received_time", "recorded")}
    return {**row, **{name: timestamp_from_us(us).ToJsonString() for name, us in times.items() if us is not None}}


def _readable_event(row: dict[str, Any]) -> Mapping[str, Any]:
    payload = row.pop("payload") or ""
    event = Event.FromString(bytes.fromhex(payload.removeprefix("\\x")))
    return {
        "event_id": event.message_id,
        "type": TYPE_NAMES.get(event.type, ""),
        "name": row["name"],
        "time": timestamp_from_us(row["time_us"]).ToJsonString(),
        "received_time": timestamp_from_us(row["received_time_us"]).ToJsonString(),
        "source": event.source,
        "user_id": event.user_id,
        "anonymous_id": event.anonymous_id,
        "group_id": event.group_id,
        "properties": json_object(event.properties),
        "traits": json_object(event.traits),
        "context": json_object(event.context),
    }
