# SPDX-License-Identifier: Apache-2.0
"""Groups of fragments that grow together, and what keeps two of them apart: limits of types, decisions of people."""

from collections.abc import Collection, Iterable, Mapping

from svc_profile.domain.decisions import Decision, DecisionKind
from svc_profile.domain.events import FragmentKey

Tag = tuple[int, int]
"""A decision, and which of its sides a group holds."""

_OPPOSITE = ((1, 2), (0, 2), (0, 1, 3), (2,))
"""What is kept apart from each side of a split: bystanders are not kept apart from each other. The last one is what a
newer decision holds together although it is on both sides: this one cannot part it, only keep bystanders away."""


class Groups:
    """Every fragment begins as a group of its own."""

    def __init__(self, namespaces: Mapping[FragmentKey, str], limits: Mapping[str, int]) -> None:
        """`namespaces` holds those fragments too that no limit counts, with an empty namespace."""
        self._up = {fragment: fragment for fragment in namespaces}
        self._limits = limits
        self._held = {f: {namespace: 1} for f, namespace in namespaces.items() if namespace in limits}
        self._tags: dict[FragmentKey, set[Tag]] = {}

    def root(self, fragment: FragmentKey) -> FragmentKey:
        """Return what names the group of a fragment for now."""
        up = self._up
        while up[fragment] != fragment:
            up[fragment] = up[up[fragment]]
            fragment = up[fragment]
        return fragment

    def force(self, one: FragmentKey, other: FragmentKey) -> None:
        """Put two groups together, whatever limits say."""
        child, parent = self.root(one), self.root(other)
        if child == parent:
            return
        self._up[child] = parent
        held = self._held.setdefault(parent, {})
        for namespace, count in self._held.pop(child, {}).items():
            held[namespace] = held.get(namespace, 0) + count
        if tags := self._tags.pop(child, None):
            self._tags.setdefault(parent, set()).update(tags)

    def join(self, child: FragmentKey, parent: FragmentKey) -> bool:
        """Put two groups together unless something keeps them apart; tells whether they are one."""
        one, other = self.root(child), self.root(parent)
        if one != other:
            if self._exceed(one, other) or self.are_apart(one, other):
                return False
            self.force(one, other)
        return True

    def obey(self, decision: Decision) -> None:
        """Hold each side of a decision together and its sides apart, as far as newer decisions leave it to it."""
        sides = [[fragment for fragment in side if fragment in self._up] for side in decision.sides]
        for side in sides[:2]:
            self._glue(side)
        if decision.kind is DecisionKind.SPLIT:
            near, far, *around = ({self.root(fragment) for fragment in side} for side in sides)
            both = near & far
            parts = (near - both, far - both, set[FragmentKey]().union(*around) - near - far, both)
            for number, roots in enumerate(parts):
                self._tag(roots, (decision.decision_id, number))

    def are_apart(self, one: FragmentKey, other: FragmentKey) -> bool:
        """Tell whether people decided that two groups are different customers."""
        if not self._tags:
            return False
        few, many = sorted((self._tags.get(self.root(f), set()) for f in (one, other)), key=len)
        return any((decision, other) in many for decision, side in few for other in _OPPOSITE[side])

    def _tag(self, roots: Iterable[FragmentKey], tag: Tag) -> None:
        for root in roots:
            self._tags.setdefault(root, set()).add(tag)

    def _glue(self, side: Collection[FragmentKey]) -> None:
        pieces: list[FragmentKey] = []
        for fragment in sorted(side):
            home = next((piece for piece in pieces if not self.are_apart(piece, fragment)), None)
            if home is None:
                pieces.append(fragment)
            else:
                self.force(fragment, home)

    def _exceed(self, one: FragmentKey, other: FragmentKey) -> bool:
        few, many = self._held.get(one, {}), self._held.get(other, {})
        return any(
            namespace in many and count + many[namespace] > self._limits[namespace] for namespace, count in few.items()
        )
