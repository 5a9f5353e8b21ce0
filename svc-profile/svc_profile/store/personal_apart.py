# SPDX-License-Identifier: Apache-2.0
"""What is personal in svc-profile without being anybody's: events not taken, webhooks sent, and the purposes of all."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.database import Transaction
from chassis.encryption.vault import opened
from chassis.privacy import Erased, Kept, Traces

from svc_profile.store.data_requests import opened_traces
from svc_profile.store.sealed import opened_refused, sealed_body, sealed_message

_LEGAL_BASES = {1: "consent", 2: "contract", 3: "legal obligation", 4: "legitimate interest"}

_TRACES = """
SELECT data_request_id, traces FROM data_requests
WHERE state = 2 AND fragment_ids && CAST(:fragments AS uuid[]) AND traces <> ''
"""

_REJECTED = """
SELECT rejected_event_id AS place, message_id, position, reason, detail, received_time_us, body FROM rejected_events
WHERE rejected_event_id > :after AND body <> ''
    AND (:sealed OR encode(body, 'escape') ~* :anywhere OR EXISTS (
        SELECT FROM unnest(CAST(:needles AS bytea[])) AS n (n) WHERE position(n IN body) > 0
    ))
ORDER BY rejected_event_id LIMIT :most
"""

_SENT = """
SELECT endpoint_id, webhook_id, event_type, event_time_us, body FROM webhook_deliveries
WHERE (endpoint_id, webhook_id) > (CAST(:endpoint AS text), CAST(:webhook AS text))
    AND (:sealed OR encode(body, 'escape') ~* :anywhere OR EXISTS (
        SELECT FROM unnest(CAST(:needles AS bytea[])) AS n (n) WHERE position(n IN body) > 0
    ))
ORDER BY endpoint_id, webhook_id LIMIT :most
"""

_FORGET_SENT = """
DELETE FROM webhook_deliveries AS d USING unnest(CAST(:endpoints AS text[]), CAST(:ids AS text[])) AS g (e, i)
WHERE d.endpoint_id = g.e AND d.webhook_id = g.i
"""

_IMPORTED = """
SELECT import_id, row_number, position, field, rule, body FROM import_rejects
WHERE (import_id, row_number, position) > (CAST(:import_id AS text), CAST(:row AS bigint), CAST(:position AS integer))
    AND (:sealed OR body ~* :anywhere)
ORDER BY import_id, row_number, position LIMIT :most
"""

_FORGET_IMPORTED = """
DELETE FROM import_rejects AS r
USING unnest(CAST(:imports AS text[]), CAST(:rows AS bigint[]), CAST(:positions AS integer[])) AS g (i, r, p)
WHERE r.import_id = g.i AND r.row_number = g.r AND r.position = g.p
"""

_PURPOSES = """
SELECT p.purpose_id, p.display_name, p.legal_basis, p.expiry_months,
    string_agg(n.locale || ': ' || n.title || '. ' || n.body, E'\n' ORDER BY n.locale DESC) AS notice
