# SPDX-License-Identifier: Apache-2.0
"""Any order, any repetition and any batching of the same events ends in the same customers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pytest
from chassis.identifiers import IdentifierType, IdentifierTypes
from chassis.identity import IdentityKey
from chassis.streams import Delivery
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event as Message
from dangol.events.v1.events_pb2 import EventBatch, EventType
from dangol.profile.v1 import profile_pb2 as pb
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from svc_profile.app import build
from svc_profile.consumers import Collecting
from svc_profile.domain.claims import Claim, Link, Pair, admit, claims_of, eligible_claims
from svc_profile.domain.derived import Home, derived_name
from svc_profile.domain.events import Event, FragmentKey, Namer
from svc_profile.domain.fragments import Fragment, learn
from svc_profile.domain.identity import Component, Member, Standing, newcomer, reconcile, resolve, survey
from svc_profile.domain.profiles import Profile, fold_profile
from svc_profile.settings import Settings
from svc_profile.wire.collecting import read_event
from svc_profile.wire.profiles import profile_id, profile_to_proto

DECLARED = (
    IdentifierType(namespace="phone", normalise="phone", limit=2),
    IdentifierType(namespace="loyalty", limit=1),
    IdentifierType(namespace="household", shared=True),
)
TYPES = IdentifierTypes(DECLARED)
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


def read(history: Iterable[Message]) -> list[Event]:
    events = [read_event(message, NAMER) for message in history]
    return [event for event in events if event.names.seen]


def profiles(fragments: dict[FragmentKey, Fragment], profile_of: dict[FragmentKey, FragmentKey]) -> list[Profile]:
    """Fold every customer, sorted."""
    members: dict[FragmentKey, list[Fragment]] = {}
    for key, fragment in fragments.items():
        members.setdefault(profile_of[key], []).append(fragment)
    return [fold_profile(profile, of) for profile, of in sorted(members.items())]


def at_once(history: Iterable[Message], *, visits: bool = False) -> list[Profile]:
    """What identity is by definition: a function of the whole set of events.

    With `visits`, what is done on a shared device belongs to whoever was the last to come there for the first time.
    """
    events = read(history)
    claims = claims_of(events)
    fragments = learn(events)
    members = {key: Member(f.first_seen_us, f.name.namespace, key) for key, f in fragments.items()}
    counted = eligible_claims(claims.values(), TYPES.shared)
    profile_of = dict(resolve(members, counted, types=TYPES).profile_of)
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
        return Standing(self.member(key), self.fragments[self.profile_of[key]].first_seen_us, is_held)

    def component(self, reached: set[FragmentKey]) -> Component:
        """Follow eligible links from some fragments."""
        eligible = {pair: link for pair, link in self.links.items() if link.eligible}
        while more := {end for pair in eligible if set(pair) & reached for end in pair} - reached:
            reached |= more
        members = {key: self.member(key) for key in reached}
        return Component(members, {pair: link for pair, link in eligible.items() if pair[0] in reached})


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, roles=("rpc",), identifiers=DECLARED) as service:
        yield service


async def forget_everything(service: RunningService) -> None:
    async with service.database.transaction() as tx:
        await tx.execute("TRUNCATE fragments, links, fragment_profiles, events, derived_fragments, outbox")


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
