# SPDX-License-Identifier: Apache-2.0
"""Decisions of people about identity, through the real door: merge, split, explain, resolve, and their inverses."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from chassis.identity import IdentityKey, format_profile_id
from chassis.testing import IDENTITY_KEY, Engines, RunningService, running
from dangol.events.v1.events_pb2 import Event, EventBatch, EventType
from dangol.operations.v1 import operations_pb2
from dangol.operations.v1.operations_pb2_grpc import AccessLogServiceStub
from dangol.profile.v1 import consent_pb2, profile_pb2
from dangol.profile.v1 import identity_pb2 as pb
from dangol.profile.v1.consent_pb2_grpc import ConsentServiceStub
from dangol.profile.v1.identity_pb2_grpc import IdentityServiceStub
from dangol.profile.v1.profile_pb2_grpc import ProfileServiceStub
from sqlalchemy import event as sqlalchemy_event
from svc_profile.app import build
from svc_profile.domain.decisions import Note
from svc_profile.settings import Settings
from svc_profile.usecases.deciding import Bounds, merge_profiles

KEY = IdentityKey(bytes.fromhex(IDENTITY_KEY))
START_US = 1_760_000_000_000_000
MINUTE_US = 60_000_000
MERGE, SPLIT = pb.IDENTITY_DECISION_KIND_MERGE, pb.IDENTITY_DECISION_KIND_SPLIT

numbers = itertools.count()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    async with running(build, Settings, engines, max_merge_fragments=2_000) as service:
        yield service


@pytest.fixture
def tag() -> str:
    """Keep the customers of one test apart from those of the others."""
    return f"i{next(numbers)}"


def event(kind: str, *, at: int = 0, traits: Any = None, **fields: Any) -> Event:
    return Event(
        type=EventType.Value(f"EVENT_TYPE_{kind.upper()}"),
        time_us=START_US + at * MINUTE_US,
        received_time_us=START_US + at * MINUTE_US,
        traits=json.dumps(traits).encode() if traits is not None else b"",
        **{"source": "web", "message_id": f"m{next(numbers)}", **fields},
    )


async def collect(service: RunningService, *events: Event) -> None:
    await service.deliver(EventBatch(events=events), subject="events.collected.1")


async def known(service: RunningService, reference: str) -> profile_pb2.Profile:
    request = profile_pb2.GetProfileRequest(profile=reference)
    answer: profile_pb2.GetProfileResponse = await service.stub(ProfileServiceStub).GetProfile(request)
    return answer.profile


async def merge(service: RunningService, keep: str, *absorb: str, dry_run: bool = False) -> pb.IdentityChange:
    request = pb.MergeProfilesRequest(profile=keep, absorb=absorb, reason="asked for", dry_run=dry_run)
    answer: pb.MergeProfilesResponse = await service.stub(IdentityServiceStub).MergeProfiles(request)
    await service.settled()
    return answer.change


async def split(service: RunningService, of: str, *chosen: str, dry_run: bool = False) -> pb.IdentityChange:
    request = pb.SplitProfileRequest(profile=of, identifiers=chosen, reason="a mistake", dry_run=dry_run)
    answer: pb.SplitProfileResponse = await service.stub(IdentityServiceStub).SplitProfile(request)
    await service.settled()
    return answer.change


async def explain(service: RunningService, reference: str, start: str = "", end: str = "") -> Any:
    request = pb.ExplainProfileRequest(profile=reference, from_identifier=start, to_identifier=end)
    return await service.stub(IdentityServiceStub).ExplainProfile(request)


async def conflicts(service: RunningService, reference: str) -> list[pb.IdentityConflict]:
    request = pb.ListIdentityConflictsRequest(profile=reference)
    return list((await service.stub(IdentityServiceStub).ListIdentityConflicts(request)).conflicts)


async def decisions(service: RunningService, reference: str = "") -> list[pb.IdentityDecision]:
    request = pb.ListIdentityDecisionsRequest(profile=reference)
    return list((await service.stub(IdentityServiceStub).ListIdentityDecisions(request)).decisions)


async def resolve(service: RunningService, conflict: pb.IdentityConflict, how: Any) -> None:
    request = pb.ResolveIdentityConflictRequest(conflict_id=conflict.conflict_id, reason="looked into", resolution=how)
    await service.stub(IdentityServiceStub).ResolveIdentityConflict(request)
    await service.settled()


async def two_people(service: RunningService, tag: str) -> tuple[str, str]:
    """Let Kim and Lee be known, each with a device and traits."""
    for at, name in enumerate(("kim", "lee")):
        await collect(
            service,
            event("page", at=at, anonymous_id=f"{name}-device-{tag}"),
            event(
                "identify",
                at=10 + at,
                anonymous_id=f"{name}-device-{tag}",
                user_id=f"{name}-{tag}",
                traits={"name": name, name: True, "email": f"{name}-{tag}@example.com"},
            ),
        )
    return f"user_id:kim-{tag}", f"user_id:lee-{tag}"


def names(profile: profile_pb2.Profile) -> set[str]:
    return {f"{each.namespace}:{each.value}" for each in profile.identifiers}


def bare(profile: profile_pb2.Profile) -> profile_pb2.Profile:
    """Leave out what `GetProfile` answers on request only."""
    plain = profile_pb2.Profile()
    plain.CopyFrom(profile)
    plain.ClearField("consents")
    return plain


async def test_merging_two_known_people_makes_them_one_and_splitting_takes_it_back(
    service: RunningService, tag: str
) -> None:
    """Whatever limits say; and the split finds the merge that it undoes."""
    kim, lee = await two_people(service, tag)
    before = [await known(service, kim), await known(service, lee)]
    change = await merge(service, kim, lee)
    whole = await known(service, lee)
    assert whole == await known(service, kim) == await known(service, before[1].profile_id) == bare(change.after[0])
    assert names(whole) == names(before[0]) | names(before[1])
    assert dict(whole.event_counts) == {"page": 2, "identify": 2}
    assert [each.profile_id for each in change.before] == sorted(each.profile_id for each in before)
    assert [decision.kind for decision in change.made] == [MERGE]
    undone = await split(service, kim, *names(before[1]))
    assert [await known(service, kim), await known(service, lee)] == before
    assert [decision.decision_id for decision in undone.revoked] == [change.made[0].decision_id]
    assert not undone.made


async def test_chosen_identifiers_leave_with_their_own_history_and_merging_takes_it_back(
    service: RunningService, tag: str
) -> None:
    """What the others learnt stays, held together although the address that connected them has left."""
    mail, first, second = f"email:{tag}@example.com", f"anonymous_id:a-{tag}", f"anonymous_id:b-{tag}"
    for at, device in enumerate((f"a-{tag}", f"b-{tag}")):
        traits = {"email": f"{tag}@example.com", "city": "Seoul"}
        await collect(service, event("identify", at=at, anonymous_id=device, traits=traits))
        await collect(service, event("page", at=5 + at, anonymous_id=device))
    before = await known(service, mail)
    change = await split(service, first, mail)
    left, stayed = await known(service, mail), await known(service, first)
    assert names(left) == {mail}
    assert stayed == await known(service, second)
    assert (dict(left.event_counts), dict(stayed.event_counts)) == ({"identify": 2}, {"page": 2})
    assert ("city" in left.traits, "city" in stayed.traits) == (True, False)
    assert [decision.kind for decision in change.made] == [SPLIT]
    again = await merge(service, mail, second)
    assert await known(service, mail) == before
    assert [decision.decision_id for decision in again.revoked] == [change.made[0].decision_id]
    assert not again.made


async def test_a_dry_run_says_what_would_change_and_changes_nothing(service: RunningService, tag: str) -> None:
    kim, lee = await two_people(service, tag)
    before = [await known(service, kim), await known(service, lee)]
    announced = len(await service.published(pb.ProfilesMerged))
    would = await merge(service, kim, lee, dry_run=True)
    assert (would.before_count, would.after_count) == (2, 1)
    assert set(would.after[0].traits.keys()) == {"name", "kim", "lee", "email"}
    assert [await known(service, kim), await known(service, lee)] == before
    assert not await decisions(service, kim)
    assert len(await service.published(pb.ProfilesMerged)) == announced
    await merge(service, kim, lee)
    would = await split(service, kim, *names(before[1]), dry_run=True)
    assert [bare(each) for each in would.after] == sorted(before, key=lambda each: each.profile_id)
    assert len((await known(service, kim)).identifiers) == 6


async def test_a_dry_run_says_which_fragments_would_make_up_whom(service: RunningService, tag: str) -> None:
    """For svc-segmentation to evaluate; a decision that is taken has nothing more to ask."""
    kim, lee = await two_people(service, tag)
    stub = service.stub(IdentityServiceStub, ["identity.write"])
    request = pb.MergeProfilesRequest(profile=kim, absorb=[lee], reason="asked for", dry_run=True)
    would: pb.MergeProfilesResponse = await stub.MergeProfiles(request)
    [whole] = would.placements
    assert whole.profile_id == would.change.after[0].profile_id
    assert (len(whole.fragment_ids), len(set(whole.fragment_ids))) == (6, 6)
    request.dry_run = False
    done: pb.MergeProfilesResponse = await stub.MergeProfiles(request)
    assert not done.placements
    leaving = [name for name in names(await known(service, kim)) if name == lee]
    apart = pb.SplitProfileRequest(profile=kim, identifiers=leaving, reason="a mistake", dry_run=True)
    parted: pb.SplitProfileResponse = await stub.SplitProfile(apart)
    assert [each.profile_id for each in parted.placements] == [each.profile_id for each in parted.change.after]
    assert sorted(f for each in parted.placements for f in each.fragment_ids) == sorted(whole.fragment_ids)


async def test_events_never_undo_a_decision(service: RunningService, tag: str) -> None:
    """After the split both use one device; the claim is refused and listed, and a late event changes nothing."""
    user, other = f"user_id:u-{tag}", f"email:{tag}@example.com"
    await collect(service, event("identify", at=5, user_id=f"u-{tag}", traits={"email": f"{tag}@example.com"}))
    await split(service, user, other)
    assert not await conflicts(service, user)
    for at in (9, 1):
        await collect(service, event("identify", at=at, user_id=f"u-{tag}", traits={"email": f"{tag}@example.com"}))
    assert names(await known(service, other)) == {other}
    # A device that comes with both later is a new conflict, not a reunion.
    await collect(
        service,
        event("identify", at=20, anonymous_id=f"d-{tag}", traits={"email": f"{tag}@example.com"}),
        event("identify", at=21, anonymous_id=f"d-{tag}", user_id=f"u-{tag}"),
    )
    assert names(await known(service, other)) == {other, f"anonymous_id:d-{tag}"}
    assert [conflict.identifier.value for conflict in await conflicts(service, user)] == [f"d-{tag}"]


async def test_a_merge_holds_what_it_joined_against_later_events(service: RunningService, tag: str) -> None:
    """A third person who logs in on a merged customer's device stays a third person."""
    kim, _ = await two_people(service, tag)
    await collect(service, event("page", at=1, anonymous_id=f"x-{tag}"))
    await merge(service, f"anonymous_id:x-{tag}", kim)
    await collect(service, event("identify", at=50, anonymous_id=f"x-{tag}", user_id=f"park-{tag}"))
    assert names(await known(service, f"user_id:park-{tag}")) == {f"user_id:park-{tag}"}
    assert f"anonymous_id:x-{tag}" in names(await known(service, kim))
    assert [each.claiming_profile_id for each in await conflicts(service, kim)] == [prf(f"user_id:park-{tag}")]


