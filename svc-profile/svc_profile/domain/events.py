# SPDX-License-Identifier: Apache-2.0
"""What an event says about identity: under which names it came, and which of them owns it.

Millions of these values pass through, so they are frozen structs of msgspec: what a frozen dataclass is, at a fraction
of the cost. A fragment is known here by the 16 bytes of its id, which compare like the UUID and cost less.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import msgspec
from chassis.identifiers import ANONYMOUS_ID, USER_ID
from chassis.identity import IdentityKey

from svc_profile.domain.schemas import Breach

FragmentKey = bytes
"""The 16 bytes of a fragment id."""

NO_TRAITS: Mapping[str, Any] = MappingProxyType({})

OWN_WISH = "privacy"
"""Source of events that customers ask for themselves, such as a correction: taken in whatever they have refused."""

NO_CONSENT: Mapping[str, bool] = MappingProxyType({})


class Name(msgspec.Struct, frozen=True, gc=False):
    """An identifier, and the fragment that it names."""

    fragment: FragmentKey
    namespace: str
    value: str


WITHHELD = Name(b"", "", "")
"""Owner of events whose names are learnt and nothing else."""


class Names(msgspec.Struct, frozen=True, gc=False):
    """All names that one event came under."""

    seen: tuple[Name, ...]
    """Strongest first; the first owns the event. Empty when the event is nobody's, or its schema rejects it."""
    previous: Name | None = None
    """`alias` only: the id that the customer had before, read as a visitor's id; also in `seen`."""
    former_user: Name | None = None
    """`alias` only: the same id read as the id of another known customer; not in `seen`."""


NO_NAMES = Names(())


class Event(msgspec.Struct, frozen=True, gc=False):
    """What is learnt from one event."""

    key: bytes
    """16 bytes of source and message id: tells duplicates, and breaks ties."""
    time_us: int
    counted_name: str
    names: Names
    source: str
    message_id: str
    received_time_us: int = 0
    traits: Mapping[str, Any] = NO_TRAITS
    group_id: str = ""
    amount: tuple[str, Decimal] | None = None
    """Currency and value of an order; below 0 for a refund."""
    consent: Mapping[str, bool] = NO_CONSENT
    """Whether each category is granted, by what the event says itself."""
    payload: bytes = b""
    """The event as it was collected, to derive from again."""
    breach: Breach | None = None
    """What the schema of its name says against it."""
    diverted: Name | None = None
    """The fragment that learns what the event tells, where that is not the one of its strongest name."""
    group_traits: Mapping[str, Any] = NO_TRAITS
    """`group` only: what it states about the group."""

    @property
    def owner(self) -> Name:
        """The fragment that learns what the event tells: that of the strongest name, unless it was diverted."""
        return self.diverted or self.names.seen[0]


def event_key(source: str, message_id: str) -> bytes:
    """Name an event by its source and the client's id of it."""
    return blake2b(f"{source}\x00{message_id}".encode(), digest_size=16).digest()


class Namer:
    """Finds the names in what an event carries, and the fragments behind them."""

    def __init__(self, key: IdentityKey) -> None:
        self._key = key
        self.types = key.types
        self._user_first = key.types.rank[USER_ID] < key.types.rank[ANONYMOUS_ID]

    def names(
        self, user_id: str, anonymous_id: str, previous_id: str = "", traits: Mapping[str, Any] = NO_TRAITS
    ) -> Names:
        """Order what an event carries by strength of its types."""
        pair = self._pair(user_id, anonymous_id)
        if traits:
            pair = self._with_traits(pair, traits)
        return self._with_previous(pair.seen, previous_id) if previous_id else pair

    def _pair(self, user_id: str, anonymous_id: str) -> Names:
        user = self._name(USER_ID, user_id) if user_id else None
        visitor = self._name(ANONYMOUS_ID, anonymous_id) if anonymous_id else None
        if user is None or visitor is None:
            only = user or visitor
            return NO_NAMES if only is None else Names((only,))
        return Names((user, visitor) if self._user_first else (visitor, user))

    def _with_traits(self, pair: Names, traits: Mapping[str, Any]) -> Names:
        found = self._in_traits(traits)
        return Names(self._by_strength([*pair.seen, *found])) if found else pair

    def _with_previous(self, seen: tuple[Name, ...], previous_id: str) -> Names:
        previous = self._name(ANONYMOUS_ID, previous_id)
        if previous is None or previous in seen:
            return Names(seen)
        is_user = bool(seen) and seen[0].namespace == USER_ID
        former = self._name(USER_ID, previous_id) if is_user else None
        return Names(self._by_strength([*seen, previous]), previous, None if former in seen else former)

    def _name(self, namespace: str, raw: str) -> Name | None:
        # Nothing is looked up in a cache: to miss costs as much as to hash, and of a million customers nearly all miss.
        value = self.types.spelt(namespace, raw)
        return None if value is None else Name(self._key.fragment_key(namespace, value), namespace, value)

    def _by_strength(self, names: Sequence[Name]) -> tuple[Name, ...]:
        """Put names in order, each once; of one type the first that was given is the strongest."""
        found = tuple(dict.fromkeys(names))
        if len(found) < 2:
            return found
        rank = self.types.rank
        return tuple(sorted(found, key=lambda name: rank[name.namespace]))

    def _in_traits(self, traits: Mapping[str, Any]) -> list[Name]:
        found = [
            self._name(namespace, text)
            for trait, namespace in self.types.traits.items()
            if trait in traits and (text := _id_text(traits[trait]))
        ]
        return [name for name in found if name is not None]


def _id_text(value: Any) -> str:
    """Spell a trait that is an id: a number as people write it; empty for what can be none."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    return str(value) if isinstance(value, (str, int)) else ""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """The events of one collected message."""

    batch_id: bytes
    """16 bytes of the message's id: tells a redelivery of the message from a repetition of its events."""
    events: Sequence[Event]
