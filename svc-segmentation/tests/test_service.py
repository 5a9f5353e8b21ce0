# SPDX-License-Identifier: Apache-2.0
"""The service through its doors: what it hears, what it answers, what it announces."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import grpc
import msgspec
import pytest
from chassis.clock import to_us
from chassis.identity import Identifier, IdentityKey, format_profile_id
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1.consent_pb2 import ConsentsChanged
from dangol.profile.v1.identity_pb2 import FragmentMapping, FragmentsRemapped
from dangol.segmentation.v1 import segmentation_pb2 as pb
from dangol.segmentation.v1.segmentation_pb2_grpc import SegmentationServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from svc_segmentation.app import build
from svc_segmentation.settings import Settings

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY = timedelta(days=1)
_numbers = itertools.count()


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Shop:
    """The service, a clock, and what a test says in its own words."""

    service: RunningService
    clock: Clock
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stub = self.service.stub(SegmentationServiceStub)

    async def hear(self, *events: Event, message_ids: Sequence[str] | None = None) -> None:
        """Deliver events and wait until memberships are up to date."""
        batch = EventBatch(events=events)
        await self.service.deliver(batch, subject="events.resolved.0", message_ids=message_ids)
        await self.evaluated()

    async def evaluated(self) -> None:
        """Wait until nobody waits to be evaluated."""
        async with asyncio.timeout(30):
            while await self._waiting():
                await asyncio.sleep(0.01)
        await self.service.settled()

    async def _waiting(self) -> bool:
        async with self.service.database.snapshot() as tx:
            return bool(
                await tx.value(
                    "SELECT EXISTS (SELECT FROM changed_fragments)"
                    " OR EXISTS (SELECT FROM due_profiles WHERE due_us <= :now)",
                    now=to_us(self.clock.now),
                )
            )

    async def pass_time(self, time: timedelta) -> None:
        """Let time pass, and nothing else happen."""
        self.clock.now += time
        await self.evaluated()

    async def create(self, name: str, rule: str, **more: Any) -> pb.Segment:
        """Create a segment."""
        wanted = pb.Segment(name=name, rule=rule, description=more.pop("description", ""))
        response: pb.CreateSegmentResponse = await self.stub.CreateSegment(
            pb.CreateSegmentRequest(segment=wanted, **more)
        )
        return response.segment

    async def members(self, segment_id: str) -> set[str]:
        """Return the ids of the members of a segment."""
        found: set[str] = set()
        token = ""
        while True:
            page = await self.stub.ListSegmentMembers(
                pb.ListSegmentMembersRequest(segment_id=segment_id, page_size=2, page_token=token)
            )
            found |= {member.profile_id for member in page.members}
            token = page.next_page_token
            if not token:
                return found

    async def segments_of(self, user: str) -> list[str]:
        """Return the names of the segments that a customer is in."""
        response = await self.stub.ListProfileSegments(pb.ListProfileSegmentsRequest(profile=f"user_id:{user}"))
        return [segment.name for segment in response.segments]

    async def changes(self) -> list[pb.MembershipChange]:
        """Return all membership changes announced so far, by revision."""
        messages = await self.service.published(pb.MembershipsChanged)
        return sorted((change for m in messages for change in m.changes), key=lambda change: change.revision)


@pytest.fixture
async def shop(engines: Engines) -> AsyncIterator[Shop]:
    clock = Clock()
    async with running(partial(build, clock=clock), Settings, engines, evaluation_pause_ms=1) as service:
        yield Shop(service, clock)


def fragment(user: str) -> UUID:
    return KEY.fragment_id(Identifier("user_id", user))


def prf(user: str) -> str:
    return format_profile_id(fragment(user))


def event(user: str, at: datetime, *, profile: str = "", revision: int = 1, **fields: Any) -> Event:
    """One resolved event of a customer whose profile is named by a user, the customer himself by default."""
    return Event(
        message_id=f"m{next(_numbers)}",
        source="test",
        time_us=to_us(at),
        fragment_id=fragment(user).bytes,
        profile_id=fragment(profile or user).bytes,
        mapping_revision=revision,
        **fields,
    )


def track(user: str, name: str, at: datetime = START - timedelta(minutes=1), **more: Any) -> Event:
    properties = msgspec.json.encode(more.pop("properties", {}))
    return event(user, at, type=EventType.EVENT_TYPE_TRACK, name=name, properties=properties, **more)


def identify(user: str, traits: Mapping[str, Any], at: datetime = START, **more: Any) -> Event:
    return event(user, at, type=EventType.EVENT_TYPE_IDENTIFY, traits=msgspec.json.encode(traits), **more)


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Return the fields that an error names, with the rules that they break."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    assert status is not None
    found: dict[str, str] = {}
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            found |= {violation.field: violation.description for violation in request.field_violations}
    return found


async def refused(call: Callable[[], Any]) -> grpc.aio.AioRpcError:
    """Return the error that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return caught.value