def prf(reference: str) -> str:
    return format_profile_id(KEY.resolve(reference))


async def test_decisions_are_announced(service: RunningService, tag: str) -> None:
    kim, lee = await two_people(service, tag)
    ids = sorted([(await known(service, kim)).profile_id, (await known(service, lee)).profile_id])
    await merge(service, kim, lee)
    whole = (await known(service, kim)).profile_id
    merged = [m for m in await service.published(pb.ProfilesMerged) if m.profile_id == whole]
    assert [list(m.absorbed_profile_ids) for m in merged] == [[each for each in ids if each != whole]]
    await split(service, kim, f"email:lee-{tag}@example.com", lee, f"anonymous_id:lee-device-{tag}")
    parted = [m for m in await service.published(pb.ProfilesSplit) if m.profile_id == whole]
    assert [sorted(m.split_profile_ids) for m in parted] == [ids]


async def test_a_decision_says_who_took_it_why_and_when(service: RunningService, tag: str) -> None:
    """Also after it was taken back."""
    kim, lee = await two_people(service, tag)
    await merge(service, kim, lee)
    await split(service, kim, lee, f"email:lee-{tag}@example.com", f"anonymous_id:lee-device-{tag}")
    (decision,) = await decisions(service, kim)
    assert (decision.actor, decision.reason) == ("test", "asked for")
    assert (decision.revoked_by, decision.revoke_reason) == ("test", "a mistake")
    assert decision.revoke_time.ToMicroseconds() >= decision.decide_time.ToMicroseconds() > 0
    assert {f"{i.namespace}:{i.value}" for i in decision.sides[0].identifiers} == {kim, lee}


