# SPDX-License-Identifier: Apache-2.0
"""Exports, the pieces of their files, and the customers who go into them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from asyncpg.pgproto.pgproto import UUID
from chassis.database import Transaction
from chassis.encryption.vault import Row as Sealed
from chassis.encryption.vault import opened

from svc_profile.domain.events import FragmentKey
from svc_profile.domain.exports import ExportJob, ExportPlan, State
from svc_profile.store.drafts import DraftStore, Piece
from svc_profile.store.sealed import EXPORTED, PSEUDONYM_KEY, row_of

_ADD = """
INSERT INTO export_jobs (
    export_id, request_id, format, fields, trait_names, segment_id, fragments, is_list, pseudonymise, purpose,
    byte_order_mark, state, create_time_us, expire_time_us, key
) VALUES (
    :export_id, nullif(:request_id, ''), :format, CAST(:fields AS smallint[]), CAST(:trait_names AS text[]),
    :segment_id, CAST(:fragments AS uuid[]), :is_list, :pseudonymise, :purpose,
    :byte_order_mark, 1, :create_time_us, :expire_time_us, :key
) ON CONFLICT DO NOTHING
"""
_BY_REQUEST = "SELECT * FROM export_jobs WHERE request_id = :request_id"
_FIND = "SELECT * FROM export_jobs WHERE export_id = :export_id"
_LOCK = "SELECT * FROM export_jobs WHERE export_id = :export_id FOR UPDATE"
_PAGE = """
SELECT * FROM export_jobs WHERE :before = '' OR export_id < :before ORDER BY export_id DESC LIMIT :most
"""
_END = """
UPDATE export_jobs SET state = :state, failure = :failure, end_time_us = coalesce(end_time_us, :end_time_us), key = '',
    fragments = '{}', lease_holder = '', lease_until = '-infinity'
WHERE export_id = :export_id
"""
_FORGET_FILE = "DELETE FROM export_chunks WHERE export_id = :export_id"

# A holder that dies no longer prolongs its lease. The number of attempts falls back to 0 with each batch that is done.
_CLAIM = """
UPDATE export_jobs SET lease_holder = :holder, lease_until = now() + make_interval(secs => :seconds),
    attempts = attempts + 1
