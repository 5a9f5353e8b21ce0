# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects, and what the services answered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import opened_texts
from chassis.errors import NotFound
from sqlalchemy import Row

from svc_profile.domain.data_requests import (
    Answer,
    DataRequest,
    Draft,
    Kind,
    Regime,
    Requester,
    State,
    Step,
    Subject,
)
from svc_profile.domain.events import FragmentKey
from svc_profile.store.sealed import ASKED_TRAITS, TRACES, row_of

_ADD = """
INSERT INTO data_requests (
    data_request_id, request_id, kind, regime, requester, channel, state, step, actor, profile_id, filed_time, due_time,
    not_before_time, step_time, traits, purposes
) VALUES (
    :data_request_id, :request_id, :kind, :regime, :requester, :channel, :state, :step, :actor, :profile_id,
    :filed_time, :due_time, :not_before_time, :step_time, :traits, :purposes
)
ON CONFLICT (request_id) DO NOTHING
"""

_SAVE = """
UPDATE data_requests SET
    state = :state, step = :step, step_time = :step_time, round = :round, refusal_reason = :refusal_reason,
    profile_id = :profile_id, done_time = :done_time, subject_hash = :subject_hash,
    fragment_ids = CAST(:fragment_ids AS uuid[]), shared_fragment_ids = CAST(:shared AS uuid[]), traces = :traces,
    stream_ends = CAST(:stream_ends AS jsonb),
    traits = :traits
WHERE data_request_id = :data_request_id
"""

_COLUMNS = """
    data_request_id, kind, regime, requester, channel, state, step, step_time, round, refusal_reason, actor, profile_id,
    filed_time, due_time, not_before_time, done_time, traits, purposes, subject_hash,
    fragment_ids, shared_fragment_ids, traces, CAST(stream_ends AS text) AS stream_ends
"""

_GET = f"SELECT {_COLUMNS} FROM data_requests WHERE data_request_id = :id"  # noqa: S608  no data in it

_PAGE = f"""
SELECT {_COLUMNS} FROM data_requests
WHERE (CAST(:state AS integer) = 0 OR state = :state)
    AND (NOT CAST(:overdue AS boolean) OR (state IN (1, 2) AND due_time < :now))
    AND (CAST(:profiles AS uuid[]) IS NULL OR profile_id = ANY (CAST(:profiles AS uuid[])))
    AND (CAST(:before AS text) = '' OR data_request_id < :before)
ORDER BY data_request_id DESC LIMIT :most
"""  # noqa: S608  no data in it

_DUE = """
SELECT data_request_id FROM data_requests
WHERE state = 2 OR (state = 1 AND not_before_time <= :now)
ORDER BY data_request_id LIMIT 1000
"""

_ANSWER = """
INSERT INTO data_request_answers (data_request_id, step, round, service, answered_time, answer)
SELECT data_request_id, :asked, CAST(:round AS integer), :service, CAST(:now AS timestamptz), CAST(:answer AS jsonb)
FROM data_requests WHERE data_request_id = :data_request_id
ON CONFLICT DO NOTHING
"""

_ANSWERS = """
SELECT data_request_id, service, step, round, answered_time, CAST(answer AS text) AS answer FROM data_request_answers
WHERE data_request_id = ANY (:ids) ORDER BY data_request_id, round, step, service
"""


@dataclass(frozen=True)
class Wanted:
    """Which requests are wanted."""

    state: int = 0
    overdue: bool = False
    profiles: Collection[FragmentKey] | None = None


