# SPDX-License-Identifier: Apache-2.0
"""Erase a customer in all services, step by step.

Every step begins with what the tables say and ends with what it writes into them, so a process that dies at any point
is followed by one that goes on: the same step again does nothing more.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from chassis.bus import Bus
from chassis.database import Database, Transaction
from chassis.identity import IdentityKey
from chassis.privacy import Traces, streams
from chassis.privacy.tombstones import REFRESH_S

from svc_profile.domain.certificates import Certificate, Signer, account_of, canonical
from svc_profile.domain.data_requests import ASKED, MOST_ROUNDS, Answer, DataRequest, State, Step
from svc_profile.domain.flags import SUPPRESSED
from svc_profile.store.certificates import CertificateStore
from svc_profile.store.data_requests import DataRequestStore
from svc_profile.store.subjects import flag, hold_customer
from svc_profile.store.suppressions import SuppressionStore
from svc_profile.usecases.data_requests import finish, go_on
from svc_profile.usecases.subjects import find_subject
from svc_profile.wire.privacy import MESSAGES, erasure_requested, fragments_forgotten, probe_requested

log = logging.getLogger(__name__)

NOBODY = "the customer is not known any more"

MOST_FRAGMENTS = 10_000
"""What one message to the services holds. More identifiers than that are not one person's."""

TOO_MANY = "these are more than 10,000 identifiers, which are not one person: split them first"

_ALL_KNOW = timedelta(seconds=2 * REFRESH_S)
"""After this, every process drops events of the customer."""


@dataclass(frozen=True)
class Surroundings:
    """What an erasure works with."""

    database: Database
    bus: Bus
    key: IdentityKey
    signer: Signer
    services: Collection[str]


class Erasing:
    """The saga of an erasure."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._at = surroundings
        self._database = surroundings.database

    async def advance(self, data_request_id: str, now: datetime) -> None:
        """Take the next step, if it is time."""
        async with self._database.snapshot() as tx:
            request = await DataRequestStore(tx).get(data_request_id)
        match request.step:
            case Step.WAITING:
                await self._begin(data_request_id, now)
            case Step.ERASING | Step.PROBING:
                await self._gather(data_request_id, now)
            case Step.DRAINING:
                await self._drain(request, now)
            case Step.CLEANING:
                await self._clean(request, now)
            case Step.SIGNING:
                await self._sign(request, now)

    async def _begin(self, data_request_id: str, now: datetime) -> None:
        """Hold the customer still, learn nothing more, and ask every service to erase."""
        async with self._database.transaction() as tx:
            requests = DataRequestStore(tx)
            request = await requests.get(data_request_id, lock=True)
            if request.state is not State.RECEIVED:
                return
            # Whoever was erased by another request meanwhile is not named any more.
            fragments = await hold_customer(tx, request.profile) if request.profile else []
            if request.profile is None or not fragments:
                await finish(tx, request, State.REFUSED, now=now, reason=NOBODY, keep_profile=False)
                return
            if len(fragments) > MOST_FRAGMENTS:
                await finish(tx, request, State.REFUSED, now=now, reason=TOO_MANY)
                return
            if await requests.other_runs(request, fragments):
                return
            subject, names = await find_subject(tx, request.profile, fragments, self._at.key)
            await flag(tx, [name.fragment for name in names], SUPPRESSED)
            suppressed = {name.fragment: name.namespace for name in names}
            await SuppressionStore(tx).add(suppressed, data_request_id, now)
            await self._ask_to_erase(tx, replace(request, subject=subject), now)

    async def _ask_to_erase(self, tx: Transaction, request: DataRequest, now: datetime) -> None:
        again = replace(request, round=request.round + 1, stream_ends=None)
        begun = await go_on(tx, again, Step.ERASING, now=now)
        for message in fragments_forgotten(begun):
            tx.publish(message)
        tx.publish(erasure_requested(begun))

    async def _gather(self, data_request_id: str, now: datetime) -> None:
        """Go on when every service has answered."""
        async with self._database.transaction() as tx:
            requests = DataRequestStore(tx)
            request = await requests.get(data_request_id, lock=True)
            if request.step not in (Step.ERASING, Step.PROBING):
                return
            answers = (await requests.answers([data_request_id]))[data_request_id]
            mine = [each for each in answers if each.asked == ASKED[request.step] and each.round == request.round]
            if set(self._at.services) - {each.service for each in mine}:
                return
            if request.step is Step.ERASING:
                await go_on(tx, request, Step.DRAINING, now=now)
            elif _leftovers(mine) and request.round < MOST_ROUNDS:
                await self._ask_to_erase(tx, request, now)
            else:
                await go_on(tx, request, Step.SIGNING, now=now)

    async def _drain(self, request: DataRequest, now: datetime) -> None:
        """Wait until every consumer is past the events that were on their way when the services began to drop them."""
        if request.stream_ends is None:
            if now - request.step_time < _ALL_KNOW:
                return
            await self._save(replace(request, stream_ends=await streams.ends(self._at.bus)))
        elif await streams.all_passed(self._at.bus, self._at.services, request.stream_ends):
            async with self._database.transaction() as tx:
                await go_on(tx, request, Step.CLEANING, now=now)

    async def _clean(self, request: DataRequest, now: datetime) -> None:
        """Remove what the streams and the dead letters still hold, then ask every service to look for the rest."""
        cleaned = await streams.clean(self._at.bus, traces_of(request), request.stream_ends or {})
        async with self._database.transaction() as tx:
            removed = {f"stream {name}": count for name, count in cleaned.items() if count}
            answer = Answer("streams", "erase", request.round, now, {"removed": removed})
            await DataRequestStore(tx).answer(request.data_request_id, answer)
            begun = await go_on(tx, request, Step.PROBING, now=now)
            tx.publish(probe_requested(begun))

    async def _sign(self, request: DataRequest, now: datetime) -> None:
        """Remove the messages of the erasure itself, certify it, and forget whom it was about."""
        await streams.forget_words(self._at.bus, MESSAGES, request.data_request_id.encode())
        async with self._database.transaction() as tx:
            number, previous = await CertificateStore(tx).next()
            answers = (await DataRequestStore(tx).answers([request.data_request_id]))[request.data_request_id]
            account = account_of(
                request,
                answers,
                number=number,
                previous=previous,
                suppressed=await SuppressionStore(tx).count(request.data_request_id),
                done_time=now.isoformat(),
                ledger_head=await CertificateStore(tx).ledger_head(),
            )
            text, signer = canonical(account), self._at.signer
            await CertificateStore(tx).add(
                Certificate(number, request.data_request_id, text, signer.sign(text), signer.key_id)
            )
            await finish(tx, request, State.DONE, now=now, keep_profile=False)

    async def _save(self, request: DataRequest) -> None:
        async with self._database.transaction() as tx:
            await DataRequestStore(tx).save(request)


def traces_of(request: DataRequest) -> Traces:
    """Return what the customer of a running request is recognised by."""
    subject = request.subject
    return Traces([UUID(bytes=each) for each in subject.fragments if each not in subject.shared], subject.traces)


def _leftovers(answers: Sequence[Answer]) -> bool:
    return any(each.answer.get("leftovers") for each in answers)
