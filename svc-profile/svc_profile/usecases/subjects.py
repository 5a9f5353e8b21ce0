# SPDX-License-Identifier: Apache-2.0
"""Find out whom a request is about, when it begins."""

from collections.abc import Iterator, Mapping, Sequence

from chassis.database import Transaction
from chassis.events import json_object
from dangol.events.v1 import events_pb2

from svc_profile.domain.data_requests import Subject
from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.flags import SHARED
from svc_profile.domain.suppressions import suppression_id
from svc_profile.store.events import EventStore
from svc_profile.store.subjects import names_of

_AT_ONCE = 1_000
_MOST_SPELLINGS = 1_000


async def find_subject(
    tx: Transaction, profile: FragmentKey, fragments: Sequence[FragmentKey], identifier_traits: Mapping[str, str]
) -> tuple[Subject, Sequence[Name]]:
    """Return what a customer is recognised by, every identifier as it is kept and as it was written; and their names.

    The id of a device that other people log in on too is theirs as well, so nobody is recognised by it.
    """
    names = await names_of(tx, fragments)
    shared = [name for name, flags in names.items() if flags & SHARED]
    spellings = await _spellings(tx, fragments, identifier_traits)
    traces = sorted(({name.value for name in names} | spellings) - {name.value for name in shared})
    subject = Subject(fragments, [name.fragment for name in shared], traces, suppression_id(profile).hex())
    return subject, [name for name in names if name not in shared]


async def _spellings(
    tx: Transaction, fragments: Sequence[FragmentKey], identifier_traits: Mapping[str, str]
) -> set[str]:
    found: set[str] = set()
    before: tuple[int, bytes] | None = None
    while len(found) < _MOST_SPELLINGS:
        page = await EventStore(tx).of_fragments(fragments, before=before, most=_AT_ONCE)
        found |= {text for each in page if each.message for text in _written(each.message, identifier_traits)}
        if len(page) < _AT_ONCE:
            break
        before = (page[-1].time_us, page[-1].event_key)
    return found - {""}


def _written(event: events_pb2.Event, identifier_traits: Mapping[str, str]) -> Iterator[str]:
    yield from (event.user_id, event.anonymous_id, event.previous_id)
    if event.traits:
        traits = json_object(event.traits)
        yield from (str(traits[name]) for name in identifier_traits if isinstance(traits.get(name), (str, int)))
