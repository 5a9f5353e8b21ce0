# SPDX-License-Identifier: Apache-2.0
"""Any order, any repetition and any batching of the same events ends in the same customers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from chassis.errors import Invalid
from chassis.identifiers import IdentifierType, IdentifierTypes
from chassis.identity import IdentityKey
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event as Message
from dangol.events.v1.events_pb2 import EventBatch, EventType
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.claims import DERIVED, Claim, Link, Pair, admit, claims_of, eligible_claims
from svc_profile.domain.decisions import Decision, Note
from svc_profile.domain.derived import Home, derived_name
from svc_profile.domain.events import Event, FragmentKey, Namer
from svc_profile.domain.fragments import Fragment, learn
from svc_profile.domain.identity import (
    Component,
    Member,
    Standing,
    newcomer,
    rearrange,
    reconcile,
    resolve,
    survey,
)
from svc_profile.domain.profiles import Profile, fold_profile
from svc_profile.domain.rulings import Ruling, rule_merge, rule_split, with_decisions
from svc_profile.settings import Settings
from svc_profile.store.decisions import DecisionStore
from svc_profile.store.members import find_members
from svc_profile.usecases.deciding import Bounds, merge_profiles, split_profile
from svc_profile.wire.collecting import read_event
from svc_profile.wire.profiles import profile_id, profile_to_proto

DECLARED = (
    IdentifierType(namespace="phone", normalise="phone", limit=2),
    IdentifierType(namespace="loyalty", limit=1),
    IdentifierType(namespace="household", shared=True),
)
TYPES = IdentifierTypes(DECLARED)
BOUNDS = Bounds(TYPES, max_fragments=1_000)
NAMER = Namer(IdentityKey(bytes.fromhex(IDENTITY_KEY), TYPES))
START_US = 1_760_000_000_000_000

# Mostly what bears on identity.
KINDS = ["identify"] * 5 + ["alias"] * 2 + ["track", "order", "page", "screen", "group"]
USERS = ["", "", "u1", "u2", "u3"]
DEVICES = ["", "d1", "d2", "d3"]
MAILS = ["kim@example.com", "Lee@Example.com", "lee@example.com", "undefined"]
PHONES = ["010-1234-5678", "+82 10 1234 5678", "010-9999-0000"]
VALUES = [None, "Kim", "Lee", 1, 2.5, True, ["a", {"b": None}], "nul\x00", 10**30, 1e300]

TIMES = st.integers(0, 12).map(lambda minute: START_US + minute * 60_000_000)
TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(MAILS),
        "phone": st.sampled_from(PHONES),
        "loyalty": st.sampled_from(["L1", "L2", 77]),
        "household": st.sampled_from(["H1", "H2"]),
        "name": st.sampled_from(VALUES),
        "city": st.sampled_from(["Seoul", "Busan"]),
    },
)
ORDERS = st.fixed_dictionaries(
    {"revenue": st.sampled_from([0.1, 0.2, 19900, "3.30"])},
    optional={"currency": st.sampled_from(["KRW", "usd"])},
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Draw one event of one of a few customers on a few shared devices."""
    kind = draw(st.sampled_from(KINDS))
    user_id, anonymous_id = draw(st.sampled_from(USERS)), draw(st.sampled_from(DEVICES))
    message = Message(source="web", time_us=draw(TIMES), user_id=user_id, anonymous_id=anonymous_id)
    message.type = EventType.Value(f"EVENT_TYPE_{'TRACK' if kind == 'order' else kind.upper()}")
    if kind == "identify":
        message.traits = encoded(draw(TRAITS))
    elif kind == "track":
        message.name = draw(st.sampled_from(["Product Viewed", "Product Added"]))
    elif kind == "order":
        message.name = draw(st.sampled_from(["Order Completed", "Order Refunded"]))
        message.properties = encoded(draw(ORDERS))
    elif kind == "group":
        message.group_id = draw(st.sampled_from(["g1", "g2"]))
    elif kind == "alias":
        message.previous_id = draw(st.sampled_from(["d1", "d2", "u1", "u2", "old"]))
    return message


