# SPDX-License-Identifier: Apache-2.0
"""The rules of names, claims and folds, without any engine."""

from decimal import Decimal

import pytest
from chassis.errors import Invalid
from chassis.identifiers import IdentifierType, IdentifierTypes
from chassis.identity import Identifier, IdentityKey
from hypothesis import given
from hypothesis import strategies as st
from svc_profile.domain import fragments
from svc_profile.domain.changes import Split
from svc_profile.domain.claims import Claim, Link, Rule, admit, claims_of, eligible_claims
from svc_profile.domain.decisions import Decision
from svc_profile.domain.events import Event, FragmentKey, Name, Namer, Names, event_key
from svc_profile.domain.evidence import Explanation, Outcome, Step, chain
from svc_profile.domain.fragments import Fragment, learn, storable
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
from svc_profile.domain.profiles import KnownAs, fold_profile
from svc_profile.domain.rulings import Ruling, rule_merge, rule_split
from svc_profile.domain.traits import Trait

TYPES = IdentifierTypes(
    [
        IdentifierType(namespace="email", traits=("email", "work_email"), normalise="email", limit=2),
        IdentifierType(namespace="loyalty"),
        IdentifierType(namespace="household", shared=True),
    ]
)
KEY = IdentityKey(bytes(range(16)), TYPES)
NAMER = Namer(KEY)


def key(namespace: str, value: str) -> FragmentKey:
    return KEY.fragment_id(Identifier(namespace, value)).bytes


def name(namespace: str, value: str) -> Name:
    return Name(key(namespace, value), namespace, value)


def event(*names: Name, at: int = 0, number: int = 0, **fields: object) -> Event:
    return Event(
        key=event_key("web", f"m{number}"),
        time_us=at,
        counted_name="page",
        names=Names(names),
        source="web",
        message_id=f"m{number}",
        **fields,  # type: ignore[arg-type]
    )


def kinds(names: Names) -> list[tuple[str, str]]:
    return [(found.namespace, found.value) for found in names.seen]


def claim(child: Name, parent: Name, at: int, rank: int = 0) -> Claim:
    return Claim(
        child.fragment, parent.fragment, child.namespace, parent.namespace, "same_event", at, b"", rank, "web", ""
    )


def member(of: Name, first_seen_us: int = 0) -> Member:
    return Member(first_seen_us, of.namespace, of.fragment)


KIM, LEE = name("user_id", "kim"), name("user_id", "lee")
PHONE, MAIL, TABLET = name("phone", "+821012345678"), name("email", "k@x.kr"), name("anonymous_id", "tablet")


def test_names_are_found_strongest_first() -> None:
    traits = {"loyalty": 77, "phone": "010-1234-5678", "email": "K@X.kr", "name": "Kim"}
    assert kinds(NAMER.names("kim", "d1", "", traits)) == [
        ("user_id", "kim"),
        ("email", "k@x.kr"),
        ("phone", "+821012345678"),
        ("loyalty", "77"),
        ("anonymous_id", "d1"),
    ]


def test_the_declared_order_is_the_order_of_strength() -> None:
    """Shared names are the weakest, wherever they stand."""
    declared = [
        IdentifierType(namespace="home", shared=True),
        IdentifierType(namespace="loyalty"),
        IdentifierType(namespace="user_id", limit=1),
    ]
    namer = Namer(IdentityKey(bytes(16), IdentifierTypes(declared)))
    found = namer.names("kim", "d1", "old", {"loyalty": 77.0, "home": "02-312-3456", "email": "k@x.kr"})
    assert [n.namespace for n in found.seen] == ["loyalty", "user_id", "email", "anonymous_id", "anonymous_id", "home"]
    assert (found.seen[0].value, found.previous) == ("77", found.seen[4])


def test_a_shared_name_belongs_to_the_first_person_in_all() -> None:
    """Not to the first per kind of stronger name: else it would stand between two people."""
    home = name("household", "h1")
    claims = [claim(home, MAIL, 1), claim(home, KIM, 2)]
    assert eligible_claims(claims, TYPES.shared) == [claims[0]]
    assert set(eligible_claims(claims)) == set(claims)


