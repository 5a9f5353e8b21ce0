# SPDX-License-Identifier: Apache-2.0
"""Work out what customers consent to now, and let every service know what changed.

The ledger and the links are the truth; what is written here follows from them, and whoever changes either notes whose
state is due. So a state is worked out again after every change, in whatever order the changes committed.
"""

from collections.abc import Collection, Mapping, Sequence

from chassis.database import Transaction

from svc_profile.domain.events import FragmentKey, Namer
from svc_profile.domain.flags import REFUSED, RESTRICTED
from svc_profile.domain.purposes import Consent, Reason, State, is_restricted
from svc_profile.store.consents import ConsentStore
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.usecases.learning import Learner
from svc_profile.usecases.rebuilding import rebuild
from svc_profile.usecases.situations import Situation, read_situation
from svc_profile.wire.consent import consents_changed

_AT_ONCE = 200


class RaceError(Exception):
    """A customer grew while its fragments were being locked."""


async def lock_customers(tx: Transaction, fragments: Collection[FragmentKey]) -> dict[FragmentKey, list[FragmentKey]]:
    """Lock all fragments of some customers, and those that hold events of theirs, in key order; returns the customers.

    Whoever is going to derive fragments again holds the definitions of traits before.
    """
    store = ConsentStore(tx)
    while True:
        try:
            # Going back to the savepoint lets go of the locks, so that they can be taken in order again.
            async with tx.connection.begin_nested():
                customers = await store.customers(fragments)
                members = _members(customers)
                await store.lock(members | await store.bases(members))
                again = await store.customers(fragments)
                if not _members(again) <= _members(customers):
                    raise RaceError
                return again
        except RaceError:
            continue


async def settle(tx: Transaction, customers: Mapping[FragmentKey, Sequence[FragmentKey]], now_us: int) -> Situation:
    """Write what locked customers consent to now, and announce what changed.

    What was taken in of somebody who had refused by then is taken back soon after.
    """
    situation = await _settle(tx, customers, now_us)
    closed = situation.closing_times()
    await ConsentStore(tx).note_due(
        [profile for profile, members in customers.items() if not closed.keys().isdisjoint(members)]
    )
    return situation


async def _settle(tx: Transaction, customers: Mapping[FragmentKey, Sequence[FragmentKey]], now_us: int) -> Situation:
    situation = await read_situation(tx, customers)
    flags = {
        fragment: REFUSED * any(refused for _, refused in timeline.refused)
        | RESTRICTED * any(restricted for _, restricted in timeline.restricted)
        for fragment, timeline in situation.timelines().items()
    }
    await ConsentStore(tx).set_flags(flags, REFUSED | RESTRICTED)
    await _project(tx, situation, now_us)
    return situation


async def _take_back(tx: Transaction, situation: Situation, learner: Learner) -> None:
    """Derive again, without them, what holds events that were received when they were refused already."""
    closed, store = situation.closing_times(), ConsentStore(tx)
    if not closed:
        return
    bases = {*closed, *await store.bases(situation.fragments)}
    since_us = await store.earliest_received({*situation.fragments, *bases}, min(closed.values()))
    if since_us is not None:
        await rebuild(tx, learner, await store.flags(bases), since_us)


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


async def settle_due(
    tx: Transaction, namer: Namer, now_us: int, anonymous_properties: Collection[str] | None = None
) -> bool:
    """Settle some customers whose state is due, and take back what came too late; tells whether there may be more."""
    fragments = await ConsentStore(tx).take_due(_AT_ONCE)
    if fragments:
        learner = Learner(namer, await TraitSchemaStore(tx).hold(), anonymous_properties)
        situation = await _settle(tx, await lock_customers(tx, fragments), now_us)
        await _take_back(tx, situation, learner)
    return len(fragments) == _AT_ONCE
