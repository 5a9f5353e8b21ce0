# SPDX-License-Identifier: Apache-2.0
"""Work out what customers consent to now, and let every service know what changed.

The ledger and the links are the truth; what is written here follows from them, and whoever changes either notes whose
state is due. So a state is worked out again after every change, in whatever order the changes committed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from chassis.database import Database, Transaction

from svc_profile.domain.consent import (
    ANALYTICS,
    RESTRICTION,
    Answers,
    Entry,
    Join,
    Timeline,
    fold,
    more_restrictive,
    timelines,
)
from svc_profile.domain.events import FragmentKey
from svc_profile.domain.flags import REFUSED, RESTRICTED
from svc_profile.domain.ledger import Record, entries_of
from svc_profile.domain.purposes import (
    Born,
    Consent,
    Purpose,
    Reason,
    State,
    born_of,
    expiry_us,
    is_restricted,
    judge_all,
)
from svc_profile.domain.traits import Trait
from svc_profile.store.consents import ConsentStore
from svc_profile.store.ledger import LedgerStore
from svc_profile.store.purposes import PurposeStore
from svc_profile.wire.consent import consents_changed

_AT_ONCE = 200


class RaceError(Exception):
    """A customer grew while its fragments were being locked."""


@dataclass(frozen=True)
class Situation:
    """Everything that is known of the consent of some customers."""

    customers: Mapping[FragmentKey, Sequence[FragmentKey]]
    purposes: Sequence[Purpose]
    joins: Sequence[Join]
    entries: Sequence[Entry]
    ages: Mapping[FragmentKey, Mapping[str, Trait]]

    @property
    def fragments(self) -> list[FragmentKey]:
        """All fragments of all customers."""
        return [fragment for members in self.customers.values() for fragment in members]

    def answers(self) -> dict[FragmentKey, Answers]:
        """Fold what each customer said."""
        of_fragment = fold(self.fragments, self.joins, self.entries).answers
        # What is one customer for a reason that is not among the joins is as one the most restrictive of all.
        return {
            profile: reduce(more_restrictive, {id(a): a for a in map(of_fragment.__getitem__, members)}.values())
            for profile, members in self.customers.items()
        }

    def born(self, profile: FragmentKey) -> Born | None:
        """Return what is known of a customer's age, from the latest value of each trait."""
        latest: dict[str, Trait] = {}
        for fragment in self.customers[profile]:
            for name, trait in self.ages.get(fragment, {}).items():
                if name not in latest or trait.is_later_than(latest[name]):
                    latest[name] = trait
        return born_of({name: (trait.value, trait.time_us) for name, trait in latest.items()})

    def consents(self, now_us: int) -> dict[FragmentKey, list[Consent]]:
        """Judge every purpose for every customer, as if nothing was restricted."""
        return {
            profile: judge_all(
                self.purposes, {k: e for k, e in answers.items() if k != RESTRICTION}, self.born(profile), now_us
            )
            for profile, answers in self.answers().items()
        }

    def timelines(self) -> dict[FragmentKey, Timeline]:
        """Say for each fragment when its events may be taken in."""
        analytics = next((each for each in self.purposes if each.purpose_id == ANALYTICS), None)
        return timelines(
            self.fragments,
            self.joins,
            self.entries,
            granted_by_default=analytics is None or analytics.granted_by_default,
            expires=(lambda time_us: expiry_us(analytics, time_us)) if analytics and analytics.expiry_months else None,
        )


async def read_situation(
    tx: Transaction, customers: Mapping[FragmentKey, Sequence[FragmentKey]], further: Iterable[Record] = ()
) -> Situation:
    """Read all that is known of the consent of some customers; `further` rows, not yet written, count as well."""
    store = ConsentStore(tx)
    fragments = [fragment for members in customers.values() for fragment in members]
    entries = entries_of([*await LedgerStore(tx).of_fragments(fragments), *further])
    return Situation(
        customers=customers,
        purposes=await PurposeStore(tx).all(),
        # Where nothing was said, it is of no matter who said it together.
        joins=await store.joins(fragments) if entries else [],
        entries=entries,
        ages=await store.ages(fragments),
    )


async def lock_customers(tx: Transaction, fragments: Collection[FragmentKey]) -> dict[FragmentKey, list[FragmentKey]]:
    """Lock all fragments of some customers, in key order; returns the customers."""
    store = ConsentStore(tx)
    while True:
        try:
            # Going back to the savepoint lets go of the locks, so that they can be taken in order again.
            async with tx.connection.begin_nested():
                customers = await store.customers(fragments)
                await store.lock(_members(customers))
                again = await store.customers(fragments)
                if not _members(again) <= _members(customers):
                    raise RaceError
                return again
        except RaceError:
            continue


async def settle(tx: Transaction, customers: Mapping[FragmentKey, Sequence[FragmentKey]], now_us: int) -> Situation:
    """Write what locked customers consent to now, and announce what changed."""
    situation = await read_situation(tx, customers)
    await _set_flags(tx, situation)
    await _project(tx, situation, now_us)
    return situation


async def _set_flags(tx: Transaction, situation: Situation) -> None:
    flags = {
        fragment: REFUSED * any(refused for _, refused in timeline.refused)
        | RESTRICTED * any(restricted for _, restricted in timeline.restricted)
        for fragment, timeline in situation.timelines().items()
    }
    await ConsentStore(tx).set_flags(flags, REFUSED | RESTRICTED)


async def _project(tx: Transaction, situation: Situation, now_us: int) -> None:
    store = ConsentStore(tx)
    answers, consents = situation.answers(), situation.consents(now_us)
    states = {
        profile: _state(consents[profile], restricted=is_restricted(answers[profile]))
        for profile in situation.customers
    }
    revision = await store.next_revision()
    of_fragment = {f: states[profile] for profile, members in situation.customers.items() for f in members}
    changed = await store.put_states(of_fragment, revision)
    for profile, members in situation.customers.items():
        for message in consents_changed(profile, sorted(changed.intersection(members)), states[profile], revision):
            tx.publish(message)
    await store.put_expiries(situation.fragments, _expiries(consents))


def _state(consents: Sequence[Consent], *, restricted: bool) -> State:
    decided = [consent for consent in consents if consent.reason is not Reason.DEFAULT]
    return State(
        granted=tuple(consent.purpose_id for consent in decided if consent.granted),
        refused=tuple(consent.purpose_id for consent in decided if not consent.granted),
        restricted=restricted,
    )


def _expiries(consents: Mapping[FragmentKey, Sequence[Consent]]) -> dict[tuple[FragmentKey, str], int]:
    return {
        (consent.entry.fragment, consent.purpose_id): consent.expires_us
        for of_customer in consents.values()
        for consent in of_customer
        if consent.granted and consent.entry is not None and consent.expires_us is not None
    }


def _members(customers: Mapping[FragmentKey, Sequence[FragmentKey]]) -> set[FragmentKey]:
    return {fragment for members in customers.values() for fragment in members}


async def settle_due(database: Database, now_us: int) -> bool:
    """Settle some customers whose state is due; tells whether there may be more."""
    async with database.transaction() as tx:
        fragments = await ConsentStore(tx).take_due(_AT_ONCE)
        if fragments:
            await settle(tx, await lock_customers(tx, fragments), now_us)
    return len(fragments) == _AT_ONCE