FROM purposes p LEFT JOIN LATERAL (
    SELECT DISTINCT ON (locale) locale, title, body FROM purpose_notices
    WHERE purpose_id = p.purpose_id ORDER BY locale, version DESC
) AS n ON true
GROUP BY p.purpose_id ORDER BY p.purpose_id
"""

_CONSENTS = """
SELECT DISTINCT ON (purpose_id) purpose_id, answer, time_us, channel, notice_version FROM consent_ledger
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY purpose_id, time_us DESC, sequence DESC
"""

_MOST_AT_ONCE = 500

UNREAD = "files of imports that have not ended: nothing is learnt of the customer from them, and they go when they end"


class Bodies:
    """What was not taken, by the gateway or by an import, and what was sent to webhooks.

    It is nobody's, but what it says may name a customer. What to look for is known while a request about the customer
    runs.
    """

    declared = frozenset({"rejected_events", "import_rejects", "webhook_deliveries"})

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Delete what names the customer."""
        traces = await _traces(tx, fragments)
        rejected = [row.place async for row, _ in _rejected(tx, traces)]
        imported = [row async for row, _, _ in _imported(tx, traces)]
        sent = [row async for row in _sent(tx, traces)]
        await tx.execute("DELETE FROM rejected_events WHERE rejected_event_id = ANY (:ids)", ids=rejected)
        await tx.execute(
            _FORGET_IMPORTED,
            imports=[row.import_id for row in imported],
            rows=[row.row_number for row in imported],
            positions=[row.position for row in imported],
        )
        await tx.execute(
            _FORGET_SENT, endpoints=[row.endpoint_id for row in sent], ids=[row.webhook_id for row in sent]
        )
        files: int = await tx.value("SELECT count(DISTINCT import_id) FROM import_chunks")
        counts = {"rejected_events": len(rejected), "import_rejects": len(imported), "webhook_deliveries": len(sent)}
        kept = [Kept("import_chunks", files, UNREAD)] if files else []
        return Erased({what: count for what, count in counts.items() if count}, kept)

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Nothing here hangs on a fragment."""

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Return what names the customer; what was sent to webhooks is told elsewhere, and names others too."""
        traces = await _traces(tx, fragments)
        async for row, data in _rejected(tx, traces):
            received = timestamp_from_us(row.received_time_us).ToJsonString()
            body = data.decode(errors="replace")
            yield (
                "rejected_events",
                {"reason": row.reason, "detail": row.detail, "received_time": received, "body": body},
            )
        async for row, rule, body in _imported(tx, traces):
            yield "rejected_import_rows", {"field": row.field, "rule": rule, "body": body}

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Nothing: the tables are searched with the others."""
        return {}


async def _traces(tx: Transaction, fragments: Sequence[UUID]) -> Traces:
    known = await tx.rows(_TRACES, fragments=list(fragments))
    return Traces(list(fragments), [trace for traces in await opened_traces(tx, known) for trace in traces])


# The statements find parts of longer words too; whether it is the customer is said by `found_in`.
async def _rejected(tx: Transaction, traces: Traces) -> AsyncIterator[tuple[Any, bytes]]:
    after = 0
    given = {"anywhere": traces.anywhere, "needles": traces.needles, "most": _MOST_AT_ONCE}
    while rows := await tx.rows(_REJECTED, after=after, sealed=tx.sealer.is_on, **given):
        bodies = await opened(tx, [sealed_body(row) for row in rows])
        for row, body in zip(rows, bodies, strict=True):
            if body and traces.found_in(body):
                yield row, body
        after = rows[-1].place


async def _imported(tx: Transaction, traces: Traces) -> AsyncIterator[tuple[Any, str, str]]:
    after: dict[str, Any] = {"import_id": "", "row": 0, "position": 0}
    given = {"anywhere": traces.anywhere, "sealed": tx.sealer.is_on, "most": _MOST_AT_ONCE}
    while rows := await tx.rows(_IMPORTED, **after, **given):
        for row, (rule, body) in zip(rows, await opened_refused(tx, rows), strict=True):
            if traces.found_in(body.encode()):
                yield row, rule, body
        after = {"import_id": rows[-1].import_id, "row": rows[-1].row_number, "position": rows[-1].position}


async def _sent(tx: Transaction, traces: Traces) -> AsyncIterator[Any]:
    after = {"endpoint": "", "webhook": ""}
    given = {"anywhere": traces.anywhere, "needles": traces.needles, "sealed": tx.sealer.is_on, "most": _MOST_AT_ONCE}
    while rows := await tx.rows(_SENT, **after, **given):
        bodies = await opened(tx, [sealed_message(row) for row in rows])
        for row, body in zip(rows, bodies, strict=True):
            if body and traces.found_in(body):
                yield row
        after = {"endpoint": rows[-1].endpoint_id, "webhook": rows[-1].webhook_id}


class Purposes:
    """What is told with an export: what data are used for, for how long, and what the customer answered last."""

    declared: frozenset[str] = frozenset()

    async def erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        """Nothing: purposes are nobody's, and answers stand in the ledger."""
        return Erased()

    async def forget(self, tx: Transaction, fragments: Sequence[UUID]) -> None:
        """Nothing."""

    async def export(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        """Return all purposes, and the latest answer to each."""
        for row in await tx.rows(_PURPOSES):
            months = row.expiry_months
            yield (
                "purposes",
                {
                    "purpose_id": row.purpose_id,
                    "name": row.display_name,
                    "legal_basis": _LEGAL_BASES.get(row.legal_basis, ""),
                    "period": f"{months}개월 · {months} months" if months else "철회 시까지 · until you object",
                    "notice": row.notice or "",
                },
            )
        for row in await tx.rows(_CONSENTS, fragments=list(fragments)):
            yield (
                "consents",
                {
                    "purpose_id": row.purpose_id,
                    "answer": row.answer,
                    "time": timestamp_from_us(row.time_us).ToJsonString(),
                    "channel": row.channel,
                    "notice_version": row.notice_version,
                },
            )

    async def probe(self, tx: Transaction, traces: Traces) -> dict[str, int]:
        """Nothing."""
        return {}
