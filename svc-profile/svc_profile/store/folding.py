# SPDX-License-Identifier: Apache-2.0
"""Fold a batch into fragments, under row locks: times and counts where they lie, the rest read, merged and written."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from asyncpg import DeadlockDetectedError
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from sqlalchemy.exc import DBAPIError

from svc_profile.domain.claims import DERIVED
from svc_profile.domain.events import FragmentKey, Name
from svc_profile.domain.flags import SUPPRESSED
from svc_profile.domain.fragments import Fragment
from svc_profile.domain.traits import NO_POLICIES, Policies
from svc_profile.store.counting import SEEN, count_up, seen
from svc_profile.store.fragments import read_revenue, read_traits
from svc_profile.store.packed import Packed
from svc_profile.store.sealed import TRAITS, revealed, seal_identifier
from svc_profile.store.suppressions import SuppressionStore

# Locks are taken in one order: first of known fragments, by adding them up, then, by inserting, of new ones. Whoever
# waits in the second step holds nothing that somebody else's first step could be waited for by, so nobody waits in a
# circle. What another transaction made in the meantime would be locked out of order, so here nobody waits.
# Derived fragments come last, in the hand of whoever has what they are derived from: he may derive them again.
_FLAGS = "SELECT fragment_id, flags FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))"
_LOCK_AT_ONCE = f"{_FLAGS} ORDER BY fragment_id FOR NO KEY UPDATE SKIP LOCKED"

_READ = """
SELECT fragment_id, CAST(ctid AS text) AS place, CAST(counts AS text) AS counts, CAST(traits AS text) AS traits,
    CAST(revenue AS text) AS revenue, CAST(groups AS text) AS groups
FROM fragments WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))
"""

_NEW = Packed(
    "fragments",
    **SEEN,
    namespace="text",
    value="text",
    counts="text",
    traits="text",
    revenue="text",
    groups="text",
)
_INSERT = f"""
INSERT INTO fragments (
    fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    counts, traits, revenue, groups
)
SELECT fragment_id, namespace, value, first_seen_us, last_seen_us, first_event_us, last_event_us,
    CAST(counts AS jsonb), CAST(traits AS jsonb), CAST(revenue AS jsonb), CAST(groups AS jsonb)
FROM {_NEW.sql} AS g
ORDER BY fragment_id ON CONFLICT DO NOTHING RETURNING fragment_id
"""  # noqa: S608  no data in it

# Rows that are locked are nowhere else than where they were found, so no index has to be asked for them.
_MERGED = Packed(
    "fragments", fragment_id="uuid", place="text", counts="text?", traits="text?", revenue="text?", groups="text?"
)
_WRITE = f"""
UPDATE fragments AS f SET
    counts = coalesce(CAST(g.counts AS jsonb), f.counts),
    traits = coalesce(CAST(g.traits AS jsonb), f.traits),
    revenue = coalesce(CAST(g.revenue AS jsonb), f.revenue),
    groups = coalesce(CAST(g.groups AS jsonb), f.groups)
