# SPDX-License-Identifier: Apache-2.0
"""Traits through the service's real doors: events in over JetStream, definitions and answers over gRPC."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from chassis.identity import IdentityKey
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.profile.v1 import ingest_pb2, profile_pb2
from dangol.profile.v1 import traits_pb2 as pb
from dangol.profile.v1.ingest_pb2_grpc import IngestServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from dangol.profile.v1.traits_pb2_grpc import TraitServiceStub
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.definitions import TraitDefinition, TraitSchema, TraitType
from svc_profile.domain.events import Namer
from svc_profile.domain.fragments import learn
from svc_profile.domain.profiles import fold_profile
from svc_profile.domain.traits import Policy
from svc_profile.jobs import Announcing
from svc_profile.settings import Settings
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.deriving import derive_some
from svc_profile.wire.collecting import read_event
from svc_profile.wire.traits import definition_to_proto

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
NAMER = Namer(KEY)
START_US = 1_760_000_000_000_000
DAY_US = 86_400_000_000
PATIENCE_S = 60

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines) as service:
        yield service


@pytest.fixture(scope="module")
async def quiet(engines: Engines) -> AsyncIterator[RunningService]:
    """A service whose jobs and consumers the test runs itself."""
    async with running(build, Settings, engines, roles=("rpc",)) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers and traits of one test apart from those of the others."""
    return f"t{next(numbers)}"


def event(kind: str, *, at: int = 0, traits: Any = None, properties: Any = None, **fields: Any) -> Event:
    """Build an event `at` some days after the start."""
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * DAY_US,
        received_time_us=START_US + at * DAY_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        properties=json.dumps(properties).encode() if properties is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


def traits_stub(service: RunningService) -> Any:
    return service.stub(TraitServiceStub)


async def known_traits(service: RunningService, user: str) -> dict[str, Any]:
    request = profile_pb2.GetProfileRequest(profile=f"user_id:{user}")
    answer = await service.stub(ProfileServiceStub).GetProfile(request)
    return MessageToDict(answer.profile.traits)


async def define(service: RunningService, name: str, **fields: Any) -> pb.TraitDefinition:
    message = ParseDict({"name": name, **fields}, pb.TraitDefinition())
    answer = await traits_stub(service).CreateTraitDefinition(pb.CreateTraitDefinitionRequest(trait_definition=message))
    definition: pb.TraitDefinition = answer.trait_definition
    return definition


