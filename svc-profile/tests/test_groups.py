# SPDX-License-Identifier: Apache-2.0
"""Groups and households: out of events in any order, and by decisions of staff."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.identity import IdentityKey, format_profile_id
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.profile.v1 import groups_pb2 as pb
from dangol.profile.v1 import profile_pb2
from dangol.profile.v1.groups_pb2_grpc import GroupServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.customer_groups import Group, learn_groups
from svc_profile.domain.events import Namer
from svc_profile.settings import Settings
from svc_profile.wire.collecting import read_event
from svc_profile.wire.groups import group_to_proto

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
NAMER = Namer(KEY)
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture(scope="module")
async def quiet(engines: Engines) -> AsyncIterator[RunningService]:
    """A service whose consumers the test runs itself."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers and groups of one test apart from those of the others."""
    return f"t{next(numbers)}"


def event(kind: str, *, at: int = 0, traits: Any = None, **fields: Any) -> Event:
    """Build an event `at` some minutes after the start."""
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


def stub(service: RunningService) -> Any:
    return service.stub(GroupServiceStub)


async def get(service: RunningService, group_id: str) -> pb.Group:
    answer: pb.GetGroupResponse = await stub(service).GetGroup(pb.GetGroupRequest(group_id=group_id))
    return answer.group


async def members(service: RunningService, group_id: str) -> dict[str, str]:
    """Return the role of each member, by profile id; read in pages of one."""
    found: dict[str, str] = {}
    request = pb.ListGroupMembersRequest(group_id=group_id, page_size=1)
    while True:
        answer = await stub(service).ListGroupMembers(request)
        found |= {member.profile_id: member.role for member in answer.members}
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def groups_of(service: RunningService, profile: str) -> list[str]:
    answer = await stub(service).ListProfileGroups(pb.ListProfileGroupsRequest(profile=profile))
    return [each.group.group_id for each in answer.groups]


def prf(reference: str) -> str:
    return format_profile_id(KEY.resolve(reference))


async def test_an_account_is_learnt_from_group_events(service: RunningService, tag: str) -> None:
    """Traits fold by event time, the kind follows from them, and members are customers."""
    acme = f"acme-{tag}"
    await collect(
        service,
        event("group", at=5, user_id=f"kim-{tag}", group_id=acme, traits={"name": "Acme Ltd", "seats": 20}),
        event("group", at=1, user_id=f"lee-{tag}", group_id=acme, traits={"name": "Acme", "plan": "free"}),
    )
    group = await get(service, acme)
    assert (group.kind, group.member_count) == ("account", 2)
    assert MessageToDict(group.traits) == {"name": "Acme Ltd", "seats": 20, "plan": "free"}
    assert group.first_seen_time.ToMicroseconds() == START_US + MINUTE_US
    assert group.last_seen_time.ToMicroseconds() == START_US + 5 * MINUTE_US
    assert await members(service, acme) == {prf(f"user_id:kim-{tag}"): "", prf(f"user_id:lee-{tag}"): ""}
    await collect(service, event("group", at=6, user_id=f"kim-{tag}", group_id=acme, traits={"type": "Supplier"}))
    assert (await get(service, acme)).kind == "supplier"
    listed = await stub(service).ListGroups(pb.ListGroupsRequest(kind="supplier"))
    assert acme in [each.group_id for each in listed.groups]
    listed = await stub(service).ListGroups(pb.ListGroupsRequest(kind="account"))
    assert acme not in [each.group_id for each in listed.groups]


async def test_a_merge_moves_memberships(service: RunningService, tag: str) -> None:
    """What the visitor belonged to, the user belongs to, once; nothing is written for it."""
    visitor, user, acme = f"d-{tag}", f"u-{tag}", f"acme-{tag}"
    await collect(
        service,
        event("group", anonymous_id=visitor, group_id=acme),
        event("group", at=1, user_id=user, group_id=acme),
    )
    assert (await get(service, acme)).member_count == 2
    await collect(service, event("identify", at=2, anonymous_id=visitor, user_id=user))
    assert await members(service, acme) == {prf(f"anonymous_id:{visitor}"): ""}
    assert (await get(service, acme)).member_count == 1
    assert await groups_of(service, f"user_id:{user}") == [acme]