async def test_a_new_segment_holds_whoever_fits_already(shop: Shop) -> None:
    """The whole population is asked before the answer."""
    await shop.hear(identify("ana", {"city": "Seoul"}), identify("ben", {"city": "Busan"}), track("cho", "Visited"))
    segment = await shop.create("seoul", "traits.city == 'Seoul'", description="Home market")
    assert segment.segment_id.startswith("seg_")
    assert (segment.member_count, segment.rule_version, segment.description) == (1, 1, "Home market")
    assert await shop.members("seoul") == {prf("ana")}
    assert await shop.segments_of("ana") == ["seoul"]
    [change] = await shop.changes()
    assert (change.profile_id, change.member, change.segment_name) == (fragment("ana").bytes, True, "seoul")
    assert change.revision > 0


async def test_customers_enter_and_leave_as_they_act(shop: Shop) -> None:
    """Events change memberships, each change is announced once, with a growing revision."""
    await shop.create("loyal", "traits.city == '서울' && count('Order Completed', days(30)) >= 2")
    await shop.hear(identify("ana", {"city": "서울"}), track("ana", "Order Completed"))
    assert await shop.segments_of("ana") == []
    await shop.hear(track("ana", "Order Completed", START - 29 * DAY))
    assert await shop.segments_of("ana") == ["loyal"]
    await shop.hear(identify("ana", {"city": "Jeju"}, START + timedelta(seconds=1)))
    assert await shop.segments_of("ana") == []
    changes = await shop.changes()
    assert [change.member for change in changes] == [True, False]
    assert changes[0].revision < changes[1].revision


async def test_a_customer_leaves_when_a_window_has_passed(shop: Shop) -> None:
    """Time alone takes customers out, to the microsecond, and brings others in."""
    await shop.create("active", "count('Visited', hours(24)) >= 1")
    await shop.create("dormant", "!(last('Visited') > now - days(7))")
    await shop.hear(track("ana", "Visited", START - timedelta(hours=23)))
    assert await shop.segments_of("ana") == ["active"]
    await shop.pass_time(timedelta(hours=1) - timedelta(microseconds=1))
    assert await shop.segments_of("ana") == ["active"]
    await shop.pass_time(timedelta(microseconds=1))
    assert await shop.segments_of("ana") == []
    await shop.pass_time(6 * DAY)
    assert await shop.segments_of("ana") == ["dormant"]
    await shop.hear(track("ana", "Visited", shop.clock.now))
    assert await shop.segments_of("ana") == ["active"]


async def test_the_same_events_again_change_nothing(shop: Shop) -> None:
    """A message that comes again counts once, long after the broker has forgotten it."""
    await shop.create("twice", "count('Visited') == 2")
    batch = EventBatch(events=[track("ana", "Visited"), track("ana", "Visited")])
    for delivery in ("first", "second"):
        await shop.service.bus.publish(
            "events.resolved.0",
            batch.SerializeToString(),
            message_id=delivery,
            headers={"Dangol-Message-Id": "resolved:1"},
        )
    await shop.service.settled()
    await shop.hear(track("ben", "Visited"))
    assert await shop.members("twice") == {prf("ana")}
    assert len(await shop.changes()) == 1