def test_a_person_has_no_more_names_of_a_type_than_its_limit() -> None:
    """The third address is refused, and a claim that takes no address beyond the limit is not."""
    mails = [name("email", f"{n}@x.kr") for n in range(3)]
    members = {n.fragment: member(n) for n in (KIM, PHONE, TABLET, *mails)}
    claims = [claim(mail, KIM, at) for at, mail in enumerate(mails)]
    resolution = resolve(members, [*claims, claim(TABLET, KIM, 9), claim(PHONE, mails[2], 9)], types=TYPES)
    assert resolution.refused == {claims[2].pair}
    assert resolution.profile_of[TABLET.fragment] == resolution.profile_of[mails[1].fragment]


def test_what_the_platform_links_itself_is_always_followed() -> None:
    """And its leaves are no further user ids."""
    content, epoch = name("user_id", "content"), name("anonymous_id", "epoch")
    members = {n.fragment: member(n) for n in (KIM, LEE, content, epoch)}
    forced = [
        Claim(child.fragment, parent.fragment, child.namespace, parent.namespace, rule, 9, b"", 0, "", "")
        for child, parent, rule in ((content, KIM, Rule.CONTENT), (epoch, LEE, Rule.SHARED_DEVICE))
    ]
    assert set(eligible_claims(forced)) == set(forced)
    resolution = resolve(members, forced, [Decision(1, ((content.fragment,), (KIM.fragment,)))])
    assert not resolution.refused
    assert resolution.profile_of[content.fragment] == resolution.profile_of[KIM.fragment]
    assert resolution.profile_of[epoch.fragment] == resolution.profile_of[LEE.fragment]


@pytest.mark.parametrize("junk", ["null", "undefined", "[object Object]", "0", " ", "nan", '"guest"'])
def test_junk_names_nobody(junk: str) -> None:
    assert NAMER.names(junk, junk, junk).seen == ()
    assert kinds(NAMER.names(junk, "d1", junk, {"email": junk, "loyalty": junk})) == [("anonymous_id", "d1")]


def test_a_trait_that_is_no_text_and_no_number_is_no_identifier() -> None:
    assert kinds(NAMER.names("kim", "", "", {"email": ["k@x.kr"], "loyalty": True})) == [("user_id", "kim")]


def test_one_name_given_twice_is_one() -> None:
    found = NAMER.names("", "d1", "d1", {"email": "k@x.kr", "work_email": "K@x.kr"})
    assert kinds(found) == [("email", "k@x.kr"), ("anonymous_id", "d1")]
    assert found.previous is None


def test_an_alias_names_the_visitor_and_maybe_a_former_user() -> None:
    found = NAMER.names("kim", "", "old")
    assert kinds(found) == [("user_id", "kim"), ("anonymous_id", "old")]
    assert found.previous == name("anonymous_id", "old")
    assert found.former_user == name("user_id", "old")
    assert NAMER.names("kim", "", "kim").former_user is None
    assert NAMER.names("", "d1", "old").former_user is None


def test_two_sources_may_use_the_same_message_id() -> None:
    assert event_key("a", "bc") != event_key("ab", "c")
    assert len(event_key("a", "b")) == 16


def test_claims_point_from_weaker_names_to_the_owner() -> None:
    names = Names((KIM, MAIL, TABLET), TABLET, LEE)
    claims = claims_of([Event(b"k", 5, "alias", names, "web", "m")])
    assert {(c.child, c.parent): (c.rule, c.rank) for c in claims.values()} == {
        (MAIL.fragment, KIM.fragment): (Rule.SAME_EVENT, 0),
        (TABLET.fragment, KIM.fragment): (Rule.ALIAS, 1),
        (LEE.fragment, KIM.fragment): (Rule.ALIAS, 3),
    }


def test_the_earliest_evidence_of_a_claim_is_kept() -> None:
    events = [event(KIM, TABLET, at=at, number=at) for at in (3, 1, 2)]
    assert [c.message_id for c in claims_of(events).values()] == ["m1"]


def test_only_the_first_login_on_a_device_counts() -> None:
    claims = [claim(TABLET, LEE, 2), claim(TABLET, KIM, 1), claim(TABLET, MAIL, 3), claim(LEE, KIM, 0)]
    assert set(eligible_claims(claims)) == {claims[1], claims[2]}