async def test_what_was_done_on_a_shared_device_joins_its_later_user(service: RunningService, tag: str) -> None:
    """Also when the login becomes known only afterwards: the first user leaves the group again."""
    tablet, acme = f"d-{tag}", f"acme-{tag}"
    await collect(
        service,
        event("identify", anonymous_id=tablet, user_id=f"kim-{tag}"),
        event("group", at=12, anonymous_id=tablet, group_id=acme),
    )
    assert await groups_of(service, f"user_id:kim-{tag}") == [acme]
    await collect(service, event("identify", at=10, anonymous_id=tablet, user_id=f"lee-{tag}"))
    assert await groups_of(service, f"user_id:kim-{tag}") == []
    assert await groups_of(service, f"user_id:lee-{tag}") == [acme]
    assert (await get(service, acme)).member_count == 1


async def household(service: RunningService, household_id: str = "", name: str = "", **roles: str) -> pb.Group:
    request = pb.PutHouseholdRequest(
        household_id=household_id,
        display_name=name,
        members=[pb.HouseholdMember(profile=f"user_id:{user}", role=role) for user, role in roles.items()],
    )
    answer: pb.PutHouseholdResponse = await stub(service).PutHousehold(request)
    return answer.household


async def test_staff_declares_a_household_and_takes_it_back(service: RunningService, tag: str) -> None:
    """Who is put in, taken out and put in again is in, with the latest role, and every step is announced."""
    kim, lee = f"kim_{tag}", f"lee_{tag}"
    await collect(service, event("page", user_id=kim), event("page", user_id=lee))
    declared = await household(service, name="Kim & Lee", **{kim: "parent", lee: "child"})
    home = declared.group_id
    assert home.startswith("hh_")
    assert (declared.kind, declared.member_count, declared.traits["name"]) == ("household", 2, "Kim & Lee")
    await household(service, home, **{lee: "parent"})
    everybody = {prf(f"user_id:{kim}"): "parent", prf(f"user_id:{lee}"): "parent"}
    assert await members(service, home) == everybody
    remove = pb.RemoveFromHouseholdRequest(household_id=home, profile=f"user_id:{lee}")
    await stub(service).RemoveFromHousehold(remove)
    assert await members(service, home) == {prf(f"user_id:{kim}"): "parent"}
    assert await groups_of(service, f"user_id:{lee}") == []
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stub(service).RemoveFromHousehold(remove)
    assert gone.value.code() == grpc.StatusCode.NOT_FOUND
    again = await household(service, home, **{lee: "child"})
    assert (again.member_count, again.traits["name"]) == (2, "Kim & Lee")
    await service.settled()
    announced = [m for m in await service.published(pb.HouseholdMembersChanged) if m.group_id == home]
    assert [[c.member for c in m.changes] for m in announced] == [[True, True], [True], [False], [True]]
    assert {m.actor for m in announced} == {"test"}


async def test_an_event_neither_renames_a_household_nor_ends_it(service: RunningService, tag: str) -> None:
    """Events come from browsers too; of what staff declared they change nothing."""
    kim, home = f"kim_{tag}", f"home_{tag}"
    await collect(service, event("page", user_id=kim))
    await household(service, home, name="Kim & Lee", **{kim: "parent"})
    years = 20 * 365 * 24 * 60
    traits = {"kind": "account", "type": "account", "name": "Mallory's", "city": "Seoul"}
    await collect(service, event("group", at=years, user_id=f"mallory_{tag}", group_id=home, traits=traits))
    seen = await get(service, home)
    assert (seen.kind, seen.traits["name"], seen.traits["city"]) == ("household", "Kim & Lee", "Seoul")
    await stub(service).RemoveFromHousehold(
        pb.RemoveFromHouseholdRequest(household_id=home, profile=f"user_id:mallory_{tag}")
    )
    assert (await household(service, home, name="Kim", **{kim: "head"})).traits["name"] == "Kim"


async def test_taking_out_of_a_household_reaches_every_name(service: RunningService, tag: str) -> None:
    """A customer who was put in as two people before a merge leaves as one."""
    kim, mail = f"kim_{tag}", f"{tag}@example.com"
    await collect(
        service,
        event("identify", user_id=kim, traits={"email": mail}),
        event("page", user_id=f"lee_{tag}"),
    )
    home = (await household(service, **{kim: "parent", f"lee_{tag}": "child"})).group_id
    by_mail = pb.HouseholdMember(profile=f"email:{mail}", role="head")
    await stub(service).PutHousehold(pb.PutHouseholdRequest(household_id=home, members=[by_mail]))
    owner = (
        await service.stub(ProfileServiceStub).GetProfile(profile_pb2.GetProfileRequest(profile=f"email:{mail}"))
    ).profile
    assert (await members(service, home))[owner.profile_id] == "head"
    await stub(service).RemoveFromHousehold(pb.RemoveFromHouseholdRequest(household_id=home, profile=f"email:{mail}"))
    assert list(await members(service, home)) == [prf(f"user_id:lee_{tag}")]


