# SPDX-License-Identifier: Apache-2.0
"""Read what was stated about customers' traits, out of the events that are kept."""

from collections.abc import AsyncIterator, Collection

from chassis.database import Transaction

from svc_profile.domain.derivation import Statement, TraitChange, history
from svc_profile.domain.events import FragmentKey
from svc_profile.store.events import EventStore, StoredEvent
from svc_profile.store.trait_schema import TraitSchemaStore
from svc_profile.wire.traits import traits_of

_IDENTIFY = "identify"
_PAGE = 5_000
MOST_STATEMENTS = 20_000
"""Statements, the newest, that the history of one customer's traits is worked out from."""


async def statements(tx: Transaction, fragments: Collection[FragmentKey]) -> AsyncIterator[list[Statement]]:
    """Yield what was stated under some fragments, newest first, in pages."""
    before: tuple[int, bytes] | None = None
    while True:
        page = await EventStore(tx).of_fragments(fragments, names=[_IDENTIFY], before=before, most=_PAGE)
        yield [statement for event in page if (statement := _statement(event)) is not None]
        if len(page) < _PAGE:
            return
        before = page[-1].time_us, page[-1].event_key


async def trait_history(tx: Transaction, fragments: Collection[FragmentKey], trait: str = "") -> list[TraitChange]:
    """Return how a customer's traits came to their values, newest change first; of one trait when it is named."""
    schema = await TraitSchemaStore(tx).current()
    found: list[Statement] = []
    async for page in statements(tx, fragments):
        found += page if not trait else [each for each in page if trait in each.traits]
        if len(found) >= MOST_STATEMENTS:
            break
    return history(found[:MOST_STATEMENTS], schema, trait)


def _statement(event: StoredEvent) -> Statement | None:
    if event.message is None or event.fragment is None:
        return None
    traits = traits_of(event.message)
    if not traits:
        return None
    message = event.message
    return Statement(event.fragment, event.time_us, event.event_key, message.source, message.message_id, traits)