def numbered(history: list[Message]) -> list[Message]:
    for number, message in enumerate(history):
        message.message_id = f"m{number}"
    return history


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Message], list[list[Message]]]:
    """Draw a history and a way in which it may arrive: any order, any repetition, any batches."""
    history = numbered(draw(st.lists(messages(), min_size=1, max_size=30)))
    repeated = draw(st.lists(st.sampled_from(history), max_size=6))
    shuffled = draw(st.permutations([*history, *repeated]))
    batches: list[list[Message]] = [[]]
    for message in shuffled:
        starts_anew = draw(st.booleans())
        if starts_anew and batches[-1]:
            batches.append([])
        batches[-1].append(message)
    return history, batches


class Act(NamedTuple):
    """A merge of two customers, or a split of one: whom it concerns depends on who is there by then."""

    one: int
    other: int
    chosen: int | None
    """Of a split: which identifiers leave, by bits."""


ACTS = st.builds(Act, st.integers(0, 20), st.integers(0, 20), st.none() | st.integers(1, 2**12 - 1))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Message], list[list[Message] | Act]]:
    """Draw an arrival with decisions of people at random points of it."""
    history, batches = draw(arrivals())
    steps: list[list[Message] | Act] = list(batches)
    for act in draw(st.lists(ACTS, min_size=1, max_size=6)):
        steps.insert(draw(st.integers(1, len(steps))), act)
    return history, steps


def pick(fragments: Iterable[FragmentKey], number: int) -> FragmentKey:
    """Choose one of the fragments that are there."""
    ordered = sorted(fragments)
    return ordered[number % len(ordered)]


def read(history: Iterable[Message]) -> list[Event]:
    events = [read_event(message, NAMER) for message in history]
    return [event for event in events if event.names.seen]


def profiles(fragments: dict[FragmentKey, Fragment], profile_of: dict[FragmentKey, FragmentKey]) -> list[Profile]:
    """Fold every customer, sorted."""
    members: dict[FragmentKey, list[Fragment]] = {}
    for key, fragment in fragments.items():
        members.setdefault(profile_of[key], []).append(fragment)
    return [fold_profile(profile, of) for profile, of in sorted(members.items())]


def at_once(history: Iterable[Message], decisions: Iterable[Decision] = (), *, visits: bool = False) -> list[Profile]:
    """What identity is by definition: a function of the whole set of events, and of the decisions that stand.

    With `visits`, what is done on a shared device belongs to whoever was the last to come there for the first time.
    """
    events = read(history)
    claims = claims_of(events)
    fragments = learn(events)
    members = {key: Member(f.first_seen_us, f.name.namespace, key) for key, f in fragments.items()}
    counted = eligible_claims(claims.values(), TYPES.shared)
    profile_of = dict(resolve(members, counted, decisions, TYPES).profile_of)
    if visits:
        first = {claim.pair for claim in counted}
        homes = {event.key: home_of(event, [c for p, c in claims.items() if p not in first]) for event in events}
        fragments = learn(
            replace(event, diverted=derived_name(home, 0)) if (home := homes[event.key]) else event for event in events
        )
        profile_of |= {derived_name(home, 0).fragment: profile_of[home[1]] for home in homes.values() if home}
    return profiles(fragments, profile_of)


def home_of(event: Event, later: Sequence[Claim]) -> Home | None:
    """Whose an event on a device is, if not the first person's."""
    device = event.names.seen[0].fragment
    logins = [c for c in later if c.is_login and c.child == device and c.time_us <= event.time_us]
    return (device, max(logins, key=lambda c: (c.time_us, c.event_key)).parent) if logins else None