async def test_who_puts_a_customer_in_a_household_or_lists_it_is_on_record(service: RunningService, tag: str) -> None:
    """With every member, whom the request names in a list or not at all."""
    kim, lee = f"kim_{tag}", f"lee_{tag}"
    await collect(service, event("page", user_id=kim), event("page", user_id=lee))
    home = (await household(service, **{kim: "parent", lee: "child"})).group_id
    await members(service, home)
    for user in (kim, lee):
        request = operations_pb2.ListAccessesRequest(profile=f"user_id:{user}")
        accesses = (await service.stub(AccessLogServiceStub).ListAccesses(request)).accesses
        methods = [access.method.rpartition(".")[2] for access in accesses]
        assert methods == ["ListGroupMembers", "PutHousehold"]


async def test_what_is_no_household_is_refused(service: RunningService, tag: str) -> None:
    user, acme = f"kim_{tag}", f"acme_{tag}"
    await collect(service, event("group", user_id=user, group_id=acme))
    for call, code in (
        (household(service, acme, **{user: ""}), grpc.StatusCode.FAILED_PRECONDITION),
        (household(service, f"h_{tag}", **{f"nobody_{tag}": ""}), grpc.StatusCode.NOT_FOUND),
        (get(service, f"none-{tag}"), grpc.StatusCode.NOT_FOUND),
        (members(service, f"none-{tag}"), grpc.StatusCode.NOT_FOUND),
        (groups_of(service, f"user_id:nobody-{tag}"), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == code


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("user_id:nobody-{}", r"members\[1\]\.profile: nobody is known"),
        ("somebody", r"members\[1\]\.profile: must be prf_"),
    ],
)
async def test_a_member_who_is_nobody_is_named_by_the_place_in_the_list(
    service: RunningService, tag: str, reference: str, words: str
) -> None:
    await collect(service, event("page", user_id=f"kim_{tag}"))
    members = [pb.HouseholdMember(profile=each) for each in (f"user_id:kim_{tag}", reference.format(tag))]
    with pytest.raises(grpc.aio.AioRpcError, match=words):
        await stub(service).PutHousehold(pb.PutHouseholdRequest(members=members))


GROUP_EVENTS = st.lists(
    st.builds(
        lambda user, group, at, traits: event("group", at=at, user_id=user, group_id=group, traits=traits),
        st.sampled_from(["u1", "u2", "u3"]),
        st.sampled_from(["g1", "g2", "가"]),
        st.integers(0, 5),
        st.dictionaries(
            st.sampled_from(["name", "kind", "type", "seats"]), st.sampled_from([None, "A", "Household", 1])
        ),
    ),
    min_size=1,
    max_size=15,
)


@given(GROUP_EVENTS, st.data())
def test_groups_fold_alike_in_every_order_and_grouping(history: list[Event], data: st.DataObject) -> None:
    events = [read_event(message, NAMER) for message in history]
    once = learn_groups(events)
    parts = data.draw(st.permutations([*events, *data.draw(st.lists(st.sampled_from(events), max_size=4))]))
    groups: dict[str, Group] = {}
    for each in parts:
        for group_id, learnt in learn_groups([each]).groups.items():
            if group_id in groups:
                learnt.absorb(groups[group_id])
            groups[group_id] = learnt
    assert groups == once.groups
    assert learn_groups(parts).members == once.members


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GROUP_EVENTS, st.data())
async def test_the_store_folds_groups_as_the_rules_do(
    quiet: RunningService, history: list[Event], data: st.DataObject
) -> None:
    """On a real PostgreSQL, every arrival of a history gives the same groups with the same members."""
    async with quiet.database.transaction() as tx:
        await tx.execute(
            "TRUNCATE fragments, links, fragment_profiles, events, derived_fragments, outbox, groups, group_members"
        )
    rest = data.draw(st.permutations([*history, *data.draw(st.lists(st.sampled_from(history), max_size=3))]))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        delivery = Delivery(EventBatch(events=rest[:size]), f"b{next(numbers)}", "events.collected.0", 0, 1)
        async with quiet.database.transaction() as tx:
            await Collecting(NAMER).on_collected(tx, [delivery])
        rest = rest[size:]
    learnt = learn_groups(read_event(message, NAMER) for message in history)
    for group_id, group in learnt.groups.items():
        of = {fragment for known, fragment in learnt.members if known == group_id}
        assert await get(quiet, group_id) == group_to_proto(group, len(of))
        assert set(await members(quiet, group_id)) == {prf(f"user_id:u{n}") for n in (1, 2, 3)
                                                       if KEY.resolve(f"user_id:u{n}").bytes in of}  # fmt: skip