def test_claims_are_heard_in_order_of_event_time() -> None:
    """The device is Kim's, the address is Lee's: what would join the two is refused."""
    members = {n.fragment: member(n) for n in (KIM, LEE, TABLET, MAIL)}
    claims = [claim(TABLET, MAIL, 3), claim(MAIL, LEE, 2), claim(TABLET, KIM, 1)]
    resolution = resolve(members, claims)
    assert resolution.refused == {claims[0].pair}
    assert resolution.profile_of[TABLET.fragment] == resolution.profile_of[KIM.fragment]
    assert resolution.profile_of[MAIL.fragment] == resolution.profile_of[LEE.fragment]


def test_of_two_claims_of_one_event_the_stronger_name_is_heard_first() -> None:
    """An address without user comes with Kim's phone and Lee's device: the phone decides."""
    members = {n.fragment: member(n) for n in (KIM, LEE, TABLET, MAIL, PHONE)}
    together = [claim(TABLET, MAIL, 3, rank=1), claim(PHONE, MAIL, 3, rank=0)]
    resolution = resolve(members, [claim(PHONE, KIM, 1), claim(TABLET, LEE, 2), *together])
    assert resolution.profile_of[MAIL.fragment] == resolution.profile_of[KIM.fragment]
    assert resolution.refused == {together[0].pair}


def test_a_customer_is_named_after_the_earliest_fragment() -> None:
    members = {KIM.fragment: member(KIM, 5), TABLET.fragment: member(TABLET, 4)}
    assert set(resolve(members, [claim(TABLET, KIM, 5)]).profile_of.values()) == {TABLET.fragment}
    same_time = {fragment: m._replace(first_seen_us=4) for fragment, m in members.items()}
    assert set(resolve(same_time, [claim(TABLET, KIM, 5)]).profile_of.values()) == {min(members)}


def test_a_further_device_is_joined_without_looking_at_the_others() -> None:
    """However many devices Kim has, the new one needs none of them."""
    admission = admit({}, {(TABLET.fragment, KIM.fragment): claim(TABLET, KIM, 9)})
    standings = {
        TABLET.fragment: newcomer(TABLET.fragment, 9, "anonymous_id"),
        KIM.fragment: Standing(Member(3, "user_id", MAIL.fragment), profile_first_seen_us=1, is_held=True),
    }
    around = survey(admission, standings, older=())
    assert not around.seeds
    change = reconcile(Component({}, {}), admission, around, new={TABLET.fragment})
    assert change.moved == {TABLET.fragment: MAIL.fragment}
    assert [(link.eligible, link.refused) for link in change.links] == [(True, False)]
    assert not change.merges


def standing(of: Name, first_seen_us: int, *, is_held: bool = False) -> Standing:
    return Standing(member(of, first_seen_us), first_seen_us, is_held)


@pytest.mark.parametrize(
    ("child", "links", "claims"),
    [
        (standing(MAIL, 5, is_held=True), [], [claim(MAIL, KIM, 9)]),
        (standing(MAIL, 5), [], [claim(MAIL, KIM, 9), claim(TABLET, MAIL, 8)]),
        (standing(MAIL, 5), [], [claim(MAIL, KIM, 9), claim(MAIL, PHONE, 8)]),
        (standing(MAIL, 5), [claim(MAIL, LEE, 10)], [claim(MAIL, KIM, 9)]),
        (standing(MAIL, 2), [], [claim(MAIL, KIM, 9)]),
    ],
    ids=["is a parent", "becomes a parent", "has two parents", "left another parent", "is older"],
)
def test_what_others_depend_on_is_looked_at_whole(child: Standing, links: list[Claim], claims: list[Claim]) -> None:
    stored = {known.pair: Link(known, eligible=True, refused=False) for known in links}
    standings = {n.fragment: standing(n, 3) for n in (KIM, LEE, PHONE, TABLET)} | {MAIL.fragment: child}
    around = survey(admit(stored, {c.pair: c for c in claims}), standings, older=())
    assert {MAIL.fragment, KIM.fragment} <= around.seeds
    assert MAIL.fragment not in around.leaves


def test_a_device_with_a_past_of_its_own_is_a_merge() -> None:
    admission = admit({}, {(TABLET.fragment, KIM.fragment): claim(TABLET, KIM, 9)})
    standings = {
        TABLET.fragment: Standing(Member(5, "anonymous_id", TABLET.fragment), 5, is_held=False),
        KIM.fragment: Standing(Member(3, "user_id", KIM.fragment), 3, is_held=False),
    }
    change = reconcile(Component({}, {}), admission, survey(admission, standings, older=()), new=())
    assert [(m.profile, m.absorbed, m.evidence_us) for m in change.merges] == [(KIM.fragment, (TABLET.fragment,), 9)]


