# SPDX-License-Identifier: Apache-2.0
"""The truth call."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from chassis.identity import ProfileId, format_profile_id
from dangol.operations.v1 import operations_pb2 as pb
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from svc_profile.domain.fates import Fate
from svc_profile.domain.rejects import SCHEMA_WARNING, RejectedEvent
from svc_profile.domain.traces import LinkMade, Repeated, Statement, Trace, Traces
from svc_profile.wire.values import fill_struct

_KEY_ONLY = "only its key is kept: it names nobody, or a schema rejects it"
_FATES: Mapping[Fate | None, tuple[str, str]] = {
    None: ("KEY_ONLY", _KEY_ONLY),
    Fate.WITHHELD: ("WITHHELD", "dropped: the customer has not agreed to analytics; only its key is kept"),
    Fate.SUPPRESSED: ("SUPPRESSED", "dropped: the customer was erased; only its key is kept"),
    Fate.ERASED: ("ERASED", "the customer was erased; only its key is kept"),
    Fate.ANONYMISED: ("ANONYMISED", "its time is over; what is kept is nobody's"),
    Fate.EXPIRED: ("EXPIRED", "learnt from, and its time is over; only its key is kept"),
}
_ACCEPTED = "learnt from, and handed on to the other services; the same event again would teach nothing"


def traces_to_proto(message_id: str, traces: Traces) -> pb.TraceEventResponse:
    """Write all that is known of the events with a message id."""
    return pb.TraceEventResponse(
        events=[_event(message_id, trace) for trace in traces.taken],
        steps=[*map(_rejection, traces.rejected), *(step for trace in traces.taken for step in _steps(trace))],
    )


def _event(message_id: str, trace: Trace) -> pb.TracedEvent:
    written = pb.TracedEvent(
        message_id=message_id,
        source=trace.source,
        name=trace.name,
        received_time=_time(trace.received_us),
    )
    event = trace.event
    if event is None or trace.fragment is None or trace.profile is None:
        return written
    written.fragment_id = trace.fragment
    written.profile_id = format_profile_id(ProfileId(UUID(bytes=trace.profile)))
    written.event_time.CopyFrom(timestamp_from_us(event.time_us))
    fill_struct(written.properties, event.properties)
    fill_struct(written.traits, event.traits)
    return written


def _rejection(event: RejectedEvent) -> pb.TraceStep:
    return pb.TraceStep(
        source=event.source,
        phase=pb.TRACE_PHASE_COLLECTED,
        outcome="WARNED" if event.reason == SCHEMA_WARNING else "REJECTED",
        time=timestamp_from_us(event.received_time_us),
        detail=event.detail,
        rejection=pb.TracedRejection(reason=event.reason, position=event.position),
    )


def _steps(trace: Trace) -> Iterator[pb.TraceStep]:
    outcome, detail = _FATES[trace.fate] if trace.event is None else ("ACCEPTED", _ACCEPTED)
    yield pb.TraceStep(
        source=trace.source,
        phase=pb.TRACE_PHASE_COLLECTED,
        outcome=outcome,
        time=_time(trace.received_us),
        detail=detail,
    )
    if trace.repeated is not None:
        yield _repeated(trace, trace.repeated)
    for link in trace.links:
        yield _link(trace, link)
    for statement in trace.statements:
        yield _statement(trace, statement)


def _repeated(trace: Trace, repeated: Repeated) -> pb.TraceStep:
    return pb.TraceStep(
        source=trace.source,
        phase=pb.TRACE_PHASE_COLLECTED,
        outcome="REPEATED",
        time=_time(repeated.last_received_us),
        detail="it came again, last at this time; nothing was learnt from that, and nobody else heard of it",
        repetition=pb.TracedRepetition(message_count=repeated.message_count),
    )


def _time(microseconds: int) -> Timestamp | None:
    return timestamp_from_us(microseconds) if microseconds else None


def _link(trace: Trace, link: LinkMade) -> pb.TraceStep:
    return pb.TraceStep(
        source=trace.source,
        phase=pb.TRACE_PHASE_IDENTITY,
        outcome="REFUSED" if link.refused else "LINKED",
        detail="the earliest evidence for the link" if not link.refused else "it would have joined two known people",
        link=pb.TracedLink(namespace=link.namespace, linked_namespace=link.linked_namespace, rule=link.rule),
    )


def _statement(trace: Trace, statement: Statement) -> pb.TraceStep:
    step = pb.TraceStep(
        source=trace.source,
        phase=pb.TRACE_PHASE_TRAITS,
        outcome="CONFIRMED" if statement.old == statement.new else "CHANGED",
        detail="it is the customer's value now" if statement.holds else "another event decides the value now",
        trait=pb.TracedTrait(name=statement.name, new_value=_value(statement.new)),
    )
    if statement.old is not None:
        step.trait.old_value.CopyFrom(_value(statement.old))
    return step


def _value(value: Any) -> Value:
    holder = pb.TracedEvent()
    fill_struct(holder.traits, {"value": value})
    return holder.traits.fields["value"]
