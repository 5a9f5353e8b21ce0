# SPDX-License-Identifier: Apache-2.0
"""Say why a customer is one person, and what people decided."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from chassis.database import Transaction
from chassis.errors import Invalid, NotFound

from svc_profile.domain.claims import DERIVED, Rule
from svc_profile.domain.decisions import Decision, DecisionKind, Record
from svc_profile.domain.derived import base_of
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.evidence import DECIDED, Evidence, Explanation, Outcome, Step, chain, confidence, outcome_of
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.profiles import KnownAs, known_as
from svc_profile.store.decisions import DecisionStore
from svc_profile.store.fragments import FragmentStore
from svc_profile.store.links import LinkStore
from svc_profile.store.members import Members, find_members
from svc_profile.usecases.profiles import fragments_of

_DECISIONS = 100


async def explain_profile(
    tx: Transaction, fragment: FragmentKey, ends: tuple[FragmentKey, FragmentKey] | None
) -> Explanation:
    """Return the evidence about a customer, and the chain between two identifiers when they are given."""
    members = await _members(tx, fragment)
    for field, end in zip(("from_identifier", "to_identifier"), ends or (), strict=False):
        if end not in members.fragments:
            raise Invalid.field(field, "must be an identifier of this customer")
    decisions, store = DecisionStore(tx), LinkStore(tx)
    evidence = await store.around(members.fragments)
    standing = await decisions.about({*members.fragments, *(end for each in evidence for end in each.link.claim.pair)})
    records = await decisions.page(of=members.fragments, before=None, most=_DECISIONS)
    steps = await _steps(tx, members.profile, evidence, standing)
    told = {record.decision_id: record for record in records}
    path = chain(*ends, [*steps, *_decided(standing, told, await _names(tx, members.fragments))]) if ends else []
    return Explanation(members.profile, steps, records, path)


async def _members(tx: Transaction, fragment: FragmentKey) -> Members:
    members = await find_members(tx, fragment)
    if members is None:
        raise NotFound("nobody is known by this reference")
    return members


async def _steps(
    tx: Transaction, profile: FragmentKey, evidence: Sequence[Evidence], standing: Sequence[Decision]
) -> list[Step]:
    # What was derived anew is of interest to nobody: it belongs where it was.
    evidence = [each for each in evidence if each.link.claim.rule != Rule.CONTENT]
    names = await _names(tx, {end for each in evidence for end in each.link.claim.pair})
    names |= await _devices(tx, names)
    apart = set(_kept_apart(evidence, standing))
    return [
        _step(each, names, outcome_of(each, apart), profile)
        for each in evidence
        # A user id that was only ever claimed has no fragment.
        if each.link.claim.child in names and each.link.claim.parent in names
    ]


async def _devices(tx: Transaction, names: Mapping[FragmentKey, KnownAs]) -> dict[FragmentKey, KnownAs]:
    """Call a later user's share of a device by the name of the device."""
    shares = {key: base_of(each.value) for key, each in names.items() if each.namespace == DERIVED}
    devices = await _names(tx, set(shares.values())) if shares else {}
    return {key: devices[device] for key, device in shares.items() if device in devices}


async def _names(tx: Transaction, fragments: Collection[FragmentKey]) -> dict[FragmentKey, KnownAs]:
    learnt: Mapping[FragmentKey, Fragment] = await FragmentStore(tx).some(fragments)
    return {key: known_as(fragment) for key, fragment in learnt.items()}


def _step(evidence: Evidence, names: Mapping[FragmentKey, KnownAs], outcome: Outcome, profile: FragmentKey) -> Step:
    claim = evidence.link.claim
    return Step(
        known_as=names[claim.child],
        belongs_to=names[claim.parent],
        rule=claim.rule,
        message_id=claim.message_id,
        source=claim.source,
        time_us=claim.time_us,
        confidence=confidence(claim.rule, claim.child_namespace, claim.parent_namespace),
        outcome=outcome,
        claiming_profile=None if evidence.joins else evidence.parent_profile,
    )


def _kept_apart(
    evidence: Iterable[Evidence], standing: Sequence[Decision]
) -> Iterator[tuple[FragmentKey, FragmentKey]]:
    """Find the pairs of customers between whom there is evidence, and a decision against it."""
    home: dict[FragmentKey, FragmentKey] = {}
    for each in evidence:
        home |= {each.link.claim.child: each.child_profile, each.link.claim.parent: each.parent_profile}
    for decision in standing:
        if decision.kind is DecisionKind.SPLIT:
            near, far, *around = ({home.get(fragment, fragment) for fragment in side} for side in decision.sides)
            beside = far.union(*around)
            yield from ((one, other) for one in near for other in beside)
            yield from ((one, other) for one in far for other in beside - far)


def _decided(
    standing: Iterable[Decision], told: Mapping[int, Record], names: Mapping[FragmentKey, KnownAs]
) -> Iterator[Step]:
    """Tell what people hold together as steps that a chain can take."""
    for decision in standing:
        record = told.get(decision.decision_id)
        for side in decision.sides[:2]:
            here = [names[fragment] for fragment in side if fragment in names]
            if record is not None:
                yield from (_decided_step(record, one, here[0]) for one in here[1:])


def _decided_step(record: Record, one: KnownAs, other: KnownAs) -> Step:
    return Step(
        known_as=one,
        belongs_to=other,
        rule=record.kind,
        message_id=f"idd_{record.decision_id}",
        source=record.note.actor,
        time_us=record.note.time_us,
        confidence=DECIDED,
        outcome=Outcome.FOLLOWED,
        claiming_profile=None,
    )


async def list_decisions(tx: Transaction, *, of: FragmentKey | None, before: int | None, most: int) -> list[Record]:
    """Return what people decided, newest first; about one customer when a fragment is named."""
    fragments = None
    if of is not None:
        fragments = await fragments_of(tx, of)
    return await DecisionStore(tx).page(of=fragments, before=before, most=most)
