# SPDX-License-Identifier: Apache-2.0
"""Do at once what a customer may ask for at once: rectify, restrict and end that, object."""

from datetime import datetime

from chassis.bus import Outgoing
from chassis.clock import to_us
from chassis.database import Transaction

from svc_profile.domain.consent import Answer
from svc_profile.domain.data_requests import DataRequest, Kind, State
from svc_profile.store.data_requests import DataRequestStore
from svc_profile.store.members import find_members
from svc_profile.store.purposes import PurposeStore
from svc_profile.store.subjects import names_of
from svc_profile.usecases.consent import Call, Decision, record_consent, restrict
from svc_profile.usecases.data_requests import finish
from svc_profile.usecases.erasing import NOBODY, Surroundings
from svc_profile.wire.privacy import SOURCE, rectifying_batch

MARKETING = 3
"""The kind `dangol.options.v1.PURPOSE_MARKETING`."""
NIGHT = "night_marketing"

SUBJECT = "events.collected.0"

NO_CARRIER = "no identifier but what is to be rectified could name the customer: add another one first"


class Exercising:
    """Requests that take one step."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._at = surroundings
        self._database = surroundings.database

    async def advance(self, data_request_id: str, now: datetime) -> None:
        """Do it; once more does nothing more."""
        async with self._database.snapshot() as tx:
            request = await DataRequestStore(tx).get(data_request_id)
            # What is being erased is not changed meanwhile; afterwards there is nobody to change.
            members = await find_members(tx, request.profile) if request.profile else None
            if members and await DataRequestStore(tx).other_runs(request, members.fragments):
                return
        if request.kind is Kind.RECTIFY:
            await self._rectify(request, now)
        else:
            await self._restrict(request, now)

    async def _rectify(self, request: DataRequest, now: datetime) -> None:
        """Send an event that says the traits, through the door that all events take: it is kept, told and folded."""
        async with self._database.snapshot() as tx:
            members = await find_members(tx, request.profile) if request.profile else None
            names = await names_of(tx, members.fragments) if members else {}
        if not names:
            await self._refuse(request, now, NOBODY)
            return
        batch = rectifying_batch(request, list(names), self._at.key.types.traits)
        if batch is None:
            await self._refuse(request, now, NO_CARRIER)
            return
        message_id = f"rectify:{request.data_request_id}"
        await self._at.bus.publish_all([Outgoing(SUBJECT, batch.SerializeToString(), message_id)])
        async with self._database.transaction() as tx:
            await finish(tx, request, State.DONE, now=now)

    async def _restrict(self, request: DataRequest, now: datetime) -> None:
        """Write into the ledger of consent what the customer wants no more, or again; every service obeys at once."""
        async with self._database.transaction() as tx:
            members = await find_members(tx, request.profile) if request.profile else None
            if request.profile is not None and members is not None:
                now_us = to_us(now)
                call = Call(
                    caller=SOURCE,
                    request_id=request.data_request_id,
                    channel=request.draft.channel,
                    actor=request.actor,
                    time_us=now_us,
                    now_us=now_us,
                )
                if request.kind is not Kind.OBJECT:
                    await restrict(tx, request.profile, is_restricted=request.kind is Kind.RESTRICT, call=call)
                else:
                    purposes = request.draft.purposes or await _marketing(tx)
                    decisions = [Decision(each, Answer.WITHDRAWN) for each in purposes]
                    await record_consent(tx, request.profile, None, decisions, call)
                await finish(tx, request, State.DONE, now=now)
        if members is None:
            await self._refuse(request, now, NOBODY)

    async def _refuse(self, request: DataRequest, now: datetime, reason: str) -> None:
        async with self._database.transaction() as tx:
            await finish(tx, request, State.REFUSED, now=now, reason=reason, keep_profile=reason != NOBODY)


async def _marketing(tx: Transaction) -> list[str]:
    """Return what makes up direct marketing: advertising on any channel, and advertising at night."""
    purposes = await PurposeStore(tx).all()
    return [each.purpose_id for each in purposes if each.kind == MARKETING or each.purpose_id == NIGHT]
