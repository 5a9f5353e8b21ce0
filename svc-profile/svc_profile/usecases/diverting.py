# SPDX-License-Identifier: Apache-2.0
"""Which fragment learns from the events of flagged identifiers, and which events nobody learns from."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from chassis.database import Transaction
from chassis.identifiers import USER_ID
from msgspec.structs import replace

from svc_profile.domain.claims import Claim, Pair
from svc_profile.domain.consent import Admission
from svc_profile.domain.derived import Home, derived_name, home_claim
from svc_profile.domain.events import WITHHELD, Event, FragmentKey
from svc_profile.domain.flags import REBUILT, SHARED
from svc_profile.store.derived import DerivedStore
from svc_profile.usecases.admitting import refused


@dataclass(frozen=True)
class Diversion:
    """Events as they are to be learnt from."""

    events: Sequence[Event]
    dropped: Set[bytes] = frozenset()
    """Keys of events of which the names are learnt and nothing else."""
    counted: Set[bytes] = frozenset()
    """Of the dropped ones, those that may be counted without a person."""
    claims: Mapping[Pair, Claim] = field(default_factory=dict)
    """What ties derived fragments to where they belong."""

    @property
    def learnt(self) -> Sequence[Event]:
        """The events from which more than the names is learnt."""
        return [event for event in self.events if event.key not in self.dropped] if self.dropped else self.events

    @property
    def owners(self) -> dict[bytes, FragmentKey]:
        """By event key, the fragment that learns from an event where it is not the one of its strongest name."""
        return {
            event.key: event.owner.fragment
            for event in self.events
            if event.diverted is not None and event.key not in self.dropped
        }


async def divert(tx: Transaction, events: Sequence[Event], flags: Mapping[FragmentKey, int]) -> Diversion:
    """Decide about events that nobody may learn from, and those whose strongest names are flagged; the others pass."""
    held = _held(events, flags) if flags else []
    homes = await _homes(tx, held, flags) if held else {}
    later_users = {key: parent for key, (base, parent) in homes.items() if base != parent}
    refusals = await refused(tx, events, flags, later_users)
    dropped = refusals.keys()
    counted = frozenset(key for key, admission in refusals.items() if admission is Admission.ANONYMISE)
    if dropped:
        events = [replace(event, diverted=WITHHELD) if event.key in dropped else event for event in events]
        held = [event for event in held if event.key not in dropped]
        homes = {event.key: homes[event.key] for event in held}
    if not held:
        return Diversion(events, dropped, counted)
    generations = await _generations(tx, set(homes.values()), flags)
    diverted: dict[bytes, Event] = {}
    claims: dict[Pair, Claim] = {}
    for event in held:
        home = homes[event.key]
        if home in generations:
            base, parent = home
            name = derived_name(home, generations[home])
            diverted[event.key] = replace(event, diverted=name)
            namespace = event.names.seen[0].namespace if parent == base else USER_ID
            claims[name.fragment, parent] = home_claim(name, home, namespace)
    return Diversion([diverted.get(event.key, event) for event in events], dropped, counted, claims)


def _held(events: Sequence[Event], flags: Mapping[FragmentKey, int]) -> list[Event]:
    return [event for event in events if flags.get(event.names.seen[0].fragment, 0) & (SHARED | REBUILT)]


async def _homes(tx: Transaction, held: Sequence[Event], flags: Mapping[FragmentKey, int]) -> dict[bytes, Home]:
    """Find whose each event is: that of its strongest name, or of a later user of the device."""
    bases = {event.key: event.names.seen[0].fragment for event in held}
    visits = [(each.key, bases[each.key], each.time_us) for each in held if flags[bases[each.key]] & SHARED]
    later = await DerivedStore(tx).later_users(visits)
    return {key: (base, later.get(key, base)) for key, base in bases.items()}


async def _generations(tx: Transaction, homes: Set[Home], flags: Mapping[FragmentKey, int]) -> dict[Home, int]:
    """Return the generation of each derived fragment; a home that is an identifier's own fragment has none."""
    store = DerivedStore(tx)
    known = await store.generations({base for base, _ in homes})
    derived = {home for home in homes if home[0] != home[1] or flags[home[0]] & REBUILT}
    new = {home: 0 for home in derived if home not in known}
    await store.keep(new)
    return {home: generation for home, generation in (known | new).items() if home in derived}