async def test_a_merge_moves_what_both_did(shop: Shop) -> None:
    """When two become one, the one that vanished leaves, and the other has been a member since the first was."""
    await shop.create("buyer", "count('Order Completed') >= 1")
    await shop.create("regular", "count('Order Completed') >= 2 && traits.vip")
    await shop.hear(track("ana", "Order Completed"), identify("ana", {"vip": True}))
    await shop.pass_time(DAY)
    await shop.hear(track("web", "Order Completed"))
    await shop.pass_time(DAY)
    mappings = [FragmentMapping(fragment_id=fragment("ana").bytes, profile_id=fragment("web").bytes, revision=2)]
    await shop.service.deliver(FragmentsRemapped(mappings=mappings))
    await shop.evaluated()
    assert await shop.members("buyer") == {prf("web")}
    assert await shop.members("regular") == {prf("web")}
    response = await shop.stub.ListProfileSegments(pb.ListProfileSegmentsRequest(profile="user_id:ana"))
    assert response.profile_id == prf("web")
    assert [segment.name for segment in response.segments] == ["buyer", "regular"]
    left = [change for change in await shop.changes() if not change.member]
    assert [(change.segment_name, change.profile_id) for change in left] == [("buyer", fragment("ana").bytes)]


async def test_a_split_gives_back_what_was_each_ones(shop: Shop) -> None:
    """A higher revision that takes a fragment away undoes the merge; a lower one that comes late changes nothing."""
    await shop.create("regular", "count('Order Completed') >= 2")
    await shop.hear(track("ana", "Order Completed"), track("web", "Order Completed", profile="ana"))
    assert await shop.members("regular") == {prf("ana")}
    apart = FragmentMapping(fragment_id=fragment("web").bytes, profile_id=fragment("web").bytes, revision=3)
    late = FragmentMapping(fragment_id=fragment("web").bytes, profile_id=fragment("ana").bytes, revision=2)
    await shop.service.deliver(FragmentsRemapped(mappings=[apart]), FragmentsRemapped(mappings=[late]))
    await shop.evaluated()
    assert await shop.members("regular") == set()
    assert await shop.segments_of("web") == []