class Ledger:
    """The service without its engines: what the store keeps, in dictionaries."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.fragments: dict[FragmentKey, Fragment] = {}
        self.links: dict[Pair, Link] = {}
        self.profile_of: dict[FragmentKey, FragmentKey] = {}
        self.decisions: list[Decision] = []
        self.decided = 0

    def collect(self, batch: Sequence[Message]) -> None:
        """Take one batch."""
        events = {event.key: event for event in read(batch) if event.key not in self.seen}
        self.seen |= set(events)
        learnt = learn(events.values())
        new = {key: fragment for key, fragment in learnt.items() if key not in self.fragments}
        older = {key for key in learnt.keys() - new.keys() if self.is_older(learnt[key])}
        for key, fragment in learnt.items():
            if key in new:
                self.fragments[key], self.profile_of[key] = fragment, key
            else:
                self.fragments[key].absorb(fragment)
        self.relink(claims_of(events.values()), older, new)

    def is_older(self, fragment: Fragment) -> bool:
        return fragment.first_seen_us < self.fragments[fragment.name.fragment].first_seen_us

    def relink(self, claims: dict[Pair, Claim], older: set[FragmentKey], new: dict[FragmentKey, Fragment]) -> None:
        """Decide about new claims as the use case does."""
        children = {child for child, _ in claims}
        stored = {p: k for p, k in self.links.items() if p in claims or (k.eligible and p[0] in children)}
        admission = admit(stored, claims, TYPES.shared)
        standings = {key: self.standing(key) for key in (admission.touched | older) - new.keys()}
        standings |= {key: newcomer(key, f.first_seen_us, f.name.namespace) for key, f in new.items()}
        around = survey(admission, standings, older, TYPES)
        change = reconcile(self.component(set(around.seeds - new.keys())), admission, around, new, TYPES)
        self.links |= {link.claim.pair: link for link in change.links}
        self.profile_of |= change.moved

    def member(self, key: FragmentKey) -> Member:
        fragment = self.fragments[key]
        return Member(fragment.first_seen_us, fragment.name.namespace, self.profile_of[key])

    def standing(self, key: FragmentKey) -> Standing:
        is_held = any(link.eligible and pair[1] == key for pair, link in self.links.items())
        is_held |= any(key in side for decision in self.decisions for side in decision.sides)
        return Standing(self.member(key), self.fragments[self.profile_of[key]].first_seen_us, is_held)

    def component(self, reached: set[FragmentKey]) -> Component:
        """Follow eligible links, and what decisions hold together, from some fragments."""
        eligible = {pair: link for pair, link in self.links.items() if link.eligible}
        together = [set(pair) for pair in eligible] + [set(side) for d in self.decisions for side in d.sides[:2]]
        while more := {end for ends in together if ends & reached for end in ends} - reached:
            reached |= more
        members = {key: self.member(key) for key in reached}
        decisions = [
            Decision(d.decision_id, tuple(tuple(f for f in side if f in reached) for side in d.sides))
            for d in self.decisions
        ]
        return Component(members, {pair: link for pair, link in eligible.items() if pair[0] in reached}, decisions)

    def known(self) -> list[Profile]:
        return profiles(self.fragments, self.profile_of)

    def decide(self, act: Act) -> None:
        """Merge or split whom an act picks, if it picks anybody."""
        if act.chosen is None:
            self.merge(self.profile_of[pick(self.fragments, act.one)], self.profile_of[pick(self.fragments, act.other)])
        else:
            members = self.of(self.profile_of[pick(self.fragments, act.one)])
            chosen = {member for place, member in enumerate(members) if act.chosen >> place & 1}
            if chosen and len(chosen) < len(members):
                self.split(chosen)

    def of(self, profile: FragmentKey) -> list[FragmentKey]:
        return sorted(fragment for fragment, of in self.profile_of.items() if of == profile)

    def merge(self, keep: FragmentKey, other: FragmentKey) -> None:
        component = self.component({keep, other})
        self.rule(component, rule_merge(component, keep, {other} - {keep}, TYPES))

    def split(self, chosen: set[FragmentKey]) -> None:
        profile = self.profile_of[min(chosen)]
        component = self.component({profile})
        self.rule(component, rule_split(component, profile, chosen, TYPES))

    def rule(self, component: Component, ruling: Ruling) -> None:
        made = [Decision(self.decided + n, sides) for n, sides in enumerate(ruling.new, 1)]
        self.decided += len(made)
        self.decisions = [d for d in self.decisions if d.decision_id not in ruling.revoked] + made
        change = rearrange(with_decisions(component, ruling, made), TYPES, START_US)
        self.links |= {link.claim.pair: link for link in change.links}
        self.profile_of |= change.moved


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, roles=("rpc",), identifiers=DECLARED) as service:
        yield service


_FORGET_EVERYTHING = """
WITH a AS (DELETE FROM fragments), b AS (DELETE FROM links), c AS (DELETE FROM fragment_profiles),
    d AS (DELETE FROM events), e AS (DELETE FROM derived_fragments), f AS (DELETE FROM outbox),
    g AS (DELETE FROM decision_members)