class DataRequestStore:
    """Keeps requests."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(self, request: DataRequest, request_id: str) -> bool:
        """Keep a new request; tells whether it is the first one of its request id."""
        draft = request.draft
        added = await self._tx.execute(
            _ADD,
            data_request_id=request.data_request_id,
            request_id=request_id or None,
            kind=int(draft.kind),
            regime=int(draft.regime),
            requester=int(draft.requester),
            channel=draft.channel,
            state=int(request.state),
            step=str(request.step),
            actor=request.actor,
            profile_id=UUID(request.profile) if request.profile else None,
            filed_time=draft.filed_time,
            due_time=request.due_time,
            not_before_time=draft.not_before_time,
            step_time=request.step_time,
            traits=self._sealed_traits(request),
            purposes=list(draft.purposes),
        )
        return bool(added)

    async def save(self, request: DataRequest) -> None:
        """Write how far a request is now."""
        await self._tx.execute(
            _SAVE,
            data_request_id=request.data_request_id,
            state=int(request.state),
            step=str(request.step),
            step_time=request.step_time,
            round=request.round,
            refusal_reason=request.refusal_reason,
            profile_id=UUID(request.profile) if request.profile else None,
            done_time=request.done_time,
            subject_hash=request.subject.hash,
            fragment_ids=[UUID(each) for each in request.subject.fragments],
            shared=[UUID(each) for each in request.subject.shared],
            traces=self._sealed_traces(request),
            stream_ends=_json(request.stream_ends) if request.stream_ends is not None else None,
            traits=self._sealed_traits(request),
        )

    def _sealed_traits(self, request: DataRequest) -> str | None:
        traits, row_id = request.draft.traits, row_of(request.data_request_id)
        return self._tx.sealer.seal_text(ASKED_TRAITS, row_id, _json(traits)) if traits else None

    def _sealed_traces(self, request: DataRequest) -> str:
        traces, row_id = request.subject.traces, row_of(request.data_request_id)
        return self._tx.sealer.seal_text(TRACES, row_id, _json(list(traces))) if traces else ""

    async def find_by_request(self, request_id: str) -> DataRequest | None:
        """Return what was filed with a request id, None when nothing was."""
        found = await self._tx.value(
            "SELECT data_request_id FROM data_requests WHERE request_id = :request_id", request_id=request_id
        )
        return None if found is None else await self.get(found)

    async def get(self, data_request_id: str, *, lock: bool = False) -> DataRequest:
        """Return a request, locked until the end of the transaction if need be; raises `NotFound`."""
        row = await self._tx.row(_GET + (" FOR UPDATE" if lock else ""), id=data_request_id)
        if row is None:
            raise NotFound(f"no data request {data_request_id}")
        (request,) = await self._read([row])
        return request

    async def page(self, wanted: Wanted, *, now: datetime, before: str, most: int) -> list[DataRequest]:
        """Return requests, newest first, filed before a given one."""
        profiles = None if wanted.profiles is None else [UUID(each) for each in wanted.profiles]
        rows = await self._tx.rows(
            _PAGE, state=wanted.state, overdue=wanted.overdue, profiles=profiles, now=now, before=before, most=most
        )
        return await self._read(rows)

    async def due(self, now: datetime) -> list[str]:
        """Return requests about which there is something to do, oldest first."""
        return [row.data_request_id for row in await self._tx.rows(_DUE, now=now)]

    async def overdue(self, now: datetime) -> int:
        """Return how many requests should have been done by now."""
        count: int = await self._tx.value(
            "SELECT count(*) FROM data_requests WHERE state IN (1, 2) AND due_time < :now", now=now
        )
        return count

    async def other_runs(self, request: DataRequest, profiles: Collection[FragmentKey]) -> bool:
        """Tell whether another request about a customer is running."""
        return bool(
            await self._tx.value(
                """
                SELECT EXISTS (
                    SELECT FROM data_requests WHERE profile_id = ANY (CAST(:profiles AS uuid[])) AND state = 2
                        AND data_request_id <> :id
                )
                """,
                profiles=[UUID(each) for each in profiles],
                id=request.data_request_id,
            )
        )

    async def answer(self, data_request_id: str, answer: Answer) -> None:
        """Keep what a service answered; the first time counts."""
        await self._tx.execute(
            _ANSWER,
            data_request_id=data_request_id,
            asked=answer.asked,
            round=answer.round,
            service=answer.service,
            now=answer.answered_time,
            answer=_json(answer.answer),
        )

    async def answers(self, data_request_ids: Sequence[str]) -> dict[str, list[Answer]]:
        """Return what the services answered to requests."""
        found: dict[str, list[Answer]] = {each: [] for each in data_request_ids}
        for row in await self._tx.rows(_ANSWERS, ids=list(data_request_ids)):
            answer = Answer(row.service, row.step, row.round, row.answered_time, msgspec.json.decode(row.answer))
            found[row.data_request_id].append(answer)
        return found

    async def _read(self, rows: Sequence[Row[Any]]) -> list[DataRequest]:
        sealed = [(ASKED_TRAITS, row_of(row.data_request_id), row.traits or "") for row in rows]
        asked, traces = await opened_texts(self._tx, sealed), await opened_traces(self._tx, rows)
        return [_read(*each) for each in zip(rows, asked, traces, strict=True)]


async def opened_traces(tx: Transaction, rows: Sequence[Any]) -> list[list[str]]:
    """Return the texts that name the customers of some requests."""
    sealed = [(TRACES, row_of(row.data_request_id), row.traces) for row in rows]
    return [msgspec.json.decode(text) if text else [] for text in await opened_texts(tx, sealed)]


def _read(row: Row[Any], traits: str, traces: Sequence[str]) -> DataRequest:
    return DataRequest(
        data_request_id=row.data_request_id,
        draft=Draft(
            kind=Kind(row.kind),
            regime=Regime(row.regime),
            requester=Requester(row.requester),
            channel=row.channel,
            filed_time=row.filed_time,
            not_before_time=row.not_before_time,
            traits=msgspec.json.decode(traits) if traits else {},
            purposes=tuple(row.purposes),
        ),
        state=State(row.state),
        step=Step(row.step),
        step_time=row.step_time,
        due_time=row.due_time,
        actor=row.actor,
        profile=row.profile_id.bytes if row.profile_id else None,
        round=row.round,
        refusal_reason=row.refusal_reason,
        done_time=row.done_time,
        subject=Subject(
            fragments=[each.bytes for each in row.fragment_ids],
            shared=[each.bytes for each in row.shared_fragment_ids],
            traces=traces,
            hash=row.subject_hash,
        ),
        stream_ends=msgspec.json.decode(row.stream_ends) if row.stream_ends else None,
    )


def _json(value: Mapping[str, Any] | Sequence[str]) -> str:
    return msgspec.json.encode(value).decode()