async def test_segments_may_build_on_segments(shop: Shop) -> None:
    """A change of one rule reaches those that refer to it; a circle is refused, and so is deleting what is used."""
    await shop.hear(track("ana", "Order Completed", properties={"revenue": 50000}), track("ben", "Visited"))
    base = await shop.create("spender", "sum('Order Completed', 'revenue') >= 100000")
    await shop.create("others", "!segment('spender')")
    assert await shop.members("others") == {prf("ana"), prf("ben")}
    await shop.stub.UpdateSegment(
        pb.UpdateSegmentRequest(
            segment=pb.Segment(segment_id="spender", rule="sum('Order Completed', 'revenue') >= 50000"),
            update_mask=FieldMask(paths=["rule"]),
        )
    )
    assert await shop.members("spender") == {prf("ana")}
    assert await shop.members("others") == {prf("ben")}
    await shop.hear(track("ben", "Order Completed", properties={"revenue": "60000"}))
    assert await shop.members("others") == set()
    circle = pb.Segment(segment_id=base.segment_id, rule="!in_segment('others')")
    error = await refused(lambda: shop.stub.UpdateSegment(pb.UpdateSegmentRequest(segment=circle)))
    assert "spender → others → spender" in violations(error)["segment.rule"]
    error = await refused(lambda: shop.stub.DeleteSegment(pb.DeleteSegmentRequest(segment_id="spender")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    renamed = pb.Segment(segment_id="spender", name="big-spender")
    error = await refused(lambda: shop.stub.UpdateSegment(pb.UpdateSegmentRequest(segment=renamed)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_segment_is_announced_when_it_is_saved(shop: Shop) -> None:
    """Others know it by name before anybody is in it, and hear of a new name."""
    made = await shop.create("nobody-yet", "count('Never') > 0")
    renamed = pb.Segment(segment_id=made.segment_id, name="nobody-still")
    await shop.stub.UpdateSegment(pb.UpdateSegmentRequest(segment=renamed, update_mask=FieldMask(paths=["name"])))
    await shop.service.settled()
    saved = [m for m in await shop.service.published(pb.SegmentSaved) if m.segment_id == made.segment_id]
    assert [message.name for message in saved] == ["nobody-yet", "nobody-still"]


async def test_a_deleted_segment_is_gone_with_its_members(shop: Shop) -> None:
    """The name is free again, and nobody is a member of it."""
    await shop.hear(track("ana", "Visited"))
    first = await shop.create("visitors", "count('Visited') > 0")
    await shop.stub.DeleteSegment(pb.DeleteSegmentRequest(segment_id="visitors"))
    assert await shop.segments_of("ana") == []
    error = await refused(lambda: shop.stub.GetSegment(pb.GetSegmentRequest(segment_id=first.segment_id)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    await shop.service.settled()
    assert await shop.service.published(pb.SegmentDeleted) == [
        pb.SegmentDeleted(segment_id=first.segment_id, name="visitors")
    ]
    again = await shop.create("visitors", "count('Visited') > 0")
    assert again.segment_id != first.segment_id
    assert await shop.segments_of("ana") == ["visitors"]


async def test_a_rule_that_does_not_fit_is_refused_with_its_place(shop: Shop) -> None:
    """Position, reason and a pointer; the field that the caller sent is named."""
    rule = "traits.city == '서울' &&\n  cuont('Visited') > 1"
    error = await refused(lambda: shop.create("wrong", rule))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(error)["segment.rule"] == (
        "line 2, column 3: unknown function 'cuont'; did you mean count?\n  cuont('Visited') > 1\n  ^"
    )
    error = await refused(lambda: shop.stub.PreviewSegment(pb.PreviewSegmentRequest(rule="1 +")))
    assert violations(error)["rule"].startswith("line 1, column 4: expected a value, found the end of the rule")
    error = await refused(lambda: shop.create("wrong", "segment('nobody-knows')"))
    assert violations(error) == {"segment.rule": "there is no segment named 'nobody-knows'"}
    error = await refused(lambda: shop.create("Not A Name", "true"))
    assert "segment.name" in violations(error)


async def test_a_request_that_is_sent_again_creates_once(shop: Shop) -> None:
    """The same request id answers the same segment; another one with the same name is a conflict."""
    first = await shop.create("all", "true", request_id="r1")
    assert await shop.create("all", "true", request_id="r1") == first
    error = await refused(lambda: shop.create("all", "true", request_id="r2"))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_segments_are_listed_by_name_in_pages(shop: Shop) -> None:
    """Every segment is on one page, in order."""
    for name in ("b", "a", "c"):
        await shop.create(name, "true")
    first = await shop.stub.ListSegments(pb.ListSegmentsRequest(page_size=2))
    second = await shop.stub.ListSegments(pb.ListSegmentsRequest(page_size=2, page_token=first.next_page_token))
    assert [s.name for s in (*first.segments, *second.segments)] == ["a", "b", "c"]
    assert second.next_page_token == ""
    error = await refused(lambda: shop.stub.ListSegments(pb.ListSegmentsRequest(page_token="rubbish")))
    assert "page_token" in violations(error)


async def test_a_preview_counts_and_shows_some_without_keeping_anything(shop: Shop) -> None:
    """The sample is the same every time; references to segments work."""
    await shop.create("busan", "traits.city == 'Busan'")
    await shop.hear(*(identify(f"u{n}", {"city": "Busan" if n % 3 else "Seoul"}) for n in range(9)))
    request = pb.PreviewSegmentRequest(rule="segment('busan') || traits.city == 'Jeju'", sample_size=4)
    preview = await shop.stub.PreviewSegment(request)
    assert (preview.count, preview.population, len(preview.sample_profile_ids)) == (6, 9, 4)
    assert preview == await shop.stub.PreviewSegment(request)
    assert set(preview.sample_profile_ids) <= await shop.members("busan")
    assert len((await shop.stub.ListSegments(pb.ListSegmentsRequest())).segments) == 1


async def test_an_update_changes_what_its_mask_names(shop: Shop) -> None:
    """Only a new rule is a new version."""
    await shop.create("all", "true", description="old")
    renamed = await shop.stub.UpdateSegment(
        pb.UpdateSegmentRequest(
            segment=pb.Segment(segment_id="all", name="everybody", rule="false"),
            update_mask=FieldMask(paths=["name", "description"]),
        )
    )
    assert (renamed.segment.name, renamed.segment.description, renamed.segment.rule) == ("everybody", "", "true")
    assert renamed.segment.rule_version == 1
    again = await shop.stub.UpdateSegment(
        pb.UpdateSegmentRequest(segment=pb.Segment(segment_id="everybody", rule="false"))
    )
    assert (again.segment.rule_version, again.segment.name) == (2, "everybody")
    wrong = pb.UpdateSegmentRequest(
        segment=pb.Segment(segment_id="everybody"), update_mask=FieldMask(paths=["member_count"])
    )
    assert "update_mask" in violations(await refused(lambda: shop.stub.UpdateSegment(wrong)))


async def test_somebody_unknown_is_in_no_segment(shop: Shop) -> None:
    """The answer names the profile that the reference would be; a reference that is none is refused."""
    await shop.create("all", "true")
    response = await shop.stub.ListProfileSegments(pb.ListProfileSegmentsRequest(profile="user_id:nobody"))
    assert response == pb.ListProfileSegmentsResponse(profile_id=prf("nobody"))
    error = await refused(lambda: shop.stub.ListProfileSegments(pb.ListProfileSegmentsRequest(profile="x")))
    assert "profile" in violations(error)


async def test_the_latest_statement_of_a_trait_wins_in_any_order(shop: Shop) -> None:
    """By event time, over all fragments of a customer; null takes a trait away."""
    await shop.create("seoul", "traits['도시'] == '서울'")
    late, early = START, START - DAY
    await shop.hear(identify("ana", {"도시": "서울"}, late), identify("web", {"도시": "부산"}, early, profile="ana"))
    assert await shop.segments_of("ana") == ["seoul"]
    await shop.hear(identify("ana", {"도시": "부산"}, early))
    assert await shop.segments_of("ana") == ["seoul"]
    await shop.hear(identify("web", {"도시": None}, late + DAY, profile="ana"))
    assert await shop.segments_of("ana") == []
    preview = await shop.stub.PreviewSegment(pb.PreviewSegmentRequest(rule="has(traits['도시'])"))
    assert preview.count == 0


async def test_bad_values_of_one_customer_harm_nobody(shop: Shop) -> None:
    """NUL, huge numbers, abysses of brackets, absurd times: the batch is kept, the rest counts."""
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    await shop.hear(
        identify("ana", {"a\x00b": "x\x00y", "n": 10**400, "m": 10**30, "deep": deep}),
        event("ben", START, type=EventType.EVENT_TYPE_IDENTIFY, traits=b"[1, 2"),
        track("cho", "Viewed\x00", properties={"price": "1e999999999", "quantity": True, "value": 10**20}),
        event("dan", START, type=EventType.EVENT_TYPE_TRACK, name="x" * 5000, properties=b'{"price": NaN}'),
        Event(
            type=EventType.EVENT_TYPE_PAGE, fragment_id=fragment("eva").bytes, profile_id=fragment("eva").bytes,
            time_us=2**63 - 1, message_id="future", mapping_revision=1,
        ),
    )  # fmt: skip
    rule = "traits['ab'] == 'xy' && traits.m > 1e29 && !has(traits.n) && traits.m * traits.m > 1"
    await shop.create("odd", rule)
    assert await shop.members("odd") == {prf("ana")}
    await shop.create("quiet", "now - last_seen < days(1) && sum('Viewed', 'price') == 0")
    assert prf("eva") in await shop.members("quiet")


async def test_revenue_is_what_orders_and_refunds_moved(shop: Shop) -> None:
    """`revenue` adds all currencies, `revenue.USD` one; a refund is summed under its own name."""
    await shop.hear(
        track("ana", "Order Completed", properties={"total": 30000}),
        track("ana", "Order Completed", properties={"revenue": 12.5, "currency": "USD", "quantity": 2}),
        track("ana", "Order Refunded", properties={"revenue": 10000}),
    )
    rules = {
        "sum": "sum('Order Completed', 'revenue') == 30012.5",
        "won": "sum('Order Completed', 'revenue.KRW') - sum('Order Refunded', 'revenue.KRW') == 20000",
        "usd": "sum('Order Completed', 'revenue.USD', days(1)) == 12.5",
        "items": "sum('Order Completed', 'quantity') == 2 && sum('Order Completed', 'total') == 30000",
    }
    for name, rule in rules.items():
        await shop.create(name, rule)
        assert await shop.members(name) == {prf("ana")}, name


async def test_a_busy_day_keeps_its_sums_and_its_latest_events(shop: Shop) -> None:
    """Beyond 500 events of one name on a day, totals stay exact, and a window that begins on it sees the latest 500."""
    await shop.create("busy", "count('Visited') == 1200 && sum('Visited', 'value') == 1200")
    await shop.create("window", "count('Visited', minutes(30)) == 500 && count('Visited', hours(1)) == 1200")
    moments = [START - timedelta(seconds=2 * n) for n in range(1200)]
    for part in range(4):
        visits = [track("bot", "Visited", at, properties={"value": 1}) for at in moments[part::4]]
        await shop.hear(*visits)
    assert await shop.segments_of("bot") == ["busy", "window"]


async def test_memberships_follow_however_many_rules_there_are(shop: Shop) -> None:
    """When one statement cannot carry all rules, several do, and time still takes everybody out."""
    windows = " || ".join(f"count('E{number}', days(1)) > 0" for number in range(98))
    for name in ("a", "b", "c", "d", "e", "f"):
        await shop.create(name, windows.replace("'E", f"'{name}"))
    await shop.create("all", " && ".join(f"segment('{name}')" for name in "abc"))
    await shop.hear(*(track("ana", f"{name}7") for name in "abcf"))
    assert await shop.segments_of("ana") == ["a", "all", "b", "c", "f"]
    large = " && ".join(f"segment('{name}')" for name in "abcdef")
    error = await refused(lambda: shop.create("too-much", large))
    assert "asks too much" in violations(error)["segment.rule"]
    await shop.pass_time(DAY)
    assert await shop.segments_of("ana") == []


async def test_who_refuses_personalization_is_in_no_list(shop: Shop) -> None:
    """Neither in the members of a segment nor in the answer about the customer; a grant brings both back."""
    segment = await shop.create("buyers", 'count("Order Completed") > 0')
    await shop.hear(track("ana", "Order Completed"), track("bo", "Order Completed"))
    assert await shop.members(segment.segment_id) == {prf("ana"), prf("bo")}
    refusal = ConsentsChanged(
        profile_id=fragment("ana").bytes,
        fragment_ids=[fragment("ana").bytes],
        refused_purpose_ids=["personalization"],
        revision=1,
    )
    await shop.service.deliver(refusal)
    assert await shop.members(segment.segment_id) == {prf("bo")}
    assert await shop.segments_of("ana") == []
    del refusal.refused_purpose_ids[:]
    refusal.revision = 2
    await shop.service.deliver(refusal)
    assert await shop.members(segment.segment_id) == {prf("ana"), prf("bo")}
    assert await shop.segments_of("ana") == ["buyers"]


async def test_who_refuses_to_be_analysed_is_counted_and_not_shown(shop: Shop) -> None:
    """A preview shows some customers, to look at."""
    await shop.hear(track("ana", "Order Completed"), track("bo", "Order Completed"))
    refusal = ConsentsChanged(
        profile_id=fragment("ana").bytes,
        fragment_ids=[fragment("ana").bytes],
        refused_purpose_ids=["analytics"],
        revision=1,
    )
    await shop.service.deliver(refusal)
    request = pb.PreviewSegmentRequest(rule='count("Order Completed") > 0', sample_size=10)
    preview = await shop.stub.PreviewSegment(request)
    assert (preview.count, list(preview.sample_profile_ids)) == (2, [prf("bo")])
