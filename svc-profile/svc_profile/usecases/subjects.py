# SPDX-License-Identifier: Apache-2.0
"""Find out whom a request is about, when it begins."""

from collections.abc import Collection, Iterator, Sequence

from chassis.database import Transaction
from chassis.events import json_object
from chassis.identifiers import ANONYMOUS_ID, USER_ID
from chassis.identity import Identifier, IdentityKey
from dangol.events.v1 import events_pb2

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.data_requests import Subject
from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.suppressions import suppression_id
from svc_profile.store.events import EventStore
from svc_profile.store.subjects import names_of

_AT_ONCE = 1_000
_MOST_SPELLINGS = 1_000


async def find_subject(
    tx: Transaction, profile: FragmentKey, fragments: Sequence[FragmentKey], key: IdentityKey
) -> tuple[Subject, Sequence[Name]]:
    """Return what a customer is recognised by, every identifier as it is kept and as it was written; and their names.

    An identifier that is somebody else's too, such as a shared device or a family's phone, gives nobody away.
    """
    names = await names_of(tx, fragments)
    shared = [name.fragment for name, is_shared in names.items() if is_shared]
    own = [name for name, is_shared in names.items() if not is_shared and name.namespace != DERIVED]
    spellings = await _spellings(tx, fragments, {name.fragment for name in own}, key)
    traces = sorted({name.value for name in own} | spellings)
    return Subject(fragments, shared, traces, suppression_id(profile).hex()), own


async def _spellings(
    tx: Transaction, fragments: Sequence[FragmentKey], own: Collection[FragmentKey], key: IdentityKey
) -> set[str]:
    found: set[tuple[str, str]] = set()
    before: tuple[int, bytes] | None = None
    while len(found) < _MOST_SPELLINGS:
        page = await EventStore(tx).of_fragments(fragments, before=before, most=_AT_ONCE)
        found |= {text for each in page if each.message for text in _written(each.message, key)}
        if len(page) < _AT_ONCE:
            break
        before = (page[-1].time_us, page[-1].event_key)
    return {text for namespace, text in found if _fragment(namespace, text, key) in own}


def _written(event: events_pb2.Event, key: IdentityKey) -> Iterator[tuple[str, str]]:
    """Return the identifiers that an event carries, as they were written."""
    yield USER_ID, event.user_id
    yield ANONYMOUS_ID, event.anonymous_id
    yield ANONYMOUS_ID, event.previous_id
    if event.traits:
        traits = json_object(event.traits)
        for trait, namespace in key.types.traits.items():
            if isinstance(traits.get(trait), (str, int)):
                yield namespace, str(traits[trait])


def _fragment(namespace: str, text: str, key: IdentityKey) -> FragmentKey | None:
    value = key.types.normalise(namespace, text) if text else None
    return None if value is None else key.fragment_id(Identifier(namespace, value)).bytes