async def test_an_explanation_holds_every_link_with_event_rule_time_and_confidence(
    service: RunningService, tag: str
) -> None:
    """And the chain between two identifiers, with what it is worth as a whole."""
    kim, lee = await two_people(service, tag)
    device, mail = f"anonymous_id:kim-device-{tag}", f"email:lee-{tag}@example.com"
    await collect(service, event("identify", at=30, anonymous_id=f"kim-device-{tag}", user_id=f"lee-{tag}"))
    alone = await explain(service, kim, device, f"email:kim-{tag}@example.com")
    assert [(link.rule, round(link.confidence, 2)) for link in alone.path] == [("same_event", 0.8), ("same_event", 0.9)]
    assert alone.path_confidence == pytest.approx(0.72)
    assert [link.claim_time.ToMicroseconds() for link in alone.path] == [START_US + 10 * MINUTE_US] * 2
    refused = [link for link in alone.links if link.outcome == pb.LINK_OUTCOME_REFUSED_OUTRANKED]
    assert [link.claiming_profile_id for link in refused] == [(await known(service, lee)).profile_id]
    await merge(service, kim, lee)
    whole = await explain(service, kim, device, mail)
    assert [link.rule for link in whole.path] == ["same_event", "merge", "same_event"]
    assert whole.path[1].message_id == whole.decisions[0].decision_id
    assert {link.outcome for link in whole.links} == {pb.LINK_OUTCOME_FOLLOWED, pb.LINK_OUTCOME_CORROBORATING}


