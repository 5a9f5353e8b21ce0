# SPDX-License-Identifier: Apache-2.0
"""What customers are found by: values with the pieces that an index finds them by, and fragments that wait for it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import opened_texts

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.fragments import storable_text
from svc_profile.domain.search import BREAK, Entry, Match, Query, grams_within, matches_after, rank_of, word_grams
from svc_profile.store.sealed import ENTRY, FOUND, IDENTIFIER, revealed_fragments

# Two halves of one 64-bit key; 8 is identity and what follows from it.
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(8, 2)"

_QUEUE = """
INSERT INTO search_queue (fragment_id, event_key)
SELECT * FROM unnest(CAST(:fragments AS uuid[]), CAST(:events AS uuid[]))
"""

_TAKE = """
DELETE FROM search_queue WHERE queue_id IN (
    SELECT queue_id FROM search_queue ORDER BY queue_id LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING fragment_id, event_key
"""

# Who erases a customer removes the fragments first: it waits for this lock, and then removes the entries as well.
_SOURCES = """
SELECT fragment_id, namespace, value, CAST(traits AS text) AS traits FROM fragments
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) ORDER BY fragment_id FOR KEY SHARE
"""

_DELETE_STALE = """
DELETE FROM search_entries e
WHERE e.fragment_id = ANY (CAST(:fragments AS uuid[])) AND e.kind <> 'order_id' AND NOT EXISTS (
    SELECT FROM unnest(CAST(:entry_fragments AS uuid[]), CAST(:kinds AS text[]), CAST(:texts AS text[]))
        AS g (fragment_id, kind, text)
    WHERE g.fragment_id = e.fragment_id AND g.kind = e.kind AND g.text = e.text
)
"""

# PostgreSQL has no array of arrays of different lengths, so the pieces of an entry come as the text of an array.
_PUT = """
INSERT INTO search_entries (fragment_id, kind, text, value, grams)
SELECT fragment_id, kind, text, value, CAST(grams AS integer[])
FROM unnest(
    CAST(:fragments AS uuid[]), CAST(:kinds AS text[]), CAST(:texts AS text[]), CAST(:values AS text[]),
    CAST(:grams AS text[])
) AS g (fragment_id, kind, text, value, grams)
ON CONFLICT DO NOTHING
"""

# Each branch stops at a number of candidates, so that a query that half of all values hold ends. Values that begin
# with the query are candidates of their own: they are found however many others hold it too.
_MATCHES = """
WITH candidates AS (
    (SELECT * FROM search_entries WHERE grams @> CAST(:begin_grams AS integer[])
        AND strpos(text, :break || :whole) > 0 LIMIT :candidates)
    UNION ALL
    (SELECT * FROM search_entries WHERE grams @> CAST(:word_grams AS integer[])
        AND NOT EXISTS (SELECT FROM unnest(CAST(:words AS text[])) AS w WHERE strpos(text, w) = 0) LIMIT :candidates)
    UNION ALL
    (SELECT * FROM search_entries WHERE grams @> CAST(:digit_begin_grams AS integer[]) AND kind = 'phone'
        AND strpos(text, :break || :digits) > 0 LIMIT :candidates)
    UNION ALL
    (SELECT * FROM search_entries WHERE grams @> CAST(:digit_grams AS integer[]) AND kind = 'phone'
        AND strpos(text, :digits) > 0 LIMIT :candidates)
), ranked AS (
    SELECT fragment_id, kind, value,
        CASE WHEN strpos(text, :break || :whole || :break) > 0
                OR (kind = 'phone' AND :digits <> '' AND strpos(text, :break || :digits || :break) > 0) THEN 1
            WHEN strpos(text, :break || :whole) > 0
                OR (kind = 'phone' AND :digits <> '' AND strpos(text, :break || :digits) > 0) THEN 2
            ELSE 3 END AS rank
    FROM candidates
    UNION ALL
    SELECT fragment_id, namespace, value, 1 FROM fragments WHERE fragment_id = ANY (CAST(:named AS uuid[]))
), best AS (
    SELECT DISTINCT ON (profile_id) coalesce(m.profile_id, r.fragment_id) AS profile_id, r.kind, r.value, r.rank,
        f.last_seen_us
    FROM ranked r JOIN fragments f USING (fragment_id) LEFT JOIN fragment_profiles m USING (fragment_id)
    ORDER BY profile_id, r.rank, f.last_seen_us DESC, r.kind, r.value
)
SELECT * FROM best
WHERE CAST(:rank AS integer) IS NULL OR (rank, -last_seen_us, profile_id)
    > (CAST(:rank AS integer), - CAST(:last_seen_us AS bigint), CAST(:profile_id AS uuid))
