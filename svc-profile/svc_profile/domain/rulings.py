# SPDX-License-Identifier: Apache-2.0
"""What has to be decided, and taken back, so that customers become one or two.

Merge and split are each other's inverse: where taking an earlier decision back is enough, nothing new is decided.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from chassis.errors import Invalid
from chassis.identifiers import IdentifierTypes

from svc_profile.domain.claims import Claim
from svc_profile.domain.decisions import Decision, DecisionKind
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.identity import Component, resolve

Sides = tuple[tuple[FragmentKey, ...], ...]


@dataclass(frozen=True)
class Ruling:
    """What is decided anew, and what is taken back."""

    new: Sequence[Sides] = ()
    revoked: frozenset[int] = frozenset()


def rule_merge(
    component: Component, keep: FragmentKey, others: Collection[FragmentKey], types: IdentifierTypes
) -> Ruling:
    """Make the profile `keep` and others one; `component` is what is connected with any of them."""
    wanted = {keep, *others}
    home = {f: member.profile for f, member in component.members.items() if member.profile in wanted}
    crossing = [decision for decision in component.decisions if _keeps_apart(decision, home)]
    undone = _undone(component, crossing, home, types)
    standing = {f for d in crossing if d.decision_id not in undone for f in _among(d, home)}
    profile_of = _without(component, undone, types)
    groups: dict[FragmentKey, list[FragmentKey]] = {}
    for fragment in home:
        groups.setdefault(profile_of[fragment], []).append(fragment)
    anchors_of = _Anchors(component, types, standing)
    anchors = anchors_of.group(groups.pop(profile_of[keep]))
    new = [((*anchors, *anchors_of.group(group)),) for _, group in sorted(groups.items())]
    return Ruling(new, undone)


def rule_split(
    component: Component, profile: FragmentKey, chosen: Collection[FragmentKey], types: IdentifierTypes
) -> Ruling:
    """Let chosen fragments leave a profile; raises `Invalid` when nothing would stay, or leave."""
    home = {f for f, member in component.members.items() if member.profile == profile}
    carriers = {claim.child: claim.parent for claim in _claims(component) if claim.is_forced}
    near = {f for f in home if _carrier(f, carriers) in chosen}
    far = home - near
    if not near or not far - carriers.keys():
        raise Invalid.field("identifiers", "must leave the customer at least one identifier")
    crossing = [d for d in component.decisions if _holds_together(d, near, far)]
    if len(crossing) == 1:
        undone = frozenset({crossing[0].decision_id})
        if _parts(component, _without(component, undone, types), near, far):
            return Ruling(revoked=undone)
    sides = tuple(sorted(near - carriers.keys())), tuple(sorted(far - carriers.keys()))
    bystanders = _bystanders(component, sides, home, types)
    return Ruling([(*sides, tuple(sorted(bystanders - carriers.keys())))])


def _bystanders(
    component: Component, sides: Sides, home: Collection[FragmentKey], types: IdentifierTypes
) -> set[FragmentKey]:
    """Return the customers who would join a part by evidence that was refused as long as the two were one."""
    number = 1 + max((decision.decision_id for decision in component.decisions), default=0)
    around: set[FragmentKey] = set()
    while True:
        decided = with_decisions(component, Ruling(), [Decision(number, (*sides, tuple(around)))])
        profile_of = _without(decided, (), types)
        parts = {profile_of[fragment] for fragment in home}
        joined = {member.profile for f, member in component.members.items() if f not in home and profile_of[f] in parts}
        further = {f for f, member in component.members.items() if member.profile in joined} - around
        if not further:
            return around
        around |= further


def _claims(component: Component) -> Iterable[Claim]:
    return (link.claim for link in component.links.values() if link.eligible)


def _carrier(fragment: FragmentKey, carriers: Mapping[FragmentKey, FragmentKey]) -> FragmentKey:
    """Return the identifier that a fragment of the platform's own making hangs on."""
    while fragment in carriers:
        fragment = carriers[fragment]
    return fragment


