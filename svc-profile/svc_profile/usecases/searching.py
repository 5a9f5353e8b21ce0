# SPDX-License-Identifier: Apache-2.0
"""Find customers by what staff remembers of them."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from chassis.database import Transaction
from chassis.errors import Invalid
from chassis.identity import Identifier, IdentityKey

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.profiles import Profile
from svc_profile.domain.search import Match, Query
from svc_profile.store.search import SearchStore
from svc_profile.usecases.profiles import get_profiles

CANDIDATES = 5_000
"""A query that more values hold is answered from so many of them, apart from those that begin with it."""


@dataclass(frozen=True)
class Hit:
    """A customer who was found, by what, and who it is."""

    match: Match
    profile: Profile


async def search(
    tx: Transaction, query: Query, named: Collection[FragmentKey], *, after: tuple[int, int, bytes] | None, most: int
) -> list[Hit]:
    """Return customers who fit, best first: the value asked for, then those that begin with it, then the others."""
    matches = await SearchStore(tx).matches(query, named, after=after, candidates=CANDIDATES, most=most)
    profiles = await get_profiles(tx, [match.profile for match in matches])
    return [Hit(match, profiles[match.profile]) for match in matches if match.profile in profiles]


def named_by(query: Query, key: IdentityKey) -> list[FragmentKey]:
    """Return the fragments that a query may name outright: as a reference, or as an identifier of any kind."""
    asked = [Identifier(namespace, value) for namespace in key.types.rank if (value := _spelt(key, namespace, query))]
    named = [key.fragment_id(identifier).bytes for identifier in asked]
    with suppress(Invalid):
        named.append(key.resolve(query.raw).bytes)
    return named


def _spelt(key: IdentityKey, namespace: str, query: Query) -> str | None:
    return key.types.normalise(namespace, query.raw)
