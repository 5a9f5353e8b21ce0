# SPDX-License-Identifier: Apache-2.0
"""All that is shown of a customer at once, as far as a mask asks for it."""

from collections.abc import Set

from chassis.clock import timestamp_from_us
from chassis.errors import Invalid
from dangol.profile.v1 import profile_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from svc_profile.domain.heard import Membership, StageChange
from svc_profile.domain.purposes import Consent
from svc_profile.domain.views import ON_REQUEST, View
from svc_profile.wire.interactions import open_case_to_proto
from svc_profile.wire.profiles import profile_id, profile_to_proto
from svc_profile.wire.recent import recent_to_proto
from svc_profile.wire.values import fill_struct

_ALWAYS = "profile_id"
_ALL = frozenset(pb.Profile.DESCRIPTOR.fields_by_name)
_PLAIN = _ALL - ON_REQUEST


def read_parts(mask: FieldMask) -> Set[str]:
    """Read which fields of a profile are wanted: none named is what needs no asking, `*` is everything."""
    if not mask.paths:
        return _PLAIN
    parts = set(mask.paths)
    if "*" in parts:
        return _ALL
    if unknown := sorted(parts - _ALL):
        raise Invalid.field("read_mask", f"{unknown[0]} is no field of a profile; these are: {', '.join(sorted(_ALL))}")
    return parts - {_ALWAYS}


def view_to_proto(view: View, parts: Set[str]) -> pb.Profile:
    """Write a customer; fields that were not asked for stay empty."""
    message = profile_to_proto(view.profile) if view.profile else pb.Profile(profile_id=profile_id(view.profile_id))
    _leave_only(message, parts)
    message.consents.extend(map(_consent_to_proto, view.consents))
    message.segments.extend(map(_membership_to_proto, view.segments))
    message.stages.extend(map(_stage_to_proto, view.stages))
    message.recent_events.extend(map(recent_to_proto, view.recent_events))
    message.open_cases.extend(map(open_case_to_proto, view.open_cases))
    if view.computed_traits is not None:
        fill_struct(message.computed_traits, view.computed_traits)
    return message


def _leave_only(message: Message, parts: Set[str]) -> None:
    for field, _ in message.ListFields():
        if field.name not in parts and field.name != _ALWAYS:
            message.ClearField(field.name)


def _consent_to_proto(consent: Consent) -> pb.ProfileConsent:
    message = pb.ProfileConsent(purpose_id=consent.purpose_id, granted=consent.granted)
    if consent.entry is not None:
        message.answered_time.CopyFrom(timestamp_from_us(consent.entry.time_us))
    if consent.expires_us is not None:
        message.expire_time.CopyFrom(timestamp_from_us(consent.expires_us))
    return message


def _membership_to_proto(membership: Membership) -> pb.SegmentMembership:
    return pb.SegmentMembership(
        segment_id=membership.segment_id,
        name=membership.name,
        entered_time=timestamp_from_us(membership.entered_time_us),
        rule_version=membership.rule_version,
    )


def _stage_to_proto(stage: StageChange) -> pb.ProfileStage:
    return pb.ProfileStage(
        track=stage.track,
        stage=stage.new_stage,
        previous_stage=stage.old_stage,
        entered_time=timestamp_from_us(stage.change_time_us),
        evidence=stage.evidence,
    )
