# SPDX-License-Identifier: Apache-2.0
"""What happened with a customer."""

from collections.abc import Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from dangol.feedback.v1 import feedback_pb2 as feedback
from dangol.profile.v1 import agent_pb2 as pb
from dangol.profile.v1.consent_pb2 import ConsentAnswer
from dangol.profile.v1.profile_pb2 import Identifier

from svc_profile.domain.heard import Feedback
from svc_profile.domain.interactions import Kept
from svc_profile.domain.ledger import Record
from svc_profile.domain.timeline import DecisionMade, LinkMade, Position, TimelineEntry, Wanted
from svc_profile.domain.views import RecentEvent
from svc_profile.wire.interactions import interaction_to_proto
from svc_profile.wire.recent import recent_to_proto
from svc_profile.wire.values import bad_token, in_bigint, in_years, read_time, require_empty


def read_wanted(request: pb.ListTimelineRequest, token: Mapping[str, Any]) -> Wanted:
    """Read which entries are wanted."""
    return Wanted(
        kinds=list(request.kinds),
        start_us=read_time(request.start_time, "start_time") if request.HasField("start_time") else None,
        end_us=read_time(request.end_time, "end_time") if request.HasField("end_time") else None,
        after=_position(token),
    )


def position_of_entry(entry: TimelineEntry) -> dict[str, Any]:
    """Write where an entry stands in the list."""
    return {"time": entry.time_us, "kind": int(entry.kind), "id": entry.entry_id}


def _position(token: Mapping[str, Any]) -> Position | None:
    match token:
        case {"time": int(time_us), "kind": int(kind), "id": str(entry_id)}:
            if "\x00" in entry_id:
                raise bad_token()
            return Position(in_bigint(time_us + 1) - 1, kind, entry_id)
    require_empty(token)
    return None


def entry_to_proto(entry: TimelineEntry) -> pb.TimelineEntry:
    """Write one thing that happened."""
    message = pb.TimelineEntry(
        kind=pb.TimelineKind.ValueType(entry.kind),
        entry_id=entry.entry_id,
        time=timestamp_from_us(in_years(entry.time_us)),
    )
    match entry.detail:
        case RecentEvent() as event:
            message.event.CopyFrom(recent_to_proto(event))
        case Kept() as kept:
            message.interaction.CopyFrom(interaction_to_proto(kept))
        case Feedback() as said:
            message.feedback.CopyFrom(_feedback_to_proto(said))
        case Record() as record:
            message.consent.CopyFrom(_consent_to_proto(record))
        case LinkMade() as link:
            message.link.CopyFrom(_link_to_proto(link))
        case DecisionMade() as made:
            message.decision.CopyFrom(_decision_to_proto(made))
    return message


def _feedback_to_proto(said: Feedback) -> pb.TimelineFeedback:
    return pb.TimelineFeedback(
        feedback_id=said.feedback_id,
        kind=feedback.FeedbackKind.ValueType(said.kind),
        rating=said.rating,
        sentiment=feedback.SentimentLabel.ValueType(said.sentiment),
        sentiment_probability=said.sentiment_probability,
        item_id=said.item_id,
        language=said.language,
    )


def _consent_to_proto(record: Record) -> pb.TimelineConsent:
    return pb.TimelineConsent(
        purpose_id=record.purpose_id,
        answer=ConsentAnswer.Value(f"CONSENT_ANSWER_{record.answer.name}"),
        notice_version=record.notice_version,
        channel=record.channel,
        actor=record.actor,
    )


def _link_to_proto(link: LinkMade) -> pb.TimelineLink:
    return pb.TimelineLink(
        identifier=Identifier(namespace=link.identifier[0], value=link.identifier[1]),
        linked_to=Identifier(namespace=link.linked_to[0], value=link.linked_to[1]),
        rule=link.rule,
    )


def _decision_to_proto(made: DecisionMade) -> pb.TimelineDecision:
    return pb.TimelineDecision(
        decision_id=made.decision_id, decision=made.kind, revoked=made.revoked, actor=made.actor, reason=made.reason
    )
