# SPDX-License-Identifier: Apache-2.0
"""Keep the index of customers up to date, shortly after what they can be found by changed.

Collecting only notes which fragments changed, in a table of its own; the entries are made from the fragments as they
are when their turn comes, so any order and any repetition ends in the same entries.
"""

from collections.abc import Collection, Sequence

from chassis.database import Transaction
from chassis.events import ORDER_COMPLETED, json_object, order_amount

from svc_profile.domain.events import Event, FragmentKey
from svc_profile.domain.search import NAME_TRAITS, ORDER_ID, UNINDEXED, Entry, entries_of, entry
from svc_profile.store.events import EventStore, StoredEvent
from svc_profile.store.folding import Folded
from svc_profile.store.search import Filling, SearchStore, Waiting

INDEX_VERSION = 1
"""Another number makes every process that finds it fill the index anew, beside its other work."""


async def note_changes(tx: Transaction, events: Sequence[Event], folded: Folded) -> None:
    """Note the fragments that can be found by something new: they are new, or their names or orders are."""
    changed = {key for key, fragment in folded.new.items() if fragment.name.namespace not in UNINDEXED}
    changed |= {event.owner.fragment for event in events if event.traits and not NAME_TRAITS.isdisjoint(event.traits)}
    waiting: list[Waiting] = [(fragment, None) for fragment in changed]
    waiting += [(e.owner.fragment, e.key) for e in events if e.amount and e.counted_name == ORDER_COMPLETED]
    await SearchStore(tx).queue(waiting)


async def reindex(tx: Transaction, fragments: Collection[FragmentKey]) -> None:
    """Make all entries of some fragments anew: after events moved between them, or some of their events went."""
    store = SearchStore(tx)
    await store.forget(fragments)
    await store.queue([(fragment, None) for fragment in fragments])
    await store.queue(await store.orders_of(ORDER_COMPLETED, fragments))


async def index_some(tx: Transaction, most: int) -> bool:
    """Make the entries of some waiting fragments; tells whether more may wait. One process at a time does."""
    store = SearchStore(tx)
    if not await store.try_lock():
        return False
    waiting = await store.take(most)
    fragments = {fragment for fragment, event in waiting if event is None}
    if fragments:
        await store.replace(fragments, await _entries(store, fragments))
    orders = {event for _, event in waiting if event is not None}
    if orders:
        await store.add(await _order_entries(tx, orders))
    return len(waiting) == most or await _fill_some(store, most)


async def _entries(store: SearchStore, fragments: Collection[FragmentKey]) -> list[Entry]:
    return [
        each
        for source in await store.sources(fragments)
        for each in entries_of(source.fragment, source.namespace, source.value, source.traits)
    ]


async def _order_entries(tx: Transaction, keys: Collection[bytes]) -> list[Entry]:
    events = EventStore(tx)
    owners = {event.fragment for event in await events.find(keys) if event.fragment is not None}
    held = {source.fragment for source in await SearchStore(tx).sources(owners)}
    # Read once more: what was erased before the lock was had is gone.
    found = (_order_entry(event) for event in await events.find(keys) if event.fragment in held)
    return [each for each in found if each is not None]


def _order_entry(event: StoredEvent) -> Entry | None:
    if event.message is None or event.fragment is None:
        return None
    amount = order_amount(event.name, json_object(event.message.properties))
    return entry(event.fragment, ORDER_ID, amount.order_id) if amount and amount.order_id else None


async def _fill_some(store: SearchStore, most: int) -> bool:
    """Queue what an index of an older version has not seen, some at a time; tells whether more is to be queued."""
    filling = await store.filling()
    if filling.version == INDEX_VERSION:
        return False
    fragments = await store.next_fragments(filling.after_fragment, most)
    orders = [] if fragments else await store.next_orders(ORDER_COMPLETED, filling.after_event, most)
    await store.queue([*fragments, *orders])
    if fragments:
        await store.save_filling(Filling(filling.version, fragments[-1][0], None))
    elif orders:
        await store.save_filling(Filling(filling.version, filling.after_fragment, orders[-1][1]))
    else:
        await store.save_filling(Filling(INDEX_VERSION, None, None))
    return True


async def seal_index(tx: Transaction) -> None:
    """Have the index made anew when what it holds must not be read any more."""
    await SearchStore(tx).seal()
