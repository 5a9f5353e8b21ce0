# SPDX-License-Identifier: Apache-2.0
"""Requests of data subjects."""

import base64
import binascii
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from chassis.clock import from_us, to_timestamp, to_us
from chassis.errors import Invalid
from chassis.identifiers import ANONYMOUS_ID, USER_ID
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.identity_pb2 import FORGET_REASON_ERASED, FragmentsForgotten
from google.protobuf import json_format

from svc_profile.domain.certificates import Certificate
from svc_profile.domain.data_requests import (
    ASKED,
    Answer,
    DataRequest,
    Draft,
    Kind,
    Part,
    Regime,
    Requester,
    State,
)
from svc_profile.domain.events import OWN_WISH, Name
from svc_profile.domain.suppressions import Suppression
from svc_profile.wire.profiles import profile_id
from svc_profile.wire.values import bad_token, key_in, read_time, require_empty

MOST_FRAGMENTS = 1_000

FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Between which a request is filed, and begun."""

SOURCE = OWN_WISH
"""Source of events that requests of data subjects lead to."""

MESSAGES = (pb.ErasureRequested, pb.ProbeRequested, pb.ProbeReported, FragmentsForgotten)
"""Messages of an erasure that say whom it is about."""


def read_draft(request: pb.CreateDataRequestRequest, regime: Regime, now: datetime) -> Draft:
    """Read a request as it is filed; `regime` is the one of the settings."""
    if not request.kind:
        raise Invalid.field("kind", "must be given")
    traits = json_format.MessageToDict(request.traits) if request.HasField("traits") else {}
    return Draft(
        kind=Kind(request.kind),
        regime=Regime(request.regime) if request.regime else regime,
        requester=Requester(request.requester) if request.requester else Requester.SELF,
        channel=request.channel,
        filed_time=_time(request, "filed_time") or now,
        not_before_time=_time(request, "not_before_time") or now,
        traits=traits,
        purposes=tuple(request.purposes),
    )


def _time(request: pb.CreateDataRequestRequest, field: Literal["filed_time", "not_before_time"]) -> datetime | None:
    if not request.HasField(field):
        return None
    moment = from_us(read_time(getattr(request, field), field))
    # PostgreSQL's driver reads the first and the last moment that it can write as no time at all.
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise Invalid.field(field, f"must be in the years {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def data_request_to_proto(
    request: DataRequest, answers: Collection[Answer], services: Collection[str], now: datetime
) -> pb.DataRequest:
    """Write a request with what each service has done of it."""
    message = pb.DataRequest(
        data_request_id=request.data_request_id,
        kind=pb.DataRequestKind.ValueType(request.kind),
        regime=pb.PrivacyRegime.ValueType(request.draft.regime),
        requester=pb.Requester.ValueType(request.draft.requester),
        channel=request.draft.channel,
        state=pb.DataRequestState.ValueType(request.state),
        refusal_reason=request.refusal_reason,
        profile_id=profile_id(request.profile) if request.profile else "",
        filed_time=to_timestamp(request.draft.filed_time),
        due_time=to_timestamp(request.due_time),
        not_before_time=to_timestamp(request.draft.not_before_time),
        actor=request.actor,
        step=str(request.step),
        overdue=request.is_overdue(now),
        services=list(_progress(request, answers, services)),
    )
    if request.done_time is not None:
        message.done_time.CopyFrom(to_timestamp(request.done_time))
    return message


def _progress(
    request: DataRequest, answers: Collection[Answer], services: Collection[str]
) -> Iterator[pb.ServiceProgress]:
    if request.kind not in (Kind.ACCESS, Kind.ERASE) or request.state not in (State.RUNNING, State.DONE):
        return
    asked = ASKED.get(request.step)
    for service in services:
        mine = [each for each in answers if each.service == service and each.round in (0, request.round)]
        last = max(mine, key=lambda each: each.answered_time, default=None)
        step = asked or (last.asked if last else "")
        progress = pb.ServiceProgress(service=service, step=step)
        done = next((each for each in mine if each.asked == step), None)
        if done is not None:
            progress.done_time.CopyFrom(to_timestamp(done.answered_time))
        yield progress


def data_request_changed(request: DataRequest) -> pb.DataRequestChanged:
    """Say how far a request is; not whom it is about."""
    return pb.DataRequestChanged(
        data_request_id=request.data_request_id,
        kind=pb.DataRequestKind.ValueType(request.kind),
        state=pb.DataRequestState.ValueType(request.state),
        due_time=to_timestamp(request.due_time),
    )


def fragments_forgotten(request: DataRequest) -> Iterator[FragmentsForgotten]:
    """Say which fragments are no more, in messages of at most 1,000."""
    fragments = request.subject.fragments
    for start in range(0, len(fragments), MOST_FRAGMENTS):
        yield FragmentsForgotten(
            fragment_ids=fragments[start : start + MOST_FRAGMENTS],
            reason=FORGET_REASON_ERASED,
            request_id=request.data_request_id,
        )


def erasure_requested(request: DataRequest) -> pb.ErasureRequested:
    """Ask every service to erase."""
    return pb.ErasureRequested(
        data_request_id=request.data_request_id, round=request.round, fragment_ids=request.subject.fragments
    )


def probe_requested(request: DataRequest) -> pb.ProbeRequested:
    """Ask every service to search."""
    return pb.ProbeRequested(
        data_request_id=request.data_request_id,
        round=request.round,
        fragment_ids=[each for each in request.subject.fragments if each not in request.subject.shared],
        shared_fragment_ids=request.subject.shared,
        values=request.subject.traces,
    )


def export_requested(request: DataRequest) -> pb.ExportRequested:
    """Ask every service for all that it keeps."""
    return pb.ExportRequested(data_request_id=request.data_request_id, fragment_ids=request.subject.fragments)


def read_erased(report: pb.ErasureReported, now: datetime) -> Answer:
    """Read what a service removed and kept."""
    kept = [{"what": each.what, "count": each.count, "why": each.why} for each in report.kept]
    return Answer(report.service, "erase", report.round, now, {"removed": _counts(report.removed), "kept": kept})


def read_probed(report: pb.ProbeReported, now: datetime) -> Answer:
    """Read what a service found."""
    found = {
        "removed": _counts(report.removed),
        "leftovers": _counts(report.leftovers),
        "searched_columns": report.searched_columns,
    }
    return Answer(report.service, "probe", report.round, now, found)


def _counts(rows: Collection[pb.RemovedRows]) -> dict[str, int]:
    return {each.what: each.count for each in rows}


def read_part(part: pb.ExportPart, stream_sequence: int) -> Part:
    """Read a part of an export."""
    return Part(
        part.data_request_id,
        part.service,
        part.attempt,
        part.number,
        part.file,
        part.last,
        part.rows,
        stream_sequence,
    )


def rectifying_batch(
    request: DataRequest, names: Sequence[Name], identifier_traits: Mapping[str, str]
) -> EventBatch | None:
    """Write the event that sets and clears traits of a customer, under the strongest name that an event can carry."""
    time_us = to_us(request.step_time)
    event = Event(
        message_id=request.data_request_id,
        type=EventType.EVENT_TYPE_IDENTIFY,
        source=SOURCE,
        time_us=time_us,
        received_time_us=time_us,
    )
    # Of several of one type, the one that the request names: what it sets stays there when the customer is split.
    last = sorted(names, key=lambda name: (name.fragment == request.profile, name.fragment))
    by_namespace = {name.namespace: name.value for name in last}
    traits = dict(request.draft.traits)
    free = [trait for trait in identifier_traits if trait not in traits]
    carried = next((trait for trait in free if identifier_traits[trait] in by_namespace), None)
    if USER_ID in by_namespace:
        event.user_id = by_namespace[USER_ID]
    elif carried is not None:
        traits[carried] = by_namespace[identifier_traits[carried]]
    elif ANONYMOUS_ID in by_namespace:
        event.anonymous_id = by_namespace[ANONYMOUS_ID]
    else:
        return None
    event.traits = msgspec.json.encode(traits)
    return EventBatch(events=[event])


def certificate_to_proto(certificate: Certificate) -> pb.ErasureCertificate:
    """Write a certificate."""
    return pb.ErasureCertificate(
        data_request_id=certificate.data_request_id,
        text=certificate.text,
        signature=base64.b64encode(certificate.signature).decode(),
        key_id=certificate.key_id,
    )


def read_signature(text: str) -> bytes:
    """Read base64; raises `Invalid`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid.field("signature", "must be base64") from error


def suppression_to_proto(suppression: Suppression) -> pb.Suppression:
    """Write a suppression."""
    return pb.Suppression(
        suppression_id=suppression.suppression_id.hex(),
        namespace=suppression.namespace,
        data_request_id=suppression.data_request_id,
        created_time=to_timestamp(suppression.created_time),
    )


def position_of_suppression(suppression: Suppression) -> dict[str, Any]:
    """Write where a suppression stands in the list."""
    return {"time": suppression.created_time.isoformat(), "id": suppression.suppression_id.hex()}


def suppression_position(token: Mapping[str, Any]) -> tuple[datetime, bytes] | None:
    """Read what `position_of_suppression` wrote; None is the beginning."""
    match token:
        case {"time": str(time), "id": str(id_)}:
            try:
                created = datetime.fromisoformat(time)
            except ValueError as error:
                raise bad_token() from error
            if created.tzinfo is None:
                raise bad_token()
            return created, key_in(id_)
    require_empty(token)
    return None


def request_position(token: Mapping[str, Any]) -> str:
    """Read the position of a request in the list; an empty text is the beginning."""
    match token:
        case {"id": str(id_)}:
            return id_
    require_empty(token)
    return ""
