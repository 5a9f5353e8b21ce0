# SPDX-License-Identifier: Apache-2.0
"""Tell what happened with a customer: a page of each kind, put into one."""

from collections.abc import Awaitable, Callable, Sequence

from chassis.database import Transaction
from chassis.errors import Invalid

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.interactions import Choice
from svc_profile.domain.timeline import EntryKind, TimelineEntry, Wanted, arrange
from svc_profile.store.events import EventStore
from svc_profile.store.heard import HeardStore
from svc_profile.store.identity_history import IdentityHistoryStore
from svc_profile.store.interactions import InteractionStore
from svc_profile.store.ledger import LedgerStore
from svc_profile.usecases.profiles import get_members
from svc_profile.wire.recent import read_recent

Before = tuple[int, str] | None
"""Time and id of an entry of one kind; the entries that follow it are wanted."""

Read = Callable[[Transaction, Sequence[FragmentKey], Before, int], Awaitable[Sequence[TimelineEntry]]]

_NOTHING = bytes(16)


async def list_timeline(tx: Transaction, fragment: FragmentKey, wanted: Wanted, most: int) -> list[TimelineEntry]:
    """Return up to `most` entries of the customer whom a fragment belongs to, newest first."""
    members = await get_members(tx, fragment)
    entries: list[TimelineEntry] = []
    # One statement for each kind: their number is fixed, whatever the page holds.
    for kind, read in _READ.items():
        if wanted.has(kind):
            entries += await read(tx, members.fragments, wanted.begin_of(kind), most)
    return arrange(entries, wanted, most)


async def _events(tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int) -> list[TimelineEntry]:
    position = None if before is None else (before[0], _hex(before[1], 1)[0])
    return [
        TimelineEntry(stored.time_us, EntryKind.EVENT, stored.event_key.hex(), read_recent(stored.name, stored.message))
        for stored in await EventStore(tx).of_fragments(fragments, before=position, most=most)
        if stored.message is not None
    ]


async def _interactions(
    tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int
) -> list[TimelineEntry]:
    found = await InteractionStore(tx).page(Choice(fragments=fragments, before=before), most)
    return [
        TimelineEntry(
            kept.interaction.interaction_time_us, EntryKind.INTERACTION, kept.interaction.interaction_id, kept
        )
        for kept in found
    ]


async def _feedback(
    tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int
) -> list[TimelineEntry]:
    found = await HeardStore(tx).feedback(fragments, before=before, most=most)
    return [TimelineEntry(each.feedback_time_us, EntryKind.FEEDBACK, each.feedback_id, each) for each in found]


async def _consents(
    tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int
) -> list[TimelineEntry]:
    """Return what the customer said about purposes: a few rows, so all of them are read."""
    entries = [
        TimelineEntry(record.time_us, EntryKind.CONSENT, str(record.sequence), record)
        for record in await LedgerStore(tx).of_fragments(fragments)
    ]
    position = None if before is None else (before[0], _number(before[1]))
    places = ((entry.time_us, int(entry.entry_id), entry) for entry in entries)
    after = [place for place in places if position is None or place[:2] < position]
    return [entry for _, _, entry in sorted(after, key=lambda place: place[:2], reverse=True)[:most]]


async def _links(tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int) -> list[TimelineEntry]:
    position = None
    if before is not None:
        child, parent = _hex(before[1], 2)
        position = before[0], child, parent
    found = await IdentityHistoryStore(tx).links(fragments, before=position, most=most)
    return [
        TimelineEntry(link.claim_time_us, EntryKind.LINK, f"{link.child.hex()}{link.parent.hex()}", link)
        for link in found
    ]


async def _decisions(
    tx: Transaction, fragments: Sequence[FragmentKey], before: Before, most: int
) -> list[TimelineEntry]:
    position = None if before is None else (before[0], *_decision(before[1]))
    found = await IdentityHistoryStore(tx).decisions(fragments, before=position, most=most)
    return [
        TimelineEntry(made.time_us, EntryKind.DECISION, f"{made.decision_id}-{int(made.revoked)}", made)
        for made in found
    ]


def _hex(text: str, parts: int) -> list[bytes]:
    """Read ids of 16 bytes; nothing is what stands after all of them."""
    if not text:
        return [_NOTHING] * parts
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 16 * parts:
        raise _bad_token()
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def _number(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 18:
        raise _bad_token()
    return int(text)


def _decision(text: str) -> tuple[int, bool]:
    if not text:
        return 0, False
    number, dash, revoked = text.partition("-")
    if not dash or revoked not in ("0", "1"):
        raise _bad_token()
    return _number(number), revoked == "1"


def _bad_token() -> Invalid:
    return Invalid.field("page_token", "must be the next_page_token of an earlier answer")


_READ: dict[EntryKind, Read] = {
    EntryKind.EVENT: _events,
    EntryKind.INTERACTION: _interactions,
    EntryKind.FEEDBACK: _feedback,
    EntryKind.CONSENT: _consents,
    EntryKind.LINK: _links,
    EntryKind.DECISION: _decisions,
}