def test_a_thousand_fragments_become_one_customer_at_once() -> None:
    devices = [name("anonymous_id", f"d{n}") for n in range(1_000)]
    members = {n.fragment: member(n, at) for at, n in enumerate([KIM, *devices])}
    resolution = resolve(members, [claim(device, KIM, at) for at, device in enumerate(devices)])
    assert set(resolution.profile_of.values()) == {KIM.fragment}


def test_the_owner_learns_and_the_others_are_seen() -> None:
    learnt = learn([event(KIM, TABLET, at=7), event(KIM, at=9, number=1), event(TABLET, at=3, number=2)])
    kim, tablet = learnt[KIM.fragment], learnt[TABLET.fragment]
    assert (kim.counts, kim.first_event_us, kim.last_event_us) == ({"page": 2}, 7, 9)
    assert (tablet.counts, tablet.first_event_us, tablet.last_event_us) == ({"page": 1}, 3, 3)
    assert (tablet.first_seen_us, tablet.last_seen_us) == (3, 7)


def test_a_shared_device_does_not_keep_its_owner_alive() -> None:
    """What others do on it moves the identifier's times, not the customer's."""
    learnt = learn([event(LEE, TABLET, at=1), event(KIM, TABLET, at=99, number=1)])
    lee = fold_profile(LEE.fragment, [learnt[LEE.fragment], learnt[TABLET.fragment]])
    assert (lee.first_seen_us, lee.last_seen_us) == (1, 1)
    assert [known.last_seen_us for known in lee.known_as if known.namespace == "anonymous_id"] == [99]


def test_of_two_traits_at_the_same_time_the_event_key_decides() -> None:
    assert Trait("a", 1, "bb").is_later_than(Trait("z", 1, "aa"))
    assert not Trait("z", 1, "aa").is_later_than(Trait("a", 1, "bb"))
    assert Trait("a", 2, "aa").is_later_than(Trait("z", 1, "bb"))