ORDER BY rank, last_seen_us DESC, profile_id LIMIT :most
"""

_SEALED_CANDIDATES = """
WITH candidates AS (
    (SELECT * FROM search_entries WHERE grams @> CAST(:begin_grams AS integer[]) LIMIT :candidates)
    UNION
    (SELECT * FROM search_entries WHERE grams @> CAST(:word_grams AS integer[]) LIMIT :candidates)
    UNION
    (SELECT * FROM search_entries WHERE grams @> CAST(:digit_begin_grams AS integer[]) AND kind = 'phone'
        LIMIT :candidates)
    UNION
    (SELECT * FROM search_entries WHERE grams @> CAST(:digit_grams AS integer[]) AND kind = 'phone' LIMIT :candidates)
), found AS (
    SELECT fragment_id, kind, text, value FROM candidates
    UNION ALL
    SELECT fragment_id, namespace, '', value FROM fragments WHERE fragment_id = ANY (CAST(:named AS uuid[]))
)
SELECT r.*, coalesce(m.profile_id, r.fragment_id) AS profile_id, f.last_seen_us
FROM found r JOIN fragments f USING (fragment_id) LEFT JOIN fragment_profiles m USING (fragment_id)
"""

_FILL_STATE = "SELECT version, after_fragment, after_event FROM search_filling FOR UPDATE"

_SAVE_FILL_STATE = """
UPDATE search_filling SET version = :version, after_fragment = :after_fragment, after_event = :after_event
"""

_NEXT_FRAGMENTS = """
SELECT fragment_id FROM fragments
WHERE CAST(:after AS uuid) IS NULL OR fragment_id > CAST(:after AS uuid) ORDER BY fragment_id LIMIT :most
"""

_NEXT_ORDERS = """
SELECT fragment_id, event_key FROM events
WHERE name = :name AND payload IS NOT NULL AND fragment_id IS NOT NULL
    AND (CAST(:after AS uuid) IS NULL OR event_key > CAST(:after AS uuid)) ORDER BY event_key LIMIT :most