FROM {_MERGED.sql} AS g
WHERE f.ctid = CAST(g.place AS tid) AND f.fragment_id = g.fragment_id
"""  # noqa: S608  no data in it

NO_FLAGS: Mapping[FragmentKey, int] = MappingProxyType({})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
_decode_counts = msgspec.json.Decoder(dict[str, int]).decode


@dataclass(frozen=True)
class Folded:
    """What a fold changed that matters to identity."""

    new: Mapping[FragmentKey, Fragment]
    """Fragments that did not exist before."""
    earlier: Set[FragmentKey]
    """Fragments that existed and turned out to be older than known."""


class RaceError(Exception):
    """Another transaction made one of the fragments in the meantime, and somebody works on it now."""


class FlaggedError(Exception):
    """Some fragments have flags that the fold was not prepared for; nothing was folded."""

    def __init__(self, flags: Mapping[FragmentKey, int]) -> None:
        super().__init__(f"{len(flags)} fragments are flagged")
        self.flags = flags


class FoldStore:
    """Adds what events teach to what was learnt under each identifier."""

    def __init__(self, tx: Transaction, policies: Policies = NO_POLICIES) -> None:
        self._tx = tx
        self._policies = policies

    async def fold(self, learnt: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int] = NO_FLAGS) -> Folded:
        """Add what a batch of events taught to what is known.

        Raises `FlaggedError` when a fragment has other flags than those that the fold was prepared for.
        """
        may_wait_in_circle = True
        while learnt:
            try:
                # Going back to the savepoint lets go of the locks, so that they can be taken in order again.
                async with self._tx.connection.begin_nested():
                    return await self._fold(learnt, flags)
            except RaceError:
                continue
            except DBAPIError as error:
                # Just before an insert, somebody may make the same fragment, come back for it, and want one of ours.
                if not may_wait_in_circle or getattr(error.orig, "sqlstate", None) != DeadlockDetectedError.sqlstate:
                    raise
                may_wait_in_circle = False
        return Folded({}, frozenset())

    async def _fold(self, learnt: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int]) -> Folded:
        counted = await count_up(self._tx, _in_lock_order(learnt), flags)
        earlier, crowded = counted.earlier, counted.crowded
        missing = learnt.keys() - counted.found
        others = await self._make([learnt[key] for key in missing], flags) if missing else set()
        if others:
            counted = await count_up(self._tx, [learnt[key] for key in others], flags)
            earlier, crowded = earlier | counted.earlier, crowded | counted.crowded
        new = {key: learnt[key] for key in missing - others}
        # Last of all: until the race is won, what is learnt must still be whole.
        rich = {key: each for key, each in learnt.items() if key not in new and (_is_rich(each) or key in crowded)}
        if rich:
            await self._enrich(rich, crowded)
        return Folded(new, earlier)

    async def _make(self, fragments: Sequence[Fragment], flags: Mapping[FragmentKey, int]) -> set[FragmentKey]:
        """Make fragments that were not found; returns those that another transaction made meanwhile, locked.

        Raises `FlaggedError` when some were there and had other flags, or when some were erased; `RaceError`.
        """
        found = await self._lock([fragment.name.fragment for fragment in fragments], flags)
        new = {each.name.fragment: each for each in fragments if each.name.fragment not in found}
        if suppressed := await self._suppressed(new, flags):
            raise FlaggedError(suppressed)
        raced = await self._insert(list(new.values()))
        return found | await self._lock(raced, flags) if raced else found

    async def _lock(self, fragments: Collection[FragmentKey], flags: Mapping[FragmentKey, int]) -> set[FragmentKey]:
        """Lock those of some fragments that exist by now, without waiting."""
        # Asked first without a lock: an insert would wait for whoever changes what cannot be locked.
        found = await self._flags(_FLAGS, fragments)
        locked = await self._flags(_LOCK_AT_ONCE, found) if found else {}
        if surprising := {key: flag for key, flag in (found | locked).items() if flag != flags.get(key, 0)}:
            raise FlaggedError(surprising)
        if len(locked) < len(found):
            raise RaceError
        return set(locked)

    async def _flags(self, statement: str, fragments: Collection[FragmentKey]) -> dict[FragmentKey, int]:
        rows: Sequence[Any] = await self._tx.rows(statement, fragments=[UUID(key) for key in fragments])
        return {row[0].bytes: row[1] for row in rows}

    async def _suppressed(
        self, new: Mapping[FragmentKey, Fragment], flags: Mapping[FragmentKey, int]
    ) -> dict[FragmentKey, int]:
        """Only what is new can be an erased customer's, because nothing of one is left."""
        suppressed = await SuppressionStore(self._tx).suppressed(new)
        return {key: SUPPRESSED for key in suppressed if not flags.get(key, 0) & SUPPRESSED}

    async def _insert(self, fragments: Sequence[Fragment]) -> set[FragmentKey]:
        """Make fragments; returns those that another transaction made in the meantime."""
        if not fragments:
            return set()
        inserted = await self._tx.rows(
            _INSERT,
            **_NEW.parameters(
                **seen(fragments),
                namespace=[fragment.name.namespace.encode() for fragment in fragments],
                value=[_sealed_value(self._tx, fragment.name).encode() for fragment in fragments],
                counts=[_encode(fragment.counts) for fragment in fragments],
                **self._rest(fragments, b"{}", b"[]"),
            ),
        )
        if len(inserted) == len(fragments):
            return set()
        return {fragment.name.fragment for fragment in fragments} - {row[0].bytes for row in inserted}

    async def _enrich(self, fragments: Mapping[FragmentKey, Fragment], crowded: Set[FragmentKey]) -> None:
        """Read locked rows, add what cannot be added up where it lies, and write them: few events teach such."""
        rows = await self._tx.rows(_READ, fragments=[UUID(key) for key in fragments])
        for row in await revealed(self._tx, rows, {}, {"traits": "fragment_id"}):
            fragment = fragments[row.fragment_id.bytes]
            if row.fragment_id.bytes in crowded:
                fragment.take_counts(_decode_counts(row.counts))
            fragment.take_traits(read_traits(row.traits), self._policies)
            fragment.take_revenue(read_revenue(row.revenue))
            fragment.take_groups(_decode(row.groups))
        keys = [row.fragment_id.bytes for row in rows]
        read = [fragments[key] for key in keys]
        written = _MERGED.parameters(
            fragment_id=keys,
            place=[row.place.encode() for row in rows],
            counts=[_encode(fragments[key].counts) if key in crowded else None for key in keys],
            **self._rest(read, None, None),
        )
        await self._tx.execute(_WRITE, **written)

    def _rest(
        self, fragments: Sequence[Fragment], no_values: bytes | None, no_names: bytes | None
    ) -> dict[str, list[bytes | None]]:
        """Spread what few fragments have over columns; an empty part is null where that leaves the stored one alone."""
        seal = self._tx.sealer.seal_values
        return {
            "traits": [
                seal(TRAITS, each.name.fragment, _encode(each.traits).decode()).encode() if each.traits else no_values
                for each in fragments
            ],
            "revenue": [_encode(each.revenue) if each.revenue else no_values for each in fragments],
            "groups": [_encode(sorted(each.groups)) if each.groups else no_names for each in fragments],
        }


def _in_lock_order(fragments: Mapping[FragmentKey, Fragment]) -> list[Fragment]:
    ordered = [fragments[key] for key in sorted(fragments)]
    # Two sorts by one value each, the second of which keeps what is equal in order, cost less than one by two values.
    return sorted(ordered, key=lambda fragment: fragment.name.namespace == DERIVED)


def _is_rich(fragment: Fragment) -> bool:
    return bool(fragment.traits or fragment.revenue or fragment.groups)


def _sealed_value(tx: Transaction, name: Name) -> str:
    return seal_identifier(tx, name.fragment, name.namespace, name.value)