@given(st.permutations(range(12)), st.integers(0, 12))
def test_a_flood_of_names_is_bounded_in_whatever_order_it_comes(order: list[int], cut: int) -> None:
    """The first names in alphabetical order survive, with their exact counts."""
    limit = 5

    def fold(numbers: list[int]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for number in numbers:
            counts[f"n{number:02d}"] = counts.get(f"n{number:02d}", 0) + 1
            counts = fragments.first_names(counts, limit)
        return counts

    one, other = fold(order[:cut] * 2), fold(order[cut:] * 2)
    both = fragments.first_names({**one, **other}, limit)
    assert both == {f"n{number:02d}": 2 for number in range(limit)}


def test_money_adds_up_exactly() -> None:
    fragment = Fragment(KIM, 0, 0)
    for _ in range(10):
        fragment.take_revenue({"USD": Decimal("0.1")})
    assert fragment.revenue == {"USD": Decimal("1.0")}


def test_values_fit_into_postgresql() -> None:
    assert storable({"a\x00": ["\x00b", 1, None, {"c": "\x00"}]}) == {"a": ["b", 1, None, {"c": ""}]}
    assert storable([[[1]]], depth=2) == [[None]]


def component(*members_: tuple[Name, str], claims: list[Claim], decisions: list[Decision]) -> Component:
    """Put names, each with the name of its profile, and what is known of them into a component."""
    homes = {n.fragment: Member(at, n.namespace, key("user_id", home)) for at, (n, home) in enumerate(members_)}
    return Component(homes, {c.pair: Link(c, eligible=True, refused=False) for c in claims}, decisions)


def test_of_two_decisions_that_contradict_each_other_the_newer_one_wins() -> None:
    """In whatever order they are heard of."""
    members = {n.fragment: member(n) for n in (KIM, LEE)}
    merge = Decision(1, ((KIM.fragment, LEE.fragment),))
    split = Decision(2, ((KIM.fragment,), (LEE.fragment,)))
    for decisions in ([merge, split], [split, merge]):
        assert len(set(resolve(members, [], decisions).profile_of.values())) == 2
    newer = Decision(3, merge.sides)
    assert len(set(resolve(members, [], [newer, split]).profile_of.values())) == 1


def test_a_merge_names_what_holds_the_two_and_no_more() -> None:
    """The user ids, which would refuse each other. The tablet follows Kim, and leaves if its evidence is wrong."""
    known = component((KIM, "kim"), (TABLET, "kim"), (LEE, "lee"), claims=[claim(TABLET, KIM, 1)], decisions=[])
    ruling = rule_merge(known, KIM.fragment, {LEE.fragment}, TYPES)
    assert [sorted(side) for (side,) in ruling.new] == [sorted([KIM.fragment, LEE.fragment])]


def test_a_split_keeps_out_whom_the_other_part_had_kept_out() -> None:
    """The address on Kim's tablet is Lee's. Without Kim, the tablet would go over to Lee."""
    claims = [claim(TABLET, KIM, 1), claim(MAIL, LEE, 2), claim(TABLET, MAIL, 3)]
    known = component((KIM, "kim"), (TABLET, "kim"), (LEE, "lee"), (MAIL, "lee"), claims=claims, decisions=[])
    ruling = rule_split(known, KIM.fragment, {TABLET.fragment}, TYPES)
    near, far, bystanders = ruling.new[0]
    assert (near, far) == ((TABLET.fragment,), (KIM.fragment,))
    assert set(bystanders) == {LEE.fragment, MAIL.fragment}
    profile_of = resolve(known.members, claims, [Decision(1, ruling.new[0])], TYPES).profile_of
    assert len(set(profile_of.values())) == 3


def test_a_merge_is_not_taken_back_when_that_would_bring_somebody_else_in() -> None:
    """The address of Kim's tablet is Lee's, who is older: without the merge, the tablet would go over to Lee."""
    claims = [claim(MAIL, LEE, 2), claim(TABLET, MAIL, 3)]
    people = (LEE, "lee"), (MAIL, "lee"), (KIM, "kim"), (TABLET, "kim")
    known = component(*people, claims=claims, decisions=[Decision(1, ((KIM.fragment, TABLET.fragment),))])
    ruling = rule_split(known, KIM.fragment, {TABLET.fragment}, TYPES)
    assert (len(ruling.new), ruling.revoked) == (1, frozenset())


def test_what_the_platform_derived_leaves_with_its_identifier() -> None:
    """Whoever splits off a user takes along what that user did on a shared device."""
    epoch = Name(b"e" * 16, "derived", "")
    forced = Claim(epoch.fragment, LEE.fragment, epoch.namespace, LEE.namespace, Rule.SHARED_DEVICE, 0, b"", 0, "", "")
    merge = Decision(1, ((KIM.fragment, LEE.fragment),))
    known = component((KIM, "kim"), (LEE, "kim"), (epoch, "kim"), claims=[forced], decisions=[merge])
    assert rule_split(known, KIM.fragment, {LEE.fragment}, TYPES) == Ruling(revoked=frozenset({1}))
    with pytest.raises(Invalid, match="must leave"):
        rule_split(known, KIM.fragment, {KIM.fragment, LEE.fragment}, TYPES)


def test_a_profile_that_is_several_customers_now_was_split() -> None:
    """What only goes over to somebody who is there already is none."""
    known = component((KIM, "kim"), (LEE, "kim"), claims=[], decisions=[])
    change = rearrange(known, TYPES, 7)
    assert change.splits == [Split(KIM.fragment, tuple(sorted([KIM.fragment, LEE.fragment])), 7)]
    over = component((KIM, "kim"), (TABLET, "kim"), (LEE, "lee"), claims=[claim(TABLET, LEE, 1)], decisions=[])
    assert rearrange(over, TYPES, 7).splits == []


def test_a_chain_takes_the_shortest_way_and_only_what_was_followed() -> None:
    def step(one: Name, other: Name, outcome: Outcome = Outcome.FOLLOWED) -> Step:
        child, parent = (KnownAs(n.fragment, n.namespace, n.value, 0, 0) for n in (one, other))
        return Step(child, parent, "same_event", "m", "web", 0, 0.5, outcome, None)

    refused = step(TABLET, PHONE, Outcome.LIMIT)
    steps = [step(TABLET, KIM), step(KIM, MAIL), step(MAIL, PHONE), step(KIM, PHONE), refused]
    path = chain(TABLET.fragment, PHONE.fragment, steps)
    assert path == [steps[0], steps[3]]
    assert Explanation(KIM.fragment, steps, [], path).path_confidence == 0.25
    assert chain(TABLET.fragment, LEE.fragment, steps) == []