"""

_ORDERS_OF = """
SELECT fragment_id, event_key FROM events
WHERE fragment_id = ANY (CAST(:fragments AS uuid[])) AND name = :name AND payload IS NOT NULL
"""

_FORGET = "DELETE FROM search_entries WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))"

_decode_traits = msgspec.json.Decoder(dict[str, list[Any]]).decode

Waiting = tuple[FragmentKey, bytes | None]
"""A fragment whose names or identifier changed, or that owns an order: the key of its event."""


@dataclass(frozen=True)
class Source:
    """What entries are made of."""

    fragment: FragmentKey
    namespace: str
    value: str
    traits: Mapping[str, Any]
    """Their values."""


@dataclass(frozen=True)
class Filling:
    """How far the index has been filled anew."""

    version: int
    after_fragment: bytes | None
    after_event: bytes | None


class SearchStore:
    """Keeps the index and finds customers in it."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def queue(self, waiting: Sequence[Waiting]) -> None:
        """Note that entries have to be made anew."""
        if waiting:
            await self._tx.execute(
                _QUEUE,
                fragments=[UUID(fragment) for fragment, _ in waiting],
                events=[UUID(event) if event else None for _, event in waiting],
            )

    async def try_lock(self) -> bool:
        """Be the only one who writes entries until the end of the transaction; false when somebody else is."""
        return bool(await self._tx.value(_TRY_LOCK))

    async def take(self, most: int) -> list[Waiting]:
        """Take some of what waits, oldest first."""
        rows = await self._tx.rows(_TAKE, most=most)
        return [(row.fragment_id.bytes, row.event_key.bytes if row.event_key else None) for row in rows]

    async def sources(self, fragments: Collection[FragmentKey]) -> list[Source]:
        """Return what the entries of some fragments are made of, locked against erasure."""
        rows = await self._tx.rows(_SOURCES, fragments=[UUID(fragment) for fragment in fragments])
        rows = await revealed_fragments(self._tx, rows)
        return [Source(row.fragment_id.bytes, row.namespace, row.value, _values(row.traits)) for row in rows]

    async def replace(self, fragments: Collection[FragmentKey], entries: Sequence[Entry]) -> None:
        """Let these be all entries of some fragments, apart from their orders."""
        await self._tx.execute(
            _DELETE_STALE,
            fragments=[UUID(fragment) for fragment in fragments],
            entry_fragments=[UUID(entry.fragment) for entry in entries],
            kinds=[entry.kind for entry in entries],
            texts=[storable_text(entry.text) for entry in entries],
        )
        await self.add(entries)

    async def add(self, entries: Sequence[Entry]) -> None:
        """Put further entries in."""
        if self._tx.sealer.is_on and entries:
            entries = await self._unknown(entries)
        if entries:
            seal, hash_ = self._tx.sealer.seal_text, self._tx.sealer.hash
            await self._tx.execute(
                _PUT,
                fragments=[UUID(entry.fragment) for entry in entries],
                kinds=[entry.kind for entry in entries],
                texts=[seal(ENTRY, entry.fragment, storable_text(entry.text)) for entry in entries],
                values=[seal(FOUND, entry.fragment, storable_text(entry.value)) for entry in entries],
                grams=[_array(map(hash_, entry.grams)) for entry in entries],
            )

    async def _unknown(self, entries: Sequence[Entry]) -> list[Entry]:
        """Leave out entries that are there: sealed ones look different each time, so no index tells."""
        rows = await self._tx.rows(
            "SELECT fragment_id, kind, text FROM search_entries WHERE fragment_id = ANY (CAST(:fragments AS uuid[]))",
            fragments=[UUID(entry.fragment) for entry in entries],
        )
        texts = await opened_texts(self._tx, [(ENTRY, row.fragment_id.bytes, row.text) for row in rows])
        known = {(row.fragment_id.bytes, row.kind, text) for row, text in zip(rows, texts, strict=True)}
        return [entry for entry in entries if (entry.fragment, entry.kind, storable_text(entry.text)) not in known]

    async def forget(self, fragments: Collection[FragmentKey]) -> None:
        """Let some fragments be found by nothing."""
        await self._tx.execute(_FORGET, fragments=[UUID(fragment) for fragment in fragments])

    async def matches(
        self,
        query: Query,
        named: Iterable[FragmentKey],
        *,
        after: tuple[int, int, bytes] | None,
        candidates: int,
        most: int,
    ) -> list[Match]:
        """Return customers who fit a query, or whom it names outright, best first, after a position of the list."""
        if self._tx.sealer.is_on:
            found = await self._sealed_matches(query, named, candidates)
            return matches_after(found, after, most)
        digits = query.digits
        rows = await self._tx.rows(
            _MATCHES,
            **{"break": BREAK},
            whole=query.whole,
            words=list(query.words),
            digits=digits,
            begin_grams=grams_within(BREAK + query.whole),
            word_grams=word_grams(query.words),
            digit_begin_grams=grams_within(BREAK + digits) if digits else None,
            digit_grams=grams_within(digits) if digits else None,
            named=[UUID(fragment) for fragment in named],
            rank=after[0] if after else None,
            last_seen_us=after[1] if after else None,
            profile_id=UUID(after[2]) if after else None,
            candidates=candidates,
            most=most,
        )
        return [Match(row.profile_id.bytes, row.kind, row.value, row.rank, row.last_seen_us) for row in rows]

    async def _sealed_matches(self, query: Query, named: Iterable[FragmentKey], candidates: int) -> list[Match]:
        """Look at candidates in the open: PostgreSQL knows sealed values by hashes of their pieces only."""
        hash_, digits = self._tx.sealer.hash, query.digits
        rows = await self._tx.rows(
            _SEALED_CANDIDATES,
            begin_grams=list(map(hash_, grams_within(BREAK + query.whole))),
            word_grams=list(map(hash_, word_grams(query.words))),
            digit_begin_grams=list(map(hash_, grams_within(BREAK + digits))) if digits else None,
            digit_grams=list(map(hash_, grams_within(digits))) if digits else None,
            named=[UUID(fragment) for fragment in named],
            candidates=candidates,
        )
        texts = await opened_texts(self._tx, [(ENTRY, row.fragment_id.bytes, row.text) for row in rows])
        values = await opened_texts(
            self._tx, [(FOUND if row.text else IDENTIFIER, row.fragment_id.bytes, row.value) for row in rows]
        )
        ranked = (
            (row, value, rank_of(query, row.kind, text) if text else 1)
            for row, text, value in zip(rows, texts, values, strict=True)
        )
        return [
            Match(row.profile_id.bytes, row.kind, value, rank, row.last_seen_us)
            for row, value, rank in ranked
            if rank is not None
        ]

    async def seal(self) -> bool:
        """Begin the index anew when its entries are not sealed and have to be; tells whether it was begun anew."""
        if not self._tx.sealer.is_on or not await self.try_lock():
            return False
        begun = await self._tx.execute(
            """
            INSERT INTO sealing_progress (column_name, after, sealed_count, done)
            VALUES ('search_entries', '', 0, true) ON CONFLICT DO NOTHING
            """
        )
        if begun:
            await self._tx.execute("DELETE FROM search_entries")
            await self.save_filling(Filling(0, None, None))
        return bool(begun)

    async def filling(self) -> Filling:
        """Return how far the index has been filled, locked against other processes."""
        row = (await self._tx.rows(_FILL_STATE))[0]
        return Filling(
            row.version,
            row.after_fragment.bytes if row.after_fragment else None,
            row.after_event.bytes if row.after_event else None,
        )

    async def save_filling(self, filling: Filling) -> None:
        """Write how far the index has been filled."""
        await self._tx.execute(
            _SAVE_FILL_STATE,
            version=filling.version,
            after_fragment=UUID(filling.after_fragment) if filling.after_fragment else None,
            after_event=UUID(filling.after_event) if filling.after_event else None,
        )

    async def next_fragments(self, after: bytes | None, most: int) -> list[Waiting]:
        """Return the fragments after one, in the order of their ids."""
        rows = await self._tx.rows(_NEXT_FRAGMENTS, after=UUID(after) if after else None, most=most)
        return [(row.fragment_id.bytes, None) for row in rows]

    async def next_orders(self, name: str, after: bytes | None, most: int) -> list[Waiting]:
        """Return the events of orders after one, in the order of their keys."""
        rows = await self._tx.rows(_NEXT_ORDERS, name=name, after=UUID(after) if after else None, most=most)
        return [(row.fragment_id.bytes, row.event_key.bytes) for row in rows]

    async def orders_of(self, name: str, fragments: Collection[FragmentKey]) -> list[Waiting]:
        """Return the events of orders that some fragments own."""
        rows = await self._tx.rows(_ORDERS_OF, name=name, fragments=[UUID(fragment) for fragment in fragments])
        return [(row.fragment_id.bytes, row.event_key.bytes) for row in rows]


def _values(traits: str) -> dict[str, Any]:
    """Read the values of traits, which stand first among what decides about them."""
    return {name: trait[0] for name, trait in _decode_traits(traits).items()}


def _array(numbers: Iterable[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"
