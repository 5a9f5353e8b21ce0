# SPDX-License-Identifier: Apache-2.0
"""File requests of data subjects, tell how far they are, take them back, refuse them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from chassis.database import Transaction
from chassis.errors import FailedPrecondition, Invalid, NotFound
from chassis.ids import new_id

from svc_profile.domain.data_requests import Answer, DataRequest, Draft, Kind, State, Step, Subject, due_time
from svc_profile.domain.events import FragmentKey
from svc_profile.store.data_requests import DataRequestStore, Wanted
from svc_profile.store.members import Members, find_members
from svc_profile.store.purposes import PurposeStore
from svc_profile.wire.privacy import data_request_changed

MOST_TRAITS = 100


@dataclass(frozen=True)
class Told:
    """A request, with what the services have answered."""

    request: DataRequest
    answers: Sequence[Answer]


async def create_data_request(
    tx: Transaction, fragment: FragmentKey, draft: Draft, *, request_id: str, actor: str, now: datetime
) -> Told:
    """File a request about a customer, or find the one that was filed with the same id before."""
    requests = DataRequestStore(tx)
    members = await find_members(tx, fragment)
    if request_id and (earlier := await requests.find_by_request(request_id)):
        return await _repeated(tx, earlier, draft.kind, fragment, members)
    _check(draft, now)
    if draft.purposes:
        _check_purposes(draft.purposes, {each.purpose_id for each in await PurposeStore(tx).all()})
    if members is None:
        raise NotFound("nobody is known by this reference")
    request = DataRequest(
        data_request_id=new_id("dsr"),
        draft=draft,
        state=State.RECEIVED,
        step=Step.WAITING,
        step_time=now,
        due_time=due_time(draft.regime, draft.filed_time),
        actor=actor,
        profile=fragment,
    )
    if not await requests.add(request, request_id):
        # The same call, at the same time, was first; the insert waited for its end.
        if (earlier := await requests.find_by_request(request_id)) is None:
            raise NotFound("no data request of this request id")
        return await _repeated(tx, earlier, draft.kind, fragment, members)
    tx.publish(data_request_changed(request))
    return Told(request, ())


async def _repeated(
    tx: Transaction, earlier: DataRequest, kind: Kind, fragment: FragmentKey, members: Members | None
) -> Told:
    """Answer with what was filed before; raises `Invalid` when that is something else, or about somebody else.

    Whoever is known now is not the one whom an erasure has forgotten.
    """
    if members is not None:
        is_same = earlier.profile in members.fragments
    else:
        is_same = earlier.profile is None or fragment in (earlier.profile, *earlier.subject.fragments)
    if earlier.kind is not kind or not is_same:
        raise Invalid.field("request_id", "was used for another request")
    return await _told(tx, earlier)


def _check(draft: Draft, now: datetime) -> None:
    if draft.filed_time > now:
        raise Invalid.field("filed_time", "must not be in the future")
    if (draft.kind is Kind.RECTIFY) != bool(draft.traits):
        raise Invalid.field("traits", "must be given to rectify, and only then")
    if len(draft.traits) > MOST_TRAITS:
        raise Invalid.field("traits", f"must be at most {MOST_TRAITS}")
    if draft.purposes and draft.kind is not Kind.OBJECT:
        raise Invalid.field("purposes", "must be given to object only")


def _check_purposes(purposes: Sequence[str], known: Collection[str]) -> None:
    for place, purpose_id in enumerate(purposes):
        if purpose_id not in known:
            raise Invalid.field(f"purposes[{place}]", "names no purpose of the catalogue")
        if purpose_id in purposes[:place]:
            raise Invalid.field(f"purposes[{place}]", "a purpose may come once")


async def get_data_request(tx: Transaction, data_request_id: str) -> Told:
    """Return a request; raises `NotFound`."""
    return await _told(tx, await DataRequestStore(tx).get(data_request_id))


async def list_data_requests(
    tx: Transaction, wanted: Wanted, *, of: FragmentKey | None, now: datetime, before: str, most: int
) -> list[Told]:
    """Return requests, newest first; of one customer when a fragment is named."""
    if of is not None:
        members = await find_members(tx, of)
        wanted = replace(wanted, profiles=members.fragments if members else [of])
    requests = await DataRequestStore(tx).page(wanted, now=now, before=before, most=most)
    answers = await DataRequestStore(tx).answers([each.data_request_id for each in requests])
    return [Told(each, answers[each.data_request_id]) for each in requests]


async def cancel_data_request(tx: Transaction, data_request_id: str, *, now: datetime) -> Told:
    """Take a request back that has not begun."""
    return await _end(tx, data_request_id, State.CANCELLED, now=now)


async def refuse_data_request(tx: Transaction, data_request_id: str, reason: str, *, now: datetime) -> Told:
    """Refuse a request that has not begun."""
    return await _end(tx, data_request_id, State.REFUSED, now=now, reason=reason)


async def _end(tx: Transaction, data_request_id: str, state: State, *, now: datetime, reason: str = "") -> Told:
    request = await DataRequestStore(tx).get(data_request_id, lock=True)
    if request.state is state:
        return await _told(tx, request)
    if request.state is not State.RECEIVED:
        raise FailedPrecondition(f"the request is {request.state.name.lower()}", reason="DATA_REQUEST_BEGUN")
    return Told(await finish(tx, request, state, now=now, reason=reason), ())


async def finish(
    tx: Transaction, request: DataRequest, state: State, *, now: datetime, reason: str = "", keep_profile: bool = True
) -> DataRequest:
    """End a request, and forget what it needed to know of the customer while it ran."""
    ended = replace(
        request,
        draft=replace(request.draft, traits={}),
        state=state,
        step=Step.FINISHED,
        step_time=now,
        done_time=now,
        refusal_reason=reason,
        profile=request.profile if keep_profile else None,
        subject=Subject(hash=request.subject.hash),
        stream_ends=None,
    )
    await DataRequestStore(tx).save(ended)
    tx.publish(data_request_changed(ended))
    return ended


async def go_on(tx: Transaction, request: DataRequest, step: Step, *, now: datetime) -> DataRequest:
    """Note the next step of a request that runs."""
    after = replace(request, state=State.RUNNING, step=step, step_time=now)
    await DataRequestStore(tx).save(after)
    if request.state is not after.state:
        tx.publish(data_request_changed(after))
    return after


async def _told(tx: Transaction, request: DataRequest) -> Told:
    answers = await DataRequestStore(tx).answers([request.data_request_id])
    return Told(request, answers[request.data_request_id])
