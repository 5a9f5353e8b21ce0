# SPDX-License-Identifier: Apache-2.0
"""Everything that is known of the consent of some customers, and what follows from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from chassis.database import Transaction

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
from svc_profile.domain.ledger import Record, entries_of
from svc_profile.domain.purposes import Born, Consent, Purpose, born_of, expiry_us, judge_all
from svc_profile.domain.traits import Trait
from svc_profile.store.consents import ConsentStore
from svc_profile.store.ledger import LedgerStore
from svc_profile.store.purposes import PurposeStore


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

    def closing_times(self) -> dict[FragmentKey, int]:
        """Say from when on events of fragments may be refused; only of those of which any may."""
        found = {fragment: timeline.closes_after() for fragment, timeline in self.timelines().items()}
        return {fragment: time_us for fragment, time_us in found.items() if time_us is not None}

    def timelines(self) -> dict[FragmentKey, Timeline]:
        """Say for each fragment when its events may be taken in."""
        analytics = next((each for each in self.purposes if each.purpose_id == ANALYTICS), None)
        return timelines(
            self.fragments,
            self.joins,
            self.entries,
            granted_by_default=analytics is None or analytics.granted_by_default,
            default_since_us=analytics.default_since_us if analytics else 0,
            expires=(lambda time_us: expiry_us(analytics, time_us)) if analytics and analytics.expiry_months else None,
        )


async def read_situation(
    tx: Transaction,
    customers: Mapping[FragmentKey, Sequence[FragmentKey]],
    further: Iterable[Record] = (),
    *,
    ages: Mapping[FragmentKey, Mapping[str, Trait]] | None = None,
) -> Situation:
    """Read all that is known of the consent of some customers.

    `further` rows, not yet written, count as well; `ages` are the traits that tell ages, when they are at hand.
    """
    store = ConsentStore(tx)
    fragments = [fragment for members in customers.values() for fragment in members]
    entries = entries_of([*await LedgerStore(tx).of_fragments(fragments), *further])
    return Situation(
        customers=customers,
        purposes=await PurposeStore(tx).all(),
        # Where nothing was said, it is of no matter who said it together.
        joins=await store.joins(fragments) if entries else [],
        entries=entries,
        ages=await store.ages(fragments) if ages is None else ages,
    )