async def derived(service: RunningService) -> Any:
    """Wait until traits follow the newest definitions."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = await traits_stub(service).GetTraitDerivation(pb.GetTraitDerivationRequest())
        if not answer.running:
            return answer
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def changes(service: RunningService, user: str, **fields: Any) -> Any:
    request = pb.ListTraitHistoryRequest(profile=f"user_id:{user}", **fields)
    return await traits_stub(service).ListTraitHistory(request)


async def test_a_definition_applies_to_what_was_said_before_and_after(service: RunningService, tag: str) -> None:
    """A new policy is as if it had always been there; without it the latest statement wins again."""
    user, plan = f"u-{tag}", f"plan_{tag}"
    await collect(
        service,
        event("identify", at=2, user_id=user, traits={plan: "gold"}),
        event("identify", at=1, user_id=user, traits={plan: ""}),
    )
    await define(service, plan, policy="TRAIT_POLICY_FIRST_NON_EMPTY")
    progress = await derived(service)
    assert progress.done_count >= 1
    assert progress.finished_time.seconds >= progress.started_time.seconds > 0
    await collect(service, event("identify", at=3, user_id=user, traits={plan: "tin"}))
    assert (await known_traits(service, user))[plan] == "gold"
    update = pb.UpdateTraitDefinitionRequest(
        trait_definition=pb.TraitDefinition(name=plan, policy=pb.TRAIT_POLICY_UNION, description="what was bought"),
        update_mask=FieldMask(paths=["policy"]),
    )
    changed = (await traits_stub(service).UpdateTraitDefinition(update)).trait_definition
    assert (changed.policy, changed.description) == (pb.TRAIT_POLICY_UNION, "")
    await derived(service)
    assert (await known_traits(service, user))[plan] == ["", "gold", "tin"]
    await traits_stub(service).DeleteTraitDefinition(pb.DeleteTraitDefinitionRequest(name=plan))
    await derived(service)
    assert (await known_traits(service, user))[plan] == "tin"
    saved = [m.trait_definition for m in await service.published(pb.TraitDefinitionSaved)]
    assert [d.policy for d in saved if d.name == plan] == [pb.TRAIT_POLICY_FIRST_NON_EMPTY, pb.TRAIT_POLICY_UNION]
    assert plan in [m.name for m in await service.published(pb.TraitDefinitionDeleted)]


async def test_policies_hold_across_the_names_of_a_customer(service: RunningService, tag: str) -> None:
    """What was said of a visitor and of the user folds into one value, and sources have their rank."""
    user, visitor, points, name = f"u-{tag}", f"d-{tag}", f"points_{tag}", f"name_{tag}"
    await define(service, points, type="TRAIT_TYPE_NUMBER", policy="TRAIT_POLICY_SUM")
    await define(service, name, policy="TRAIT_POLICY_SOURCE_PRIORITY", sources=["crm", "web"])
    await collect(
        service,
        event("identify", anonymous_id=visitor, traits={points: 0.1, name: "visitor"}, source="app"),
        event("identify", at=1, user_id=user, traits={points: 0.2, name: "Kim"}, source="crm"),
        event("identify", at=2, user_id=user, anonymous_id=visitor, traits={points: 5, name: "kim"}),
    )
    assert await known_traits(service, user) == {points: 5.3, name: "Kim"}


async def test_policies_hold_for_what_is_given_to_a_later_user_of_a_device(service: RunningService, tag: str) -> None:
    """What was folded for the first user is folded anew for the second, and derived alike afterwards."""
    tablet, kim, lee, points = f"d-{tag}", f"kim-{tag}", f"lee-{tag}", f"points_{tag}"
    await define(service, points, type="TRAIT_TYPE_NUMBER", policy="TRAIT_POLICY_SUM")
    await derived(service)
    await collect(
        service,
        event("identify", anonymous_id=tablet, user_id=kim, traits={points: 1}),
        event("identify", at=12, anonymous_id=tablet, traits={points: 5}),
        event("identify", at=13, anonymous_id=tablet, traits={points: 7}),
    )
    assert await known_traits(service, kim) == {points: 13}
    await collect(service, event("identify", at=10, anonymous_id=tablet, user_id=lee, traits={points: 2}))
    assert (await known_traits(service, kim), await known_traits(service, lee)) == ({points: 1}, {points: 14})
    update = pb.UpdateTraitDefinitionRequest(
        trait_definition=pb.TraitDefinition(name=points, policy=pb.TRAIT_POLICY_MAX)
    )
    await traits_stub(service).UpdateTraitDefinition(update)
    await derived(service)
    assert (await known_traits(service, kim), await known_traits(service, lee)) == ({points: 1}, {points: 7})
    assert [c.new_value.number_value for c in (await changes(service, lee)).changes] == [7, 5, 2]


async def told(service: RunningService, reference: str, name: str) -> Any:
    """Return what other services were told last of one trait of one identifier; missing when nothing is decided."""
    await service.settled()
    fragment = KEY.resolve(reference).bytes
    messages = [each for m in await service.published(pb.TraitsFolded) for each in m.fragments]
    newest = max((each for each in messages if each.fragment_id == fragment), key=lambda each: each.revision)
    return json.loads(newest.traits).get(name, "missing")


async def test_other_services_are_told_what_a_trait_is_under_each_identifier(service: RunningService, tag: str) -> None:
    """When it is stated, when it is derived again, and when nothing is decided about it any more."""
    user, visitor, points = f"u-{tag}", f"d-{tag}", f"points_{tag}"
    first = event("identify", user_id=user, traits={points: 0.1})
    await collect(service, first, event("identify", at=1, anonymous_id=visitor, traits={points: "many"}))
    await define(service, points, type="TRAIT_TYPE_NUMBER", policy="TRAIT_POLICY_SUM")
    await derived(service)
    value, time_us, _, kind = await told(service, f"user_id:{user}", points)
    assert (value, time_us, kind) == (0.1, first.time_us, "SUM")
    assert await told(service, f"anonymous_id:{visitor}", points) is None
    await collect(service, event("identify", at=2, user_id=user, traits={points: 0.2}))
    assert (await told(service, f"user_id:{user}", points))[0] == 0.3
    await traits_stub(service).DeleteTraitDefinition(pb.DeleteTraitDefinitionRequest(name=points))
    await derived(service)
    assert await told(service, f"user_id:{user}", points) == "missing"


async def test_a_broken_value_is_rejected_and_the_event_is_not(service: RunningService, tag: str) -> None:
    """No service learns it, and the log names trait and rule."""
    user, age, size = f"u-{tag}", f"age_{tag}", f"size_{tag}"
    limits = {"minimum": 0, "maximum": 150}
    await define(service, age, type="TRAIT_TYPE_NUMBER", enforcement="TRAIT_ENFORCEMENT_REJECT", **limits)
    await define(service, size, type="TRAIT_TYPE_NUMBER", enforcement="TRAIT_ENFORCEMENT_WARN")
    bad = event("identify", user_id=user, traits={age: 200, size: "XL", "city": "Seoul"})
    await collect(service, event("identify", at=-1, user_id=user, traits={age: 34}), bad)
    assert await known_traits(service, user) == {age: 34, size: "XL", "city": "Seoul"}
    request = ingest_pb2.ListRejectedEventsRequest(message_id=bad.message_id, reason="TRAIT_INVALID")
    rejected = (await service.stub(IngestServiceStub).ListRejectedEvents(request)).rejected_events
    assert {r.detail for r in rejected} == {
        f"traits.{age}: must be at most 150",
        f"traits.{size}: must be a number (learnt all the same)",
    }
    resolved = [e for batch in await service.sent(EventBatch, "events.resolved.*") for e in batch.events]
    heard = next(e for e in resolved if e.message_id == bad.message_id)
    assert json.loads(heard.traits) == {size: "XL", "city": "Seoul"}


async def test_a_trait_that_is_defined_as_personal_is_masked(service: RunningService, tag: str) -> None:
    """For callers who may not see what is personal; the history masks it too."""
    user, size = f"u-{tag}", f"shoeSize_{tag}"
    await collect(service, event("identify", user_id=user, traits={size: "secret", "city": "Seoul"}))
    await define(service, size, pii=True)
    stub = service.stub(ProfileServiceStub, ["profile.read"])
    request = profile_pb2.GetProfileRequest(profile=f"user_id:{user}")
    deadline = time.monotonic() + PATIENCE_S
    while (seen := MessageToDict((await stub.GetProfile(request)).profile.traits))[size] == "secret":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert seen == {size: "***", "city": "Seoul"}
    history = pb.ListTraitHistoryRequest(profile=f"user_id:{user}", trait=size)
    masked = await service.stub(TraitServiceStub, ["profile.read"]).ListTraitHistory(history)
    assert masked.changes[0].new_value.string_value == "***"


async def test_every_service_hears_which_traits_are_personal(service: RunningService, tag: str) -> None:
    """All of them at each change, and again each day for services that are new."""
    secret, plain = f"secret_{tag}", f"plain_{tag}"

    async def told() -> pb.PersonalTraitsChanged:
        await service.settled()
        return max(await service.published(pb.PersonalTraitsChanged), key=lambda message: message.revision)

    await define(service, secret, pii=True)
    first = await told()
    await define(service, plain)
    second = await told()
    assert secret in first.names
    assert secret in second.names
    assert plain not in second.names
    assert second.revision > first.revision
    await traits_stub(service).DeleteTraitDefinition(pb.DeleteTraitDefinitionRequest(name=secret))
    last = await told()
    assert secret not in last.names
    count = len(await service.published(pb.PersonalTraitsChanged))
    await Announcing(service.database).run()
    await service.settled()
    again = await service.published(pb.PersonalTraitsChanged)
    assert (len(again), again[-1]) == (count + 1, last)


async def test_a_computed_trait_of_personal_properties_is_masked(service: RunningService, tag: str) -> None:
    """Its value, and its keys; how often somebody did something is no secret, nor is the name of a product."""
    user, bought = f"u-{tag}", f"Bought {tag}"
    properties = {"shipping": {"recipient": "김비밀"}, "name": "귤", "total": 3}
    await collect(service, event("track", user_id=user, name=bought, properties=properties))
    seen = {f"last_{tag}": "***", f"by_{tag}": "***", f"times_{tag}": 1.0, f"product_{tag}": "귤"}
    for name, aggregate, paths in (
        (f"last_{tag}", "LAST", {"property_path": "shipping.recipient"}),
        (f"by_{tag}", "SUM", {"property_path": "total", "key_path": "shipping.recipient"}),
        (f"times_{tag}", "COUNT", {"property_path": "shipping.recipient"}),
        (f"product_{tag}", "MOST_FREQUENT", {"property_path": "name"}),
    ):
        aggregate = f"COMPUTED_TRAIT_AGGREGATE_{aggregate}"
        trait = ParseDict({"name": name, "aggregate": aggregate, "event_names": [bought], **paths}, pb.ComputedTrait())
        await traits_stub(service).CreateComputedTrait(pb.CreateComputedTraitRequest(computed_trait=trait))
    stub = service.stub(TraitServiceStub, ["profile.read"])
    request = pb.GetProfileComputedTraitsRequest(profile=f"user_id:{user}")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        values = MessageToDict((await stub.GetProfileComputedTraits(request)).computed_traits)
        if {name: values.get(name) for name in seen} == seen:
            break
        assert time.monotonic() < deadline, values
        await asyncio.sleep(0.02)
    for name in seen:
        await traits_stub(service).DeleteComputedTrait(pb.DeleteComputedTraitRequest(name=name))


async def test_loosening_a_definition_brings_the_value_back(service: RunningService, tag: str) -> None:
    """What was rejected is kept with its event, so that nothing is lost by a wrong definition."""
    user, age = f"u-{tag}", f"age_{tag}"
    await define(service, age, type="TRAIT_TYPE_NUMBER", enforcement="TRAIT_ENFORCEMENT_REJECT", maximum=17)
    await collect(service, event("identify", user_id=user, traits={age: 34}))
    assert age not in await known_traits(service, user)
    update = pb.UpdateTraitDefinitionRequest(
        trait_definition=pb.TraitDefinition(name=age), update_mask=FieldMask(paths=["maximum"])
    )
    await traits_stub(service).UpdateTraitDefinition(update)
    await derived(service)
    assert (await known_traits(service, user))[age] == 34


async def test_a_trait_has_a_history(service: RunningService, tag: str) -> None:
    """Old, new, when and source, by event time, newest first, in pages; what changes nothing is no change."""
    user, visitor = f"u-{tag}", f"d-{tag}"
    late = event("identify", at=1, user_id=user, traits={"plan": "silver"}, source="crm")
    await collect(
        service,
        event("identify", at=3, user_id=user, traits={"plan": "gold", "city": "Seoul"}),
        event("identify", at=4, user_id=user, anonymous_id=visitor, traits={"plan": "gold"}),
        event("identify", at=5, anonymous_id=visitor, traits={"plan": None}),
    )
    await collect(service, late)
    answer = await changes(service, user, trait="plan")
    assert [
        (MessageToDict(c.old_value) if c.HasField("old_value") else None,
         MessageToDict(c.new_value) if c.HasField("new_value") else None,
         c.source)
        for c in answer.changes
    ] == [("gold", None, "web"), ("silver", "gold", "web"), (None, "silver", "crm")]  # fmt: skip
    assert answer.changes[-1].message_id == late.message_id
    assert answer.changes[-1].change_time.ToMicroseconds() == START_US + DAY_US
    paged, token = [], ""
    while True:
        page = await changes(service, user, page_size=1, page_token=token)
        paged += [(c.trait, c.message_id) for c in page.changes]
        token = page.next_page_token
        if not token:
            break
    assert len(paged) == 4
    assert ("city", answer.changes[1].message_id) in paged


async def test_a_computed_trait_counts_what_happened_before_it_was_declared(service: RunningService, tag: str) -> None:
    """Late and repeated events, and what was done under another name, are no special case."""
    user, visitor, name = f"u-{tag}", f"d-{tag}", f"spent_{tag}"
    order = event("track", at=2, name="Order Completed", user_id=user, properties={"total": 10, "category": "tea"})
    await collect(service, order, order)
    message = pb.ComputedTrait(
        name=name,
        aggregate=pb.COMPUTED_TRAIT_AGGREGATE_SUM,
        event_names=["Order Completed"],
        property_path="total",
        key_path="category",
    )
    preview = pb.PreviewComputedTraitRequest(profile=f"user_id:{user}", computed_trait=message)
    assert MessageToDict((await traits_stub(service).PreviewComputedTrait(preview)).value) == {"tea": 10}
    await traits_stub(service).CreateComputedTrait(pb.CreateComputedTraitRequest(computed_trait=message))
    await collect(
        service,
        event("track", name="Order Completed", anonymous_id=visitor, properties={"total": 5, "category": "ink"}),
        event("identify", at=3, user_id=user, anonymous_id=visitor),
    )
    request = pb.GetProfileComputedTraitsRequest(profile=f"anonymous_id:{visitor}")
    answer = await traits_stub(service).GetProfileComputedTraits(request)
    assert MessageToDict(answer.computed_traits)[name] == {"tea": 10, "ink": 5}
    whole = profile_pb2.GetProfileRequest(profile=f"user_id:{user}", read_mask=FieldMask(paths=["computed_traits"]))
    seen = (await service.stub(ProfileServiceStub).GetProfile(whole)).profile
    assert seen.computed_traits == answer.computed_traits
    update = pb.UpdateComputedTraitRequest(
        computed_trait=pb.ComputedTrait(name=name), update_mask=FieldMask(paths=["key_path"])
    )
    await traits_stub(service).UpdateComputedTrait(update)
    answer = await traits_stub(service).GetProfileComputedTraits(request)
    assert MessageToDict(answer.computed_traits)[name] == 15
    await traits_stub(service).DeleteComputedTrait(pb.DeleteComputedTraitRequest(name=name))
    answer = await traits_stub(service).GetProfileComputedTraits(request)
    assert name not in answer.computed_traits
    saved = [m.computed_trait.key_path for m in await service.published(pb.ComputedTraitSaved)]
    assert saved[-2:] == ["category", ""]
    assert name in [m.name for m in await service.published(pb.ComputedTraitDeleted)]


async def test_definitions_are_listed_by_name_in_pages(service: RunningService, tag: str) -> None:
    for number in (2, 0, 1):
        await define(service, f"zz_{tag}_{number}", pii=True)
    found: list[str] = []
    request = pb.ListTraitDefinitionsRequest(page_size=2)
    while True:
        answer = await traits_stub(service).ListTraitDefinitions(request)
        found += [d.name for d in answer.trait_definitions]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert found[-3:] == [f"zz_{tag}_{number}" for number in range(3)]
    assert found == sorted(found)
    got = await traits_stub(service).GetTraitDefinition(pb.GetTraitDefinitionRequest(name=f"zz_{tag}_1"))
    assert got.trait_definition.pii


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"policy": "TRAIT_POLICY_SUM"}, "trait_definition.type: SUM needs NUMBER or INTEGER"),
        ({"type": "TRAIT_TYPE_STRING", "pattern": "("}, "trait_definition.pattern: must be a regular expression"),
    ],
)
async def test_a_definition_that_does_not_fit_together_is_refused(
    service: RunningService, tag: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await define(service, tag, **fields)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in (refused.value.details() or "")


async def test_what_is_not_there_is_not_found_and_nothing_is_defined_twice(service: RunningService, tag: str) -> None:
    await define(service, tag)
    with pytest.raises(grpc.aio.AioRpcError) as twice:
        await define(service, tag)
    assert twice.value.code() == grpc.StatusCode.ALREADY_EXISTS
    stub = traits_stub(service)
    for call in (
        stub.GetTraitDefinition(pb.GetTraitDefinitionRequest(name=f"no-{tag}")),
        stub.DeleteTraitDefinition(pb.DeleteTraitDefinitionRequest(name=f"no-{tag}")),
        stub.GetComputedTrait(pb.GetComputedTraitRequest(name=f"no_{tag}")),
        stub.ListTraitHistory(pb.ListTraitHistoryRequest(profile=f"user_id:no-{tag}")),
        stub.GetProfileComputedTraits(pb.GetProfileComputedTraitsRequest(profile=f"user_id:no-{tag}")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await call
        assert missing.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match="update_mask"):
        await stub.UpdateTraitDefinition(
            pb.UpdateTraitDefinitionRequest(
                trait_definition=pb.TraitDefinition(name=tag), update_mask=FieldMask(paths=["created_time"])
            )
        )


async def test_a_definition_is_made_while_batches_overlap_without_end(quiet: RunningService, tag: str) -> None:
    """Whoever changes the definitions gets a turn among those who hold them, and the next batch sees the change."""
    made = asyncio.Event()
    seen: list[bool] = []

    async def fold(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while not made.is_set():
            async with quiet.database.transaction() as tx:
                await TraitSchemaStore(tx).hold()
                await asyncio.sleep(0.3)
        async with quiet.database.transaction() as tx:
            seen.append(tag in (await TraitSchemaStore(tx).hold()).definitions)

    async def change() -> None:
        await asyncio.sleep(0.1)
        await define(quiet, tag)
        made.set()

    await asyncio.gather(fold(0), fold(0.1), fold(0.2), change())
    assert seen == [True, True, True]


STATED = st.tuples(
    st.sampled_from(["u1", ""]),
    st.integers(0, 5),
    st.sampled_from(["crm", "web"]),
    st.sampled_from([1, 2.5, -3, "gold", "", None, ["a", "b"], 10**16]),
)


def decided(policy: Policy) -> TraitDefinition:
    numeric = policy in (Policy.SUM, Policy.MIN, Policy.MAX)
    sources = ("crm", "web") if policy is Policy.SOURCE_PRIORITY else ()
    return TraitDefinition("x", type=TraitType.NUMBER if numeric else TraitType.ANY, policy=policy, sources=sources)


async def replace_definition(service: RunningService, wanted: TraitDefinition) -> None:
    stub = traits_stub(service)
    listed = await stub.ListTraitDefinitions(pb.ListTraitDefinitionsRequest())
    if wanted.name in [definition.name for definition in listed.trait_definitions]:
        await stub.DeleteTraitDefinition(pb.DeleteTraitDefinitionRequest(name=wanted.name))
    request = pb.CreateTraitDefinitionRequest(trait_definition=definition_to_proto(wanted))
    await stub.CreateTraitDefinition(request)


async def take(service: RunningService, messages: Sequence[Event]) -> None:
    """Do what the consumer does with one message."""
    if messages:
        delivery = Delivery(EventBatch(events=messages), f"b{next(numbers)}", "events.collected.0", 0, 1)
        async with service.database.transaction() as tx:
            await Collecting(NAMER).on_collected(tx, [delivery])


async def derive(service: RunningService, *, steps: int = 10**6) -> None:
    for _ in range(steps):
        async with service.database.transaction() as tx:
            if not await derive_some(tx, most=1):
                return


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(STATED, min_size=1, max_size=10),
    st.sampled_from(Policy),
    st.sampled_from(Policy),
    st.integers(0, 10),
    st.integers(0, 3),
)
async def test_deriving_converges_whatever_comes_in_the_meantime(
    quiet: RunningService, stated: list[Any], before: Policy, after: Policy, cut: int, steps: int
) -> None:
    """A policy changes while events come in and a derivation is under way; the end is the new policy's alone."""
    messages = [
        event("identify", at=at, user_id=user, anonymous_id="" if user else "d1", source=source, traits={"x": value})
        for user, at, source, value in stated
    ]
    async with quiet.database.transaction() as tx:
        await tx.execute("TRUNCATE fragments, links, fragment_profiles, events, derived_fragments, outbox")
    await replace_definition(quiet, decided(before))
    await take(quiet, messages[:cut])
    await derive(quiet, steps=1)
    await replace_definition(quiet, decided(after))
    await derive(quiet, steps=steps)
    await take(quiet, messages[cut:])
    await derive(quiet)
    schema = TraitSchema(1, {"x": decided(after)})
    learnt = learn([read_event(message, NAMER) for message in messages], schema.policies)
    for key, fragment in learnt.items():
        reference = f"{fragment.name.namespace}:{fragment.name.value}"
        answer = await quiet.stub(ProfileServiceStub).GetProfile(profile_pb2.GetProfileRequest(profile=reference))
        expected = fold_profile(key, [fragment], schema.policies).traits
        assert MessageToDict(answer.profile.traits) == json.loads(json.dumps(expected))
