# SPDX-License-Identifier: Apache-2.0
"""Traits out of the statements that are kept: derived again under other definitions, and told as a history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from svc_profile.domain.definitions import TraitSchema
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import MAX_TRAITS, first_names
from svc_profile.domain.traits import Trait, Union, answers, join_into, stated, without


class Statement(msgspec.Struct, frozen=True, gc=False):
    """The traits that one event stated."""

    fragment: FragmentKey
    time_us: int
    key: bytes
    source: str
    message_id: str
    traits: Mapping[str, Any]

    @property
    def moment(self) -> tuple[int, bytes]:
        """Orders statements."""
        return self.time_us, self.key


class Derivation:
    """Derives the traits of some fragments as if the definitions had always been there."""

    def __init__(self, schema: TraitSchema) -> None:
        self._schema = schema
        self._derived: dict[FragmentKey, dict[str, Trait]] = {}
        self._keys: set[str] = set()
        self._in_unions: dict[FragmentKey, dict[str, Trait]] = {}
        """What kept statements say of traits that are unions, learnt or not."""

    def add(self, statements: Iterable[Statement]) -> None:
        """Fold further statements, in any order, each once."""
        for statement in statements:
            self._keys.add(statement.key.hex())
            join_into(self._derived.setdefault(statement.fragment, {}), self._stated(statement), self._schema.policies)
            in_unions = {name: value for name, value in statement.traits.items() if self._is_union(name)}
            if in_unions:
                said = stated(in_unions, statement.time_us, "", "", self._schema.policies)
                join_into(self._in_unions.setdefault(statement.fragment, {}), said, self._schema.policies)

    def traits(self, fragment: FragmentKey, known: Mapping[str, Trait]) -> dict[str, Trait]:
        """Return what a fragment's traits are; a known value whose event is no longer kept goes on as a statement."""
        derived = self._derived.get(fragment, {})
        for name, trait in known.items():
            value = self._lasting(fragment, name, trait)
            again = stated(value, trait.time_us, trait.event_key, trait.source, self._schema.policies)
            join_into(derived, again, self._schema.policies)
        return first_names(derived, MAX_TRAITS)

    def _lasting(self, fragment: FragmentKey, name: str, trait: Trait) -> Mapping[str, Any]:
        """Return what is known of a trait beyond what kept statements say."""
        if not self._is_union(name) or not isinstance(trait.value, list):
            return {} if trait.event_key in self._keys else self._schema.accepted({name: trait.value})
        # It bears the moment of its latest statement alone, whatever became of those before.
        said = self._in_unions.get(fragment, {}).get(name)
        left = without(trait.value, said.value if said else ())
        return {name: [each for each in left if self._accepts(name, each)]}

    def _accepts(self, name: str, element: Any) -> bool:
        return any(self._schema.accepted({name: value}) for value in (element, [element]))

    def _is_union(self, name: str) -> bool:
        return isinstance(self._schema.policies.get(name), Union)

    def _stated(self, statement: Statement) -> dict[str, Trait]:
        return stated(
            self._schema.accepted(statement.traits),
            statement.time_us,
            statement.key.hex(),
            statement.source,
            self._schema.policies,
        )


@dataclass(frozen=True)
class TraitChange:
    """One change of one trait's value."""

    trait: str
    old: Any
    """None: it had none."""
    new: Any
    """None: it was taken back."""
    time_us: int
    key: bytes
    source: str
    message_id: str

    @property
    def position(self) -> tuple[int, bytes, str]:
        """Where it stands in the list, newest first."""
        return self.time_us, self.key, self.trait


def history(statements: Sequence[Statement], schema: TraitSchema, only: str = "") -> list[TraitChange]:
    """Return how a customer's traits came to their values, newest change first.

    Statements are heard in the order of event time, whatever the order of arrival; one that changes nothing under the
    policy of the trait is no change.
    """
    known: dict[str, Trait] = {}
    changes: list[TraitChange] = []
    for statement in sorted(statements, key=lambda each: each.moment):
        traits = {n: v for n, v in statement.traits.items() if n == only} if only else statement.traits
        states = stated(
            schema.accepted(traits), statement.time_us, statement.key.hex(), statement.source, schema.policies
        )
        before = answers({name: known[name] for name in states if name in known}, schema.policies)
        join_into(known, states, schema.policies)
        after = answers({name: known[name] for name in states}, schema.policies)
        changes += [
            TraitChange(
                trait=name,
                old=before.get(name),
                new=after.get(name),
                time_us=statement.time_us,
                key=statement.key,
                source=statement.source,
                message_id=statement.message_id,
            )
            for name in sorted(states)
            if not _equal(before.get(name), after.get(name))
        ]
    return sorted(changes, key=lambda change: change.position, reverse=True)


def _equal(one: Any, other: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)