async def test_what_was_done_on_a_shared_device_goes_with_its_user(service: RunningService, tag: str) -> None:
    """Through merge and split; and it is told of as nobody's name."""
    kim, lee = await two_people(service, tag)
    device = f"kim-device-{tag}"
    await collect(service, event("identify", at=30, anonymous_id=device, user_id=f"lee-{tag}"))
    await collect(service, event("page", at=31, anonymous_id=device))
    before = [await known(service, kim), await known(service, lee)]
    assert [person.event_counts["page"] for person in before] == [1, 2]
    await merge(service, kim, lee)
    whole = await explain(service, kim)
    assert {end.namespace for link in whole.links for end in (link.identifier, link.belongs_to)} == {
        *("user_id", "email", "anonymous_id"),
    }
    await split(service, kim, *names(before[1]))
    assert [await known(service, kim), await known(service, lee)] == before
    await split(service, lee, f"email:lee-{tag}@example.com")
    assert dict((await known(service, lee)).event_counts) == {"page": 2, "identify": 2}


async def test_a_link_that_a_decision_refuses_says_so(service: RunningService, tag: str) -> None:
    user, mail = f"user_id:u-{tag}", f"email:{tag}@example.com"
    await collect(service, event("identify", user_id=f"u-{tag}", traits={"email": f"{tag}@example.com"}))
    await split(service, user, mail)
    answer = await explain(service, mail)
    assert [link.outcome for link in answer.links] == [pb.LINK_OUTCOME_REFUSED_DECISION]


@pytest.mark.parametrize(
    ("how", "home", "people"),
    [
        (pb.CONFLICT_RESOLUTION_KEEP_APART, "kim", 2),
        (pb.CONFLICT_RESOLUTION_MOVE, "lee", 2),
        (pb.CONFLICT_RESOLUTION_MERGE, "lee", 1),
    ],
)
async def test_a_conflict_is_resolved_once_and_stays_resolved(
    service: RunningService, tag: str, how: int, home: str, people: int
) -> None:
    """Whose is Kim's device, on which Lee logged in? What is decided holds against the events that said otherwise."""
    kim, lee = await two_people(service, tag)
    await collect(service, event("identify", at=30, anonymous_id=f"kim-device-{tag}", user_id=f"lee-{tag}"))
    (conflict,) = await conflicts(service, kim)
    await resolve(service, conflict, how)
    await collect(service, event("identify", at=1, anonymous_id=f"kim-device-{tag}", user_id=f"kim-{tag}"))
    assert await known(service, f"anonymous_id:kim-device-{tag}") == await known(service, f"user_id:{home}-{tag}")
    assert len({(await known(service, each)).profile_id for each in (kim, lee)}) == people
    assert not await conflicts(service, kim)
    with pytest.raises(grpc.aio.AioRpcError, match="no such conflict"):
        await resolve(service, conflict, how)