WHERE export_id = (
    SELECT export_id FROM export_jobs WHERE state = 1 AND lease_until < now()
    ORDER BY create_time_us LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING *
"""
_RELEASE = """
UPDATE export_jobs SET lease_until = '-infinity', lease_holder = '',
    attempts = CASE WHEN :broke THEN attempts ELSE 0 END
WHERE export_id = :export_id AND lease_holder = :holder
"""
_ADVANCE = """
UPDATE export_jobs SET lease_until = now() + make_interval(secs => :seconds), attempts = 0, cursor = :cursor,
    written_profiles = written_profiles + :written, withheld_profiles = withheld_profiles + :withheld,
    file_bytes = file_bytes + :bytes
WHERE export_id = :export_id AND lease_holder = :holder AND state = 1
"""
_BEGIN = """
UPDATE export_jobs SET cursor = NULL, written_profiles = 0, withheld_profiles = 0, file_bytes = 0,
    total_profiles = :total
WHERE export_id = :export_id AND lease_holder = :holder AND state = 1
"""
_BEGIN_FILE = """
UPDATE export_jobs SET file_bytes = 0 WHERE export_id = :export_id AND lease_holder = :holder AND state = 1
"""
_APPEND = """
UPDATE export_jobs SET lease_until = now() + make_interval(secs => :seconds), attempts = 0,
    file_bytes = file_bytes + :bytes
WHERE export_id = :export_id AND lease_holder = :holder AND state = 1
"""
_FILE_END = "SELECT file_bytes FROM export_jobs WHERE export_id = :export_id FOR UPDATE"
_ADD_CHUNK = """
INSERT INTO export_chunks (export_id, first_byte, data, profiles)
VALUES (:export_id, :first_byte, :data, CAST(:profiles AS uuid[]))
"""
_CHUNK = """
SELECT first_byte, data FROM export_chunks WHERE export_id = :export_id AND first_byte <= :offset
ORDER BY first_byte DESC LIMIT 1
"""

# A profile's id is that of one of its fragments, and a fragment without a row in fragment_profiles is its own profile.
_ALL = """
SELECT f.fragment_id AS profile_id FROM fragments f LEFT JOIN fragment_profiles m USING (fragment_id)
WHERE f.fragment_id > :after AND coalesce(m.profile_id, f.fragment_id) = f.fragment_id
ORDER BY f.fragment_id LIMIT :most
"""
_COUNT_ALL = """
SELECT count(*) FROM fragments f LEFT JOIN fragment_profiles m USING (fragment_id)
WHERE coalesce(m.profile_id, f.fragment_id) = f.fragment_id
"""
_MEMBERS = """
SELECT s.profile_id FROM segment_memberships s LEFT JOIN fragment_profiles m ON m.fragment_id = s.profile_id
WHERE s.segment_id = :segment_id AND s.member AND s.profile_id > :after
    AND coalesce(m.profile_id, s.profile_id) = s.profile_id
ORDER BY s.profile_id LIMIT :most
"""
_COUNT_MEMBERS = "SELECT count(*) FROM segment_memberships WHERE segment_id = :segment_id AND member"
_NAMED = """
SELECT DISTINCT coalesce(m.profile_id, f.fragment_id) AS profile_id
FROM (SELECT unnest(fragments) AS fragment_id FROM export_jobs WHERE export_id = :export_id) AS g
JOIN fragments f USING (fragment_id) LEFT JOIN fragment_profiles m USING (fragment_id)
WHERE coalesce(m.profile_id, f.fragment_id) > :after
ORDER BY 1 LIMIT :most
"""
_KNOWS_SEGMENT = "SELECT EXISTS (SELECT FROM heard_segments WHERE segment_id = :segment_id AND NOT deleted)"
_KNOWS_PURPOSE = "SELECT EXISTS (SELECT FROM purpose_defaults WHERE purpose_id = :purpose)"

# What svc-profile itself announces of consent; whoever's use of data is restricted has granted nothing.
_CONSENTS = """
SELECT p.profile_id, d.purpose_id, NOT coalesce(c.restricted, false) AND CASE
    WHEN d.purpose_id = ANY (c.refused) THEN false WHEN d.purpose_id = ANY (c.granted) THEN true
    ELSE d.granted_by_default END AS granted
FROM unnest(CAST(:profiles AS uuid[])) AS p (profile_id)
LEFT JOIN fragment_consents c ON c.fragment_id = p.profile_id CROSS JOIN purpose_defaults d
WHERE :purpose = '' OR d.purpose_id = :purpose
ORDER BY d.purpose_id
"""
_FRAGMENTS = """
SELECT p.profile_id, f.fragment_id FROM unnest(CAST(:profiles AS uuid[])) AS p (profile_id) CROSS JOIN LATERAL (
    SELECT p.profile_id AS fragment_id
    UNION SELECT m.fragment_id FROM fragment_profiles m WHERE m.profile_id = p.profile_id
) AS f
"""

_EXPIRE = """
UPDATE export_jobs SET state = 5 WHERE state = 2 AND expire_time_us < :now_us RETURNING export_id
"""
_FORGET_FILES = "DELETE FROM export_chunks WHERE export_id = ANY (CAST(:export_ids AS text[]))"
_FORGET_JOBS = "DELETE FROM export_jobs WHERE state <> 1 AND create_time_us < :before_us"

_FIRST = bytes(16)


@dataclass(frozen=True)
class Progress:
    """What one batch came to."""

    cursor: FragmentKey
    profiles: Sequence[FragmentKey]
    withheld: int
    data: bytes
    is_draft: bool = False
    """True when the data are rows from which the file is made later, not a piece of it."""


class ExportStore:
    """Keeps exports."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def add(
        self, plan: ExportPlan, *, request_id: str, create_time_us: int, expire_time_us: int, key: bytes
    ) -> ExportJob | None:
        """Keep a new export; return the one that has the request's id already, if any."""
        added = await self._tx.execute(
            _ADD,
            export_id=plan.export_id,
            request_id=request_id,
            format=plan.format,
            fields=list(plan.fields),
            trait_names=list(plan.trait_names),
            segment_id=plan.segment_id,
            fragments=[UUID(fragment) for fragment in plan.fragments],
            is_list=plan.is_list,
            pseudonymise=plan.pseudonymise,
            purpose=plan.purpose,
            byte_order_mark=plan.byte_order_mark,
            create_time_us=create_time_us,
            expire_time_us=expire_time_us,
            key=self._tx.sealer.seal(PSEUDONYM_KEY, row_of(plan.export_id), key) if key else key,
        )
        row = None if added else await self._tx.row(_BY_REQUEST, request_id=request_id)
        return (await self._read([row]))[0] if row else None

    async def find(self, export_id: str, *, lock: bool = False) -> ExportJob | None:
        """Return an export."""
        row = await self._tx.row(_LOCK if lock else _FIND, export_id=export_id)
        return (await self._read([row]))[0] if row else None

    async def page(self, *, before: str, most: int) -> list[ExportJob]:
        """Return exports, newest first."""
        return await self._read(await self._tx.rows(_PAGE, before=before, most=most))

    async def knows_segment(self, segment_id: str) -> bool:
        """Tell whether a segment was heard of."""
        return bool(await self._tx.value(_KNOWS_SEGMENT, segment_id=segment_id))

    async def knows_purpose(self, purpose: str) -> bool:
        """Tell whether there is such a purpose."""
        return bool(await self._tx.value(_KNOWS_PURPOSE, purpose=purpose))

    async def end(self, export_id: str, state: State, *, end_time_us: int, failure: str = "") -> None:
        """End an export, and forget the key of its pseudonyms."""
        await self._tx.execute(_END, export_id=export_id, state=state, failure=failure, end_time_us=end_time_us)
        await DraftStore(self._tx).forget(export_id)

    async def forget_file(self, export_id: str) -> None:
        """Forget the pieces of a file."""
        await self._tx.execute(_FORGET_FILE, export_id=export_id)

    async def claim(self, holder: str, lease_seconds: float) -> tuple[int, ExportJob] | None:
        """Take the export that has waited longest and that nobody works on, and say how often it was tried."""
        row = await self._tx.row(_CLAIM, holder=holder, seconds=lease_seconds)
        return (row.attempts, (await self._read([row]))[0]) if row else None

    async def release(self, export_id: str, holder: str, *, broke: bool) -> None:
        """Let somebody else take an export at once; unless it broke, that was no attempt."""
        await self._tx.execute(_RELEASE, export_id=export_id, holder=holder, broke=broke)

    async def begin(self, job: ExportJob, holder: str) -> bool:
        """Begin a file, from its first byte; False when the export is no longer the holder's."""
        if job.plan.is_list:
            total = len(set(job.plan.fragments))
        elif job.plan.segment_id:
            total = await self._tx.value(_COUNT_MEMBERS, segment_id=job.plan.segment_id)
        else:
            total = await self._tx.value(_COUNT_ALL)
        await self.forget_file(job.plan.export_id)
        await DraftStore(self._tx).forget(job.plan.export_id)
        return bool(await self._tx.execute(_BEGIN, export_id=job.plan.export_id, holder=holder, total=total))

    async def begin_file(self, export_id: str, holder: str) -> bool:
        """Begin a file that is made of drafts, from its first byte; False when the export is no longer the holder's."""
        await self.forget_file(export_id)
        return bool(await self._tx.execute(_BEGIN_FILE, export_id=export_id, holder=holder))

    async def append(self, export_id: str, holder: str, lease_seconds: float, piece: Piece) -> bool:
        """Keep the next piece of a file that is made of drafts; False when the export is no longer the holder's."""
        if piece.data and not await self._add_chunk(export_id, piece):
            return False
        given = {"holder": holder, "seconds": lease_seconds, "bytes": len(piece.data)}
        return bool(await self._tx.execute(_APPEND, export_id=export_id, **given))

    async def next_profiles(self, plan: ExportPlan, after: FragmentKey, most: int) -> list[FragmentKey]:
        """Return the next profiles of an export, in the order of their ids."""
        begin = UUID(after or _FIRST)
        if plan.is_list:
            rows = await self._tx.rows(_NAMED, export_id=plan.export_id, after=begin, most=most)
        elif plan.segment_id:
            rows = await self._tx.rows(_MEMBERS, segment_id=plan.segment_id, after=begin, most=most)
        else:
            rows = await self._tx.rows(_ALL, after=begin, most=most)
        return [row.profile_id.bytes for row in rows]

    async def consents(
        self, profiles: Collection[FragmentKey], purpose: str = ""
    ) -> dict[FragmentKey, dict[str, bool]]:
        """Return for each profile whether each purpose, or the one that is named, is granted."""
        found: dict[FragmentKey, dict[str, bool]] = {}
        rows = await self._tx.rows(_CONSENTS, profiles=[UUID(profile) for profile in profiles], purpose=purpose)
        for row in rows:
            found.setdefault(row.profile_id.bytes, {})[row.purpose_id] = row.granted
        return found

    async def fragments_of(self, profiles: Collection[FragmentKey]) -> dict[FragmentKey, FragmentKey]:
        """Return the fragments of some profiles, each with its profile."""
        rows = await self._tx.rows(_FRAGMENTS, profiles=[UUID(profile) for profile in profiles])
        return {row.fragment_id.bytes: row.profile_id.bytes for row in rows}

    async def advance(self, export_id: str, holder: str, lease_seconds: float, done: Progress) -> bool:
        """Keep what one batch came to; False when the export is no longer the holder's."""
        piece = Piece(done.profiles, done.data)
        add = DraftStore(self._tx).add if done.is_draft else self._add_chunk
        if done.data and not await add(export_id, piece):
            return False
        return bool(
            await self._tx.execute(
                _ADVANCE,
                export_id=export_id,
                holder=holder,
                seconds=lease_seconds,
                cursor=UUID(done.cursor) if done.cursor else None,
                written=len(done.profiles),
                withheld=done.withheld,
                bytes=0 if done.is_draft else len(done.data),
            )
        )

    async def _add_chunk(self, export_id: str, piece: Piece) -> bool:
        """Add a piece at the end of a file; False when the export is gone."""
        first_byte = await self._tx.value(_FILE_END, export_id=export_id)
        if first_byte is None:
            return False
        await self._tx.execute(
            _ADD_CHUNK,
            export_id=export_id,
            first_byte=first_byte,
            data=self._tx.sealer.seal(EXPORTED, row_of(export_id, first_byte), piece.data),
            profiles=[UUID(profile) for profile in piece.profiles],
        )
        return True

    async def chunk(self, export_id: str, offset: int) -> tuple[int, bytes] | None:
        """Return the piece that holds a byte, and where it begins."""
        row = await self._tx.row(_CHUNK, export_id=export_id, offset=offset)
        if row is None:
            return None
        sealed = Sealed(EXPORTED, row_of(export_id, row.first_byte), row.data, is_foreign=True)
        (data,) = await opened(self._tx, [sealed])
        return row.first_byte, data or b""

    async def expire(self, *, now_us: int) -> None:
        """Delete the files whose time is over."""
        rows = await self._tx.rows(_EXPIRE, now_us=now_us)
        await self._tx.execute(_FORGET_FILES, export_ids=[row[0] for row in rows])

    async def forget(self, *, before_us: int) -> None:
        """Forget exports that were made long ago."""
        await self._tx.execute(_FORGET_JOBS, before_us=before_us)

    async def _read(self, rows: Sequence[Any]) -> list[ExportJob]:
        keys = await opened(self._tx, [Sealed(PSEUDONYM_KEY, row_of(row.export_id), row.key) for row in rows])
        return [_read(row, key or b"") for row, key in zip(rows, keys, strict=True)]


def _read(row: Any, key: bytes) -> ExportJob:
    return ExportJob(
        plan=ExportPlan(
            export_id=row.export_id,
            format=row.format,
            fields=tuple(row.fields),
            trait_names=tuple(row.trait_names),
            segment_id=row.segment_id,
            fragments=tuple(fragment.bytes for fragment in row.fragments),
            is_list=row.is_list,
            pseudonymise=row.pseudonymise,
            purpose=row.purpose,
            byte_order_mark=row.byte_order_mark,
        ),
        state=State(row.state),
        create_time_us=row.create_time_us,
        end_time_us=row.end_time_us,
        expire_time_us=row.expire_time_us,
        cursor=row.cursor.bytes if row.cursor else b"",
        written_profiles=row.written_profiles,
        withheld_profiles=row.withheld_profiles,
        total_profiles=row.total_profiles,
        file_bytes=row.file_bytes,
        key=key,
        failure=row.failure,
    )