DELETE FROM identity_decisions
"""


async def forget_everything(service: RunningService) -> None:
    async with service.database.transaction() as tx:
        await tx.execute(_FORGET_EVERYTHING)


async def replica(service: RunningService, batches: Sequence[list[Message]]) -> None:
    """Do what one consumer process does, batch by batch."""
    collecting = Collecting(NAMER)
    for number, batch in enumerate(batches):
        delivery = Delivery(EventBatch(events=batch), f"{id(batch)}-{number}", "events.collected.0", number, 1)
        async with service.database.transaction() as tx:
            await collecting.on_collected(tx, [delivery])


async def assert_known(service: RunningService, expected: Iterable[Profile]) -> None:
    """Every reference to every customer gets the same bytes."""
    stub = service.stub(ProfileServiceStub)
    for profile in expected:
        answer = pb.GetProfileResponse(profile=profile_to_proto(profile)).SerializeToString(deterministic=True)
        references = [f"{known.namespace}:{known.value}" for known in profile.known_as]
        for reference in [profile_id(profile.profile), *references]:
            got = await stub.GetProfile(pb.GetProfileRequest(profile=reference))
            assert got.SerializeToString(deterministic=True) == answer


@settings(max_examples=300, deadline=None)
@given(arrivals())
def test_the_rules_converge(arrival: tuple[list[Message], list[list[Message]]]) -> None:
    """Batch by batch, the rules reach what the whole set of events means."""
    history, batches = arrival
    ledger = Ledger()
    for batch in batches:
        ledger.collect(batch)
    assert profiles(ledger.fragments, ledger.profile_of) == at_once(history)


@settings(max_examples=150, deadline=None)
@given(histories())
def test_the_rules_converge_whatever_people_decide_meanwhile(
    history: tuple[list[Message], list[list[Message] | Act]],
) -> None:
    """Identity is a function of the events and of the decisions that stand."""
    messages, steps = history
    ledger = played(steps)
    assert ledger.known() == at_once(messages, ledger.decisions)


def played(steps: Iterable[list[Message] | Act]) -> Ledger:
    ledger = Ledger()
    for step in steps:
        if not isinstance(step, Act):
            ledger.collect(step)
        elif ledger.fragments:
            ledger.decide(step)
    return ledger


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 20), st.integers(0, 20))
def test_a_split_undoes_a_merge(history: tuple[list[Message], list[list[Message] | Act]], one: int, other: int) -> None:
    """After whatever happened before: everybody is who they were, third parties too."""
    ledger = played(history[1])
    assume(ledger.fragments)
    keep, absorbed = (ledger.profile_of[pick(ledger.fragments, number)] for number in (one, other))
    assume(keep != absorbed)
    before, leaving = dict(ledger.profile_of), set(ledger.of(absorbed))
    ledger.merge(keep, absorbed)
    assert ledger.profile_of[keep] == ledger.profile_of[absorbed]
    assert len(ledger.of(ledger.profile_of[keep])) == len([f for f in before.values() if f in (keep, absorbed)])
    ledger.split(leaving)
    assert ledger.profile_of == before


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 20), st.integers(1, 2**12 - 1))
def test_a_merge_undoes_a_split(history: tuple[list[Message], list[list[Message] | Act]], one: int, bits: int) -> None:
    """And exactly the chosen leave, although what refused them elsewhere may have gone."""
    ledger = played(history[1])
    assume(ledger.fragments)
    members = ledger.of(ledger.profile_of[pick(ledger.fragments, one)])
    leaving = {member for place, member in enumerate(members) if bits >> place & 1}
    assume(leaving and len(leaving) < len(members))
    before = dict(ledger.profile_of)
    ledger.split(leaving)
    homes = {frozenset(ledger.of(ledger.profile_of[f])) for f in members}
    assert homes == {frozenset(leaving), frozenset(members) - leaving}
    ledger.merge(ledger.profile_of[min(leaving)], ledger.profile_of[min(set(members) - leaving)])
    assert ledger.profile_of == before


@settings(max_examples=300, deadline=None)
@given(st.lists(messages(), max_size=30).map(numbered))
def test_no_customer_exceeds_a_limit(history: list[Message]) -> None:
    """Whatever is shared, two known people stay two."""
    for profile in at_once(history):
        held = Counter(known.namespace for known in profile.known_as)
        assert all(held[namespace] <= limit for namespace, limit in TYPES.limits.items())


@settings(max_examples=300, deadline=None)
@given(st.lists(messages(), max_size=30).map(numbered))
def test_what_people_share_joins_nobody(history: list[Message]) -> None:
    """Without the household's number, everybody else is who they are with it."""

    def without_households(message: Message) -> Message:
        bare = Message()
        bare.CopyFrom(message)
        traits = json.loads(message.traits or b"{}")
        traits.pop("household", None)
        bare.traits = encoded(traits)
        return bare

    def people(history: Iterable[Message]) -> set[frozenset[tuple[str, str]]]:
        known = [[(k.namespace, k.value) for k in p.known_as if k.namespace != "household"] for p in at_once(history)]
        return {frozenset(names) for names in known if names}

    assert people(history) == people(map(without_households, history))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
