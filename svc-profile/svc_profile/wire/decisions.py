# SPDX-License-Identifier: Apache-2.0
"""What people decide about identity, and why a customer is one person."""

from collections.abc import Mapping
from typing import Any

from chassis.clock import timestamp_from_us
from dangol.profile.v1 import identity_pb2 as pb
from dangol.profile.v1 import profile_pb2

from svc_profile.domain.decisions import DecisionKind, Record, Side
from svc_profile.domain.evidence import Explanation, Outcome, Step
from svc_profile.domain.outcomes import Decided, Resolution
from svc_profile.wire.profiles import identifier_to_proto, profile_id
from svc_profile.wire.values import in_bigint, require_empty
from svc_profile.wire.views import view_to_proto

MAX_LINKS = 1_000

_KINDS = {
    DecisionKind.MERGE: pb.IDENTITY_DECISION_KIND_MERGE,
    DecisionKind.SPLIT: pb.IDENTITY_DECISION_KIND_SPLIT,
}
_OUTCOMES = {
    Outcome.FOLLOWED: pb.LINK_OUTCOME_FOLLOWED,
    Outcome.CORROBORATING: pb.LINK_OUTCOME_CORROBORATING,
    Outcome.OUTRANKED: pb.LINK_OUTCOME_REFUSED_OUTRANKED,
    Outcome.LIMIT: pb.LINK_OUTCOME_REFUSED_LIMIT,
    Outcome.DECISION: pb.LINK_OUTCOME_REFUSED_DECISION,
}
_RESOLUTIONS = {
    pb.CONFLICT_RESOLUTION_MERGE: Resolution.MERGE,
    pb.CONFLICT_RESOLUTION_KEEP_APART: Resolution.KEEP_APART,
    pb.CONFLICT_RESOLUTION_MOVE: Resolution.MOVE,
}
_SHOWN = frozenset(profile_pb2.Profile.DESCRIPTOR.fields_by_name)


def read_resolution(resolution: pb.ConflictResolution.ValueType) -> Resolution:
    """Read how a conflict is resolved."""
    return _RESOLUTIONS[resolution]


def change_to_proto(decided: Decided) -> pb.IdentityChange:
    """Write what a decision changed."""
    return pb.IdentityChange(
        before=[view_to_proto(view, _SHOWN) for view in decided.before.views],
        before_count=decided.before.count,
        after=[view_to_proto(view, _SHOWN) for view in decided.after.views],
        after_count=decided.after.count,
        made=[decision_to_proto(record) for record in decided.made],
        revoked=[decision_to_proto(record) for record in decided.revoked],
    )


def placements_to_proto(decided: Decided, dry_run: bool) -> list[pb.ProfilePlacement]:
    """Write what the customers after a decision would be made of; once they are, nobody has to be told."""
    placements = decided.placements if dry_run else {}
    return [
        pb.ProfilePlacement(profile_id=profile_id(profile), fragment_ids=fragments)
        for profile, fragments in placements.items()
    ]


def decision_to_proto(record: Record) -> pb.IdentityDecision:
    """Write a decision."""
    message = pb.IdentityDecision(
        decision_id=f"idd_{record.decision_id}",
        kind=_KINDS[record.kind],
        actor=record.note.actor,
        reason=record.note.reason,
        decide_time=timestamp_from_us(record.note.time_us),
        sides=[_side_to_proto(side) for side in record.sides],
    )
    if record.revoked is not None:
        message.revoked_by, message.revoke_reason = record.revoked.actor, record.revoked.reason
        message.revoke_time.CopyFrom(timestamp_from_us(record.revoked.time_us))
    return message


def _side_to_proto(side: Side) -> pb.IdentitySide:
    return pb.IdentitySide(
        identifiers=[identifier_to_proto(known) for known in side.known_as], identifier_count=side.size
    )


def explanation_to_proto(explanation: Explanation) -> pb.ExplainProfileResponse:
    """Write why a customer is one person."""
    return pb.ExplainProfileResponse(
        profile_id=profile_id(explanation.profile),
        links=[_step_to_proto(step) for step in explanation.steps[:MAX_LINKS]],
        link_count=len(explanation.steps),
        decisions=[decision_to_proto(record) for record in explanation.decisions],
        path=[_step_to_proto(step) for step in explanation.path],
        path_confidence=explanation.path_confidence,
    )


def _step_to_proto(step: Step) -> pb.IdentityLink:
    return pb.IdentityLink(
        identifier=identifier_to_proto(step.known_as),
        belongs_to=identifier_to_proto(step.belongs_to),
        rule=step.rule,
        message_id=step.message_id,
        source=step.source,
        claim_time=timestamp_from_us(step.time_us),
        confidence=step.confidence,
        outcome=_OUTCOMES[step.outcome],
        claiming_profile_id=profile_id(step.claiming_profile) if step.claiming_profile else "",
    )


def position_of_decision(record: Record) -> dict[str, Any]:
    """Write where a decision stands in the list."""
    return {"decision": record.decision_id}


def decision_position(token: Mapping[str, Any]) -> int | None:
    """Read what `position_of_decision` wrote; None is the beginning."""
    match token:
        case {"decision": int(number)}:
            return in_bigint(number)
    require_empty(token)
    return None
