# SPDX-License-Identifier: Apache-2.0
"""Which customers belong together."""

from uuid import UUID

from chassis.calls import current_caller, tell_of
from chassis.clock import now, to_us
from chassis.database import Database
from chassis.identity import IdentityKey
from dangol.profile.v1 import groups_pb2 as pb
from dangol.profile.v1.groups_pb2_grpc import GroupServiceServicer
from grpc.aio import ServicerContext

from chassis import pages
from svc_profile.usecases import groups
from svc_profile.wire import groups as wire
from svc_profile.wire.traits import name_position


class GroupRpc(GroupServiceServicer):
    """Tells groups and their members, and lets staff declare households."""

    def __init__(self, database: Database, key: IdentityKey) -> None:
        self._database = database
        self._key = key

    async def GetGroup(self, request: pb.GetGroupRequest, context: ServicerContext) -> pb.GetGroupResponse:
        """Return one group."""
        async with self._database.snapshot() as tx:
            group, count = await groups.get_group(tx, request.group_id)
        return pb.GetGroupResponse(group=wire.group_to_proto(group, count))

    async def ListGroups(self, request: pb.ListGroupsRequest, context: ServicerContext) -> pb.ListGroupsResponse:
        """Return groups by id."""
        size = pages.page_size(request.page_size)
        after = name_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await groups.list_groups(tx, kind=request.kind, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListGroupsResponse(
            groups=[wire.group_to_proto(group) for group in page],
            next_page_token=pages.encode_token({"name": page[-1].group_id}) if more else "",
        )

    async def ListGroupMembers(
        self, request: pb.ListGroupMembersRequest, context: ServicerContext
    ) -> pb.ListGroupMembersResponse:
        """Return the customers in a group."""
        size = pages.page_size(request.page_size)
        after = wire.member_position(pages.decode_token(request.page_token))
        async with self._database.snapshot() as tx:
            found = await groups.list_members(tx, request.group_id, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        tell_of(UUID(bytes=member.profile) for member in page)
        return pb.ListGroupMembersResponse(
            members=[wire.member_to_proto(member) for member in page],
            next_page_token=pages.encode_token(wire.position_of_member(page[-1])) if more else "",
        )

    async def ListProfileGroups(
        self, request: pb.ListProfileGroupsRequest, context: ServicerContext
    ) -> pb.ListProfileGroupsResponse:
        """Return the groups that a customer belongs to."""
        size = pages.page_size(request.page_size)
        after = name_position(pages.decode_token(request.page_token))
        fragment = self._key.resolve(request.profile).bytes
        async with self._database.snapshot() as tx:
            found = await groups.list_profile_groups(tx, fragment, after=after, most=size + 1)
        page, more = found[:size], found[size:]
        return pb.ListProfileGroupsResponse(
            groups=[wire.membership_to_proto(membership) for membership in page],
            next_page_token=pages.encode_token({"name": page[-1].group.group_id}) if more else "",
        )

    async def PutHousehold(self, request: pb.PutHouseholdRequest, context: ServicerContext) -> pb.PutHouseholdResponse:
        """Declare a household or further members of one."""
        members = [
            (self._key.resolve(member.profile, f"members[{place}].profile").bytes, member.role)
            for place, member in enumerate(request.members)
        ]
        wanted = groups.Household(request.household_id, request.display_name, members)
        async with self._database.transaction() as tx:
            group, count = await groups.put_household(tx, wanted, actor=current_caller().name, now_us=to_us(now()))
        tell_of(UUID(bytes=fragment) for fragment, _ in members)
        return pb.PutHouseholdResponse(household=wire.group_to_proto(group, count))

    async def RemoveFromHousehold(
        self, request: pb.RemoveFromHouseholdRequest, context: ServicerContext
    ) -> pb.RemoveFromHouseholdResponse:
        """Take a customer out of a household."""
        fragment = self._key.resolve(request.profile).bytes
        async with self._database.transaction() as tx:
            await groups.remove_from_household(
                tx, request.household_id, fragment, actor=current_caller().name, now_us=to_us(now())
            )
        return pb.RemoveFromHouseholdResponse()