async def test_the_service_converges(
    service: RunningService, arrival: tuple[list[Message], list[list[Message]]]
) -> None:
    """On a real PostgreSQL, every arrival of a history gives byte-equal answers."""
    history, batches = arrival
    await forget_everything(service)
    await replica(service, batches)
    await assert_known(service, at_once(history, visits=True))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals())
async def test_replicas_converge(service: RunningService, arrival: tuple[list[Message], list[list[Message]]]) -> None:
    """Three replicas at once neither wait for each other in a circle nor lose what another learnt."""
    history, batches = arrival
    await forget_everything(service)
    await asyncio.gather(*(replica(service, batches[start::3]) for start in range(3)))
    await assert_known(service, at_once(history, visits=True))


async def decide(service: RunningService, act: Act) -> None:
    """Do to the service what `Ledger.decide` does to the rules."""
    async with service.database.transaction() as tx:
        rows = await tx.rows("SELECT fragment_id FROM fragments")
        fragments = [row.fragment_id.bytes for row in rows]
        if not fragments:
            return
        note, one = Note("test", "drawn", START_US), pick(fragments, act.one)
        if act.chosen is None:
            await merge_profiles(tx, BOUNDS, note, keep=one, absorb=[pick(fragments, act.other)])
            return
        members = await find_members(tx, one)
        assert members is not None
        names = await tx.rows("SELECT fragment_id FROM fragments WHERE namespace <> :derived", derived=DERIVED)
        ordered = sorted({row.fragment_id.bytes for row in names}.intersection(members.fragments))
        chosen = [member for place, member in enumerate(ordered) if act.chosen >> place & 1]
        if chosen and len(chosen) < len(ordered):
            await split_profile(tx, BOUNDS, note, of=one, chosen=chosen)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories())
async def test_the_service_converges_whatever_people_decide_meanwhile(
    service: RunningService, history: tuple[list[Message], list[list[Message] | Act]]
) -> None:
    """On a real PostgreSQL, with merges and splits at random points of the arrival."""
    messages, steps = history
    await forget_everything(service)
    for step in steps:
        await (decide(service, step) if isinstance(step, Act) else replica(service, [step]))
    await assert_known(service, at_once(messages, await standing(service), visits=True))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories())
async def test_replicas_converge_while_people_decide(
    service: RunningService, history: tuple[list[Message], list[list[Message] | Act]]
) -> None:
    """Decisions and events at once, on two replicas: nobody waits in a circle, and nothing is lost between them."""
    messages, steps = history
    batches, acts = [s for s in steps if not isinstance(s, Act)], [s for s in steps if isinstance(s, Act)]
    await forget_everything(service)
    async with asyncio.TaskGroup() as group:
        for start in range(2):
            group.create_task(replica(service, batches[start::2]))
        group.create_task(decide_all(service, acts))
    await assert_known(service, at_once(messages, await standing(service), visits=True))


async def decide_all(service: RunningService, acts: Iterable[Act]) -> None:
    """Decide one after the other; what was chosen may have gone over to somebody else meanwhile."""
    for act in acts:
        with suppress(Invalid):
            await decide(service, act)


async def standing(service: RunningService) -> list[Decision]:
    async with service.database.snapshot() as tx:
        fragments = [row.fragment_id.bytes for row in await tx.rows("SELECT fragment_id FROM fragments")]
        return await DecisionStore(tx).about(fragments)