async def test_merging_who_are_one_already_changes_nothing(service: RunningService, tag: str) -> None:
    """So that a caller who lost the answer may ask again."""
    kim, lee = await two_people(service, tag)
    await merge(service, kim, lee)
    again = await merge(service, kim, lee, lee)
    assert (again.before_count, again.after_count, list(again.made), list(again.revoked)) == (1, 1, [], [])


async def statements_of_merging(service: RunningService, *references: str) -> int:
    """Merge customers and count the statements that PostgreSQL gets."""
    counted: list[str] = []
    keep, *absorb = (KEY.resolve(reference).bytes for reference in references)
    async with service.database.transaction() as tx:
        sqlalchemy_event.listen(
            tx.connection.sync_connection, "before_cursor_execute", lambda *args: counted.append(args[2])
        )
        await merge_profiles(tx, Bounds(KEY.types, 2_000), Note("test", "many", START_US), keep=keep, absorb=absorb)
    return len(counted)


async def test_merging_a_thousand_takes_as_many_statements_as_merging_two(service: RunningService, tag: str) -> None:
    """One set-based operation, however many they are."""
    devices = [f"anonymous_id:{tag}-{n}" for n in range(1_000)]
    visits = [event("page", at=n, anonymous_id=f"{tag}-{n}") for n in range(1_000)]
    await collect(service, *visits, *(event("page", user_id=f"{each}-{tag}") for each in "abc"))
    few = await statements_of_merging(service, f"user_id:a-{tag}", f"user_id:b-{tag}")
    many = await statements_of_merging(service, f"user_id:c-{tag}", *devices)
    assert many == few
    whole = await known(service, f"user_id:c-{tag}")
    assert (len(whole.identifiers), whole.event_counts["page"]) == (1_001, 1_001)
    assert (await known(service, devices[500])).profile_id == whole.profile_id


async def test_a_merge_beyond_the_guard_is_refused(service: RunningService, tag: str) -> None:
    """With the setting's name and the numbers, and without any change."""
    await collect(service, *(event("page", anonymous_id=f"{tag}-{n}") for n in range(2_001)))
    references = [f"anonymous_id:{tag}-{n}" for n in range(2_001)]
    with pytest.raises(grpc.aio.AioRpcError, match=r"2001 identifiers together.*MAX_MERGE_FRAGMENTS allows 2000") as e:
        await merge(service, *references)
    assert e.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert len((await known(service, references[0])).identifiers) == 1


@pytest.mark.parametrize(
    ("references", "code", "words"),
    [
        (["user_id:nobody", "user_id:u-{}"], grpc.StatusCode.NOT_FOUND, "nobody is known"),
        (["user_id:u-{}", "email:{}@example.com", "user_id:nobody"], grpc.StatusCode.NOT_FOUND, r"absorb\[1\]"),
        (["user_id:u-{}", "email:kim"], grpc.StatusCode.INVALID_ARGUMENT, r"absorb\[0\]: .* not a usable email"),
        (["user_id:u-{}"], grpc.StatusCode.INVALID_ARGUMENT, "absorb: is required"),
    ],
)
async def test_a_merge_names_what_is_wrong(
    service: RunningService, tag: str, references: list[str], code: grpc.StatusCode, words: str
) -> None:
    await collect(service, event("identify", user_id=f"u-{tag}", traits={"email": f"{tag}@example.com"}))
    with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
        await merge(service, *(reference.format(tag) for reference in references))
    assert refused.value.code() == code


async def test_a_decision_says_why(service: RunningService, tag: str) -> None:
    """White space is no reason."""
    kim = f"user_id:kim-{tag}"
    await collect(service, event("page", user_id=f"kim-{tag}"))
    request = pb.MergeProfilesRequest(profile=kim, absorb=[kim], reason=" \n", dry_run=True)
    with pytest.raises(grpc.aio.AioRpcError, match="reason: is required"):
        await service.stub(IdentityServiceStub).MergeProfiles(request)


