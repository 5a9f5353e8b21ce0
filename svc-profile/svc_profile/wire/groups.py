# SPDX-License-Identifier: Apache-2.0
"""Groups and households."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.clock import timestamp_from_us
from dangol.profile.v1 import groups_pb2 as pb

from svc_profile.domain.customer_groups import Group, Member, Membership, Ruling
from svc_profile.domain.events import FragmentKey
from svc_profile.wire.profiles import profile_id
from svc_profile.wire.values import bad_token, fill_struct, require_empty


def group_to_proto(group: Group, member_count: int = 0) -> pb.Group:
    """Write a group."""
    message = pb.Group(
        group_id=group.group_id,
        kind=group.kind,
        first_seen_time=timestamp_from_us(group.first_seen_us),
        last_seen_time=timestamp_from_us(group.last_seen_us),
        member_count=member_count,
    )
    fill_struct(message.traits, group.values)
    return message


def member_to_proto(member: Member) -> pb.GroupMember:
    """Write a customer in a group."""
    return pb.GroupMember(
        profile_id=profile_id(member.profile),
        role=member.role,
        first_seen_time=timestamp_from_us(member.first_us),
        last_seen_time=timestamp_from_us(member.last_us),
    )


def membership_to_proto(membership: Membership) -> pb.ProfileGroup:
    """Write a group that a customer belongs to."""
    return pb.ProfileGroup(
        group=group_to_proto(membership.group),
        role=membership.role,
        first_seen_time=timestamp_from_us(membership.first_us),
        last_seen_time=timestamp_from_us(membership.last_us),
    )


def member_position(token: Mapping[str, Any]) -> FragmentKey | None:
    """Read the profile that a page begins after; None is the beginning."""
    match token:
        case {"profile": str(profile)}:
            try:
                return UUID(profile).bytes
            except ValueError as error:
                raise bad_token() from error
    require_empty(token)
    return None


def position_of_member(member: Member) -> dict[str, Any]:
    """Write where a customer stands in the list."""
    return {"profile": str(UUID(bytes=member.profile))}


def household_changed(
    rulings: Sequence[Ruling], group_id: str, actor: str, decided_us: int
) -> pb.HouseholdMembersChanged:
    """Announce what staff decided about a household."""
    return pb.HouseholdMembersChanged(
        group_id=group_id,
        changes=[
            pb.HouseholdMemberChange(fragment_id=ruling.fragment, member=ruling.member, role=ruling.role)
            for ruling in rulings
        ],
        actor=actor,
        decided_time=timestamp_from_us(decided_us),
    )
