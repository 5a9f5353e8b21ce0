# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-profile."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.database import Transaction
from chassis.events import TYPE_NAMES, json_object
from chassis.privacy import Erased, PersonalTable, PersonalTables, Traces
from chassis.privacy.tables import by_profile
from dangol.events.v1.events_pb2 import Event

from svc_profile.store.subjects import hold_fragments

_OF_CUSTOMER = (
    "data_request_id IN (SELECT data_request_id FROM data_requests WHERE profile_id = ANY (CAST(:fragments AS uuid[])))"
)


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
                left_out=("event_key", "rank", "eligible"),
                file="identity_links",
            ),
            PersonalTable(
                "identity_decisions",
                "reason <> '' AND decision_id IN ("
                "SELECT decision_id FROM decision_members WHERE fragment_id = ANY (CAST(:fragments AS uuid[])))",
                redact="reason = '', revoked_reason = NULL",
                on_rebuild=False,
            ),
            PersonalTable("decision_members", on_rebuild=False, exported=False),
            # Only the key is kept, which tells a repetition and nothing else.
            PersonalTable(
                "events",
                redact="fragment_id = NULL, payload = NULL, name = '', time_us = 0, received_time_us = 0",
                on_rebuild=False,
                present=_readable_event,
            ),
            PersonalTable("interactions", left_out=("request_id",), on_rebuild=False, file="contacts"),
            by_profile("segment_memberships", on_rebuild=False, left_out=("revision",)),
            PersonalTable("data_export_chunks", _OF_CUSTOMER, on_rebuild=False, exported=False),
            PersonalTable("data_export_parts", _OF_CUSTOMER, on_rebuild=False, exported=False),
            by_profile(
                "data_requests",
                redact="profile_id = NULL, traits = NULL",
                why_kept="that a request was filed, and when it was done, is proof towards the authority",
                on_rebuild=False,
                left_out=("request_id", "fragment_ids", "traces", "stream_ends", "subject_hash"),
            ),
        ],
        impersonal=(
            "data_request_answers",
            "erasure_certificates",
            "event_schema_set",
            "event_schema_versions",
            "event_schemas",
            "heard_segments",
            "suppressions",
            "tracked_events",
            "tracked_properties",
        ),
        # They say whom a request is about while it runs.
        unsearched=("data_requests", "data_export_parts", "data_export_chunks"),
        before=_hold,
    )


async def _hold(tx: Transaction, fragments: Sequence[UUID]) -> None:
    await hold_fragments(tx, [each.bytes for each in fragments])


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


_BODIES = """
SELECT rejected_event_id, message_id, source, reason, detail, received_time_us, body FROM rejected_events
WHERE rejected_event_id > :after AND body <> ''
    AND (encode(body, 'escape') ~* :anywhere OR EXISTS (
        SELECT FROM unnest(CAST(:needles AS bytea[])) AS n (n) WHERE position(n IN body) > 0
    ))
ORDER BY rejected_event_id LIMIT :most
"""

_TRACES = """
SELECT traces FROM data_requests
WHERE state = 2 AND fragment_ids && CAST(:fragments AS uuid[]) AND cardinality(traces) > 0
"""

_MOST_AT_ONCE = 500


class RejectedBodies:
    """Events that were not taken: they belong to nobody, but what they say may name a customer.

    What to look for is known while a request about the customer runs.
    """

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Delete the events that name the customer."""
        ids = [row.rejected_event_id async for row in self._named(tx, fragments)]
        if not ids:
            return Erased()
        await tx.execute("DELETE FROM rejected_events WHERE rejected_event_id = ANY (:ids)", ids=ids)
        return Erased({"rejected_events": len(ids)})

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Nothing here hangs on a fragment."""

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Return the events that name the customer."""
        async for row in self._named(tx, fragments):
            yield (
                "rejected_events",
                {
                    "reason": row.reason,
                    "detail": row.detail,
                    "received_time": timestamp_from_us(row.received_time_us).ToJsonString(),
                    "body": row.body.decode(errors="replace"),
                },
            )

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Nothing: the tables are searched with the others."""
        return {}

    async def _named(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[Any]:
        known = await tx.rows(_TRACES, fragments=list(fragments))
        traces = Traces(list(fragments), [trace for row in known for trace in row.traces])
        if not traces.names:
            return
        after = 0
        while True:
            rows = await tx.rows(
                _BODIES, after=after, anywhere=traces.anywhere, needles=traces.needles, most=_MOST_AT_ONCE
            )
            for row in rows:
                # The statement looks at bytes; whether it is the customer, and no part of a longer word, is said here.
                if traces.found_in(row.body):
                    yield row
            if len(rows) < _MOST_AT_ONCE:
                return
            after = rows[-1].rejected_event_id
