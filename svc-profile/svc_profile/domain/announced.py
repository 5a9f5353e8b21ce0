# SPDX-License-Identifier: Apache-2.0
"""Traits as other services hear of them: told so that the greatest order wins, whatever the policy.

Who knows no policy can put the fragments of a customer together all the same: of several states of one trait the one
with the greatest order and tie is the value; only sums and unions say what they are and are added up.
"""

import struct
from collections.abc import Mapping
from typing import Any

from svc_profile.domain.definitions import TraitDefinition, TraitSchema, TraitType
from svc_profile.domain.traits import Policy, Trait, time_or_none

_RANK_BITS = 58
"""All times that a timestamp can say fit into them, so that a source's rank goes above."""
_MIDDLE = 2**62
_INVERTED = str.maketrans("0123456789abcdef", "fedcba9876543210")

State = list[Any] | None
"""Value, order, tie, and `SUM` or `UNION` where that is what it is; None: no value under this policy."""


def announced(traits: Mapping[str, Trait], schema: TraitSchema) -> dict[str, State]:
    """Return the states of all traits about which a definition decides, also of those that the fragment has not."""
    return {
        name: _state(definition, traits[name]) if name in traits else None
        for name, definition in schema.deciding.items()
    }


def _state(definition: TraitDefinition, trait: Trait) -> State:
    policy = definition.policy
    if policy in (Policy.SUM, Policy.UNION):
        fold = definition.fold
        value = fold.answer(trait) if fold else trait.value
        return [value, trait.time_us, trait.event_key, str(policy)]
    order, tie = _order(definition, trait)
    return [trait.value, order, tie]


def _order(definition: TraitDefinition, trait: Trait) -> tuple[int, str]:
    match definition.policy:
        case Policy.OLDEST | Policy.FIRST_NON_EMPTY:
            return -trait.time_us, trait.event_key.translate(_INVERTED)
        case Policy.SOURCE_PRIORITY:
            sources = definition.sources
            rank = len(sources) - sources.index(trait.source) if trait.source in sources else 0
            return (rank << _RANK_BITS) + trait.time_us, trait.event_key
        case Policy.MAX:
            order, tie = _greatness(definition.type, trait.value)
            return order, f"{tie} {_MIDDLE + trait.time_us:020d}{trait.event_key}"
        case Policy.MIN:
            order, tie = _greatness(definition.type, trait.value)
            moment = f"{_MIDDLE - trait.time_us:020d}{trait.event_key.translate(_INVERTED)}"
            return -order, f"{tie.translate(_INVERTED)}~{moment}"
    return trait.time_us, trait.event_key


def _greatness(kind: TraitType, value: Any) -> tuple[int, str]:
    """Return a whole number, and a text to go on with, that are in the order of the values."""
    if kind is TraitType.STRING:
        return 0, value.encode("utf-32-be").hex() if isinstance(value, str) else ""
    if kind is TraitType.TIME:
        return time_or_none(value) or 0, ""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    # The bits of a double, read as a whole number, are in the order of the doubles.
    bits = int.from_bytes(struct.pack(">d", number + 0.0), signed=True)
    return bits if bits >= 0 else -(bits & (2**63 - 1)), ""