def _without(
    component: Component, undone: Collection[int], types: IdentifierTypes
) -> Mapping[FragmentKey, FragmentKey]:
    """Find out who would be who if some decisions did not stand."""
    decisions = [decision for decision in component.decisions if decision.decision_id not in undone]
    return resolve(component.members, _claims(component), decisions, types).profile_of


def _among(decision: Decision, home: Mapping[FragmentKey, FragmentKey]) -> list[FragmentKey]:
    return [fragment for side in decision.sides for fragment in side if fragment in home]


def _keeps_apart(decision: Decision, home: Mapping[FragmentKey, FragmentKey]) -> bool:
    """Tell whether a split keeps some of the profiles from others of them."""
    if decision.kind is DecisionKind.MERGE:
        return False
    near, far, *around = ({home[fragment] for fragment in side if fragment in home} for side in decision.sides)
    beside = set[FragmentKey]().union(*around)
    return any(one and other and len(one | other) > 1 for one, other in ((near, far), (near, beside), (far, beside)))


def _undone(
    component: Component, crossing: Sequence[Decision], home: Mapping[FragmentKey, FragmentKey], types: IdentifierTypes
) -> frozenset[int]:
    """Return the splits whose sides would be one customer without them, if that concerns nobody else."""
    if not crossing:
        return frozenset()
    profile_of = _without(component, {decision.decision_id for decision in crossing}, types)
    if not _leaves_alone(component, profile_of, component.members.keys() - home.keys()):
        return frozenset()
    return frozenset(d.decision_id for d in crossing if len({profile_of[f] for f in _among(d, home)}) == 1)


class _Anchors:
    """What suffices to hold a group of a component: the rest follows them by its own evidence.

    Names of limited types have to be among them, because two groups that hold such names would refuse each other, and
    so has everything that a standing split would keep apart.
    """

    def __init__(self, component: Component, types: IdentifierTypes, standing: Collection[FragmentKey]) -> None:
        self._members = component.members
        self._types = types
        self._standing = standing
        self._leaves = {claim.child for claim in _claims(component) if claim.is_forced}

    def group(self, fragments: Collection[FragmentKey]) -> list[FragmentKey]:
        """Return the anchors of one group."""
        names = [fragment for fragment in fragments if fragment not in self._leaves] or list(fragments)
        limited = [f for f in names if self._members[f].namespace in self._types.limits]
        standing = [f for f in fragments if f in self._standing]
        return sorted({*(limited or [min(names, key=self._strength)]), *standing})

    def _strength(self, fragment: FragmentKey) -> tuple[int, int, FragmentKey]:
        member = self._members[fragment]
        return self._types.rank.get(member.namespace, len(self._types.rank)), member.first_seen_us, fragment


def _holds_together(decision: Decision, near: Collection[FragmentKey], far: Collection[FragmentKey]) -> bool:
    if decision.kind is DecisionKind.SPLIT:
        return False
    return any(f in near for f in decision.sides[0]) and any(f in far for f in decision.sides[0])


def _parts(
    component: Component,
    profile_of: Mapping[FragmentKey, FragmentKey],
    near: Collection[FragmentKey],
    far: Collection[FragmentKey],
) -> bool:
    """Tell whether an outcome parts exactly these two from each other, and concerns nobody else."""
    left, stayed = {profile_of[f] for f in near}, {profile_of[f] for f in far}
    others = component.members.keys() - {*near, *far}
    return len(left) == len(stayed) == 1 and left != stayed and _leaves_alone(component, profile_of, others)


def _leaves_alone(
    component: Component, profile_of: Mapping[FragmentKey, FragmentKey], others: Collection[FragmentKey]
) -> bool:
    """Tell whether others stay who they were, and nobody comes to them."""
    theirs = {component.members[fragment].profile for fragment in others}
    return all(
        (profile_of[fragment] == member.profile) if fragment in others else (profile_of[fragment] not in theirs)
        for fragment, member in component.members.items()
    )


def with_decisions(component: Component, ruling: Ruling, made: Sequence[Decision]) -> Component:
    """Return the component as it stands after a ruling."""
    kept = [decision for decision in component.decisions if decision.decision_id not in ruling.revoked]
    return replace(component, decisions=[*kept, *made])