async def test_a_chain_has_two_ends(service: RunningService, tag: str) -> None:
    kim = f"user_id:kim-{tag}"
    await collect(service, event("page", user_id=f"kim-{tag}"))
    with pytest.raises(grpc.aio.AioRpcError, match="to_identifier: is required"):
        await explain(service, kim, start=kim)
    with pytest.raises(grpc.aio.AioRpcError, match="from_identifier: is required"):
        await explain(service, kim, end=kim)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (["user_id:u-{}", "email:{}@example.com"], "must leave the customer at least one"),
        (["email:{}@example.com", "user_id:nobody"], r"identifiers\[1\]: must be an identifier of this customer"),
    ],
)
async def test_a_split_names_what_is_wrong(service: RunningService, tag: str, chosen: list[str], words: str) -> None:
    await collect(service, event("identify", user_id=f"u-{tag}", traits={"email": f"{tag}@example.com"}))
    with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
        await split(service, f"user_id:u-{tag}", *(each.format(tag) for each in chosen))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_deciding_needs_a_scope_of_its_own(service: RunningService, tag: str) -> None:
    kim, lee = await two_people(service, tag)
    stub = service.stub(IdentityServiceStub, ["profile.read", "profile.write"])
    with pytest.raises(grpc.aio.AioRpcError, match=r"identity\.write"):
        await stub.MergeProfiles(pb.MergeProfilesRequest(profile=kim, absorb=[lee], reason="no right"))


async def test_everybody_of_whom_a_decision_tells_is_on_record(service: RunningService, tag: str) -> None:
    """Also who is absorbed, and both sides of a conflict, which the request names by its number alone."""
    kim, lee = await two_people(service, tag)
    login = event("identify", at=30, anonymous_id=f"kim-device-{tag}", user_id=f"lee-{tag}")
    await collect(service, login)
    await merge(service, kim, lee, dry_run=True)
    (conflict,) = await conflicts(service, kim)
    await conflicts(service, "")
    await resolve(service, conflict, pb.CONFLICT_RESOLUTION_KEEP_APART)
    for reference in (kim, lee):
        request = operations_pb2.ListAccessesRequest(profile=reference)
        accesses = (await service.stub(AccessLogServiceStub).ListAccesses(request)).accesses
        methods = {access.method.rpartition(".")[2] for access in accesses}
        assert {"MergeProfiles", "ListIdentityConflicts", "ResolveIdentityConflict"} <= methods


async def test_a_dry_run_says_what_would_be_consented_to(service: RunningService, tag: str) -> None:
    """Of two answers the more restrictive one holds for the whole, and each has its own after a split."""
    kim, lee = await two_people(service, tag)
    stub = service.stub(ConsentServiceStub)
    for person, answer in ((kim, consent_pb2.CONSENT_ANSWER_GRANTED), (lee, consent_pb2.CONSENT_ANSWER_DENIED)):
        said = [consent_pb2.ConsentDecision(purpose_id="marketing_email", answer=answer)]
        await stub.RecordConsent(consent_pb2.RecordConsentRequest(profile=person, decisions=said))
    would = await merge(service, kim, lee, dry_run=True)

    def email(profile: profile_pb2.Profile) -> bool:
        return next(each.granted for each in profile.consents if each.purpose_id == "marketing_email")

    assert sorted(email(profile) for profile in would.before) == [False, True]
    assert [email(profile) for profile in would.after] == [False]


async def test_a_later_user_s_share_of_a_device_is_explained_by_the_device(service: RunningService, tag: str) -> None:
    """Nobody is shown a fragment that nobody is known by, and the first person keeps the device."""
    tablet, first, second = f"tablet-{tag}", f"first-{tag}", f"second-{tag}"
    await collect(service, event("page", anonymous_id=tablet), event("page", at=3, anonymous_id=tablet))
    await collect(service, event("identify", at=1, anonymous_id=tablet, user_id=first))
    await collect(service, event("identify", at=2, anonymous_id=tablet, user_id=second))
    assert (await known(service, f"user_id:{first}")).event_counts == {"page": 1, "identify": 1}
    assert (await known(service, f"user_id:{second}")).event_counts == {"page": 1, "identify": 1}
    told = {
        (link.identifier.value, link.belongs_to.value, link.rule)
        for reference in (first, second)
        for link in (await explain(service, f"user_id:{reference}")).links
        if link.outcome == pb.LINK_OUTCOME_FOLLOWED
    }
    assert told == {(tablet, first, "same_event"), (tablet, second, "shared_device")}
