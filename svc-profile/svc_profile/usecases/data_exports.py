# SPDX-License-Identifier: Apache-2.0
"""Give a customer a copy of everything: gather what the services send, and pack it into one zip file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from chassis.bus import DOMAIN
from chassis.database import Transaction
from chassis.errors import FailedPrecondition, NotFound
from chassis.privacy import streams

from svc_profile.domain.archives import Archive, CsvWriter, index_page
from svc_profile.domain.data_requests import Answer, DataRequest, Kind, Part, State, Step
from svc_profile.domain.events import FragmentKey
from svc_profile.store.data_exports import DataExportStore, Run
from svc_profile.store.data_requests import DataRequestStore
from svc_profile.store.members import find_members
from svc_profile.usecases.data_requests import finish, go_on
from svc_profile.usecases.erasing import MOST_FRAGMENTS, NOBODY, TOO_MANY, Surroundings
from svc_profile.usecases.subjects import find_subject
from svc_profile.wire.privacy import export_requested

_decode = msgspec.json.decode


class Exporting:
    """The saga of an access request."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._at = surroundings
        self._database = surroundings.database

    async def advance(self, data_request_id: str, now: datetime) -> None:
        """Take the next step, if it is time."""
        async with self._database.snapshot() as tx:
            request = await DataRequestStore(tx).get(data_request_id)
        match request.step:
            case Step.WAITING:
                await self._begin(data_request_id, now)
            case Step.EXPORTING:
                await self._gather(request, now)
            case Step.PACKING:
                await self._pack(request, now)

    async def _begin(self, data_request_id: str, now: datetime) -> None:
        async with self._database.transaction() as tx:
            request = await DataRequestStore(tx).get(data_request_id, lock=True)
            if request.state is not State.RECEIVED:
                return
            members = await find_members(tx, request.profile) if request.profile else None
            if members is None:
                await finish(tx, request, State.REFUSED, now=now, reason=NOBODY, keep_profile=False)
                return
            if len(members.fragments) > MOST_FRAGMENTS:
                await finish(tx, request, State.REFUSED, now=now, reason=TOO_MANY)
                return
            if await DataRequestStore(tx).other_runs(request, members.fragments):
                return
            subject, _ = await find_subject(tx, members.profile, members.fragments, self._at.key)
            begun = replace(request, profile=members.profile, subject=subject)
            tx.publish(export_requested(await go_on(tx, begun, Step.EXPORTING, now=now)))

    async def _gather(self, request: DataRequest, now: datetime) -> None:
        """Go on when a whole run of every service is there."""
        async with self._database.transaction() as tx:
            whole = {run.service for run in await DataExportStore(tx).whole_runs(request.data_request_id)}
            for service in sorted(whole):
                await DataRequestStore(tx).answer(request.data_request_id, Answer(service, "export", 0, now, {}))
            if not set(self._at.services) - whole:
                await go_on(tx, request, Step.PACKING, now=now)

    async def _pack(self, request: DataRequest, now: datetime) -> None:
        """Write the file piece by piece; after somebody who died in between it begins anew."""
        packing = Packing(self._at, request)
        await packing.run(now)
        async with self._database.snapshot() as tx:
            sequences = await DataExportStore(tx).sequences(request.data_request_id)
        await streams.delete(self._at.bus, DOMAIN, sequences)
        async with self._database.transaction() as tx:
            await DataExportStore(tx).forget_parts(request.data_request_id)
            await finish(tx, request, State.DONE, now=now)


class Packing:
    """One archive in the making."""

    def __init__(self, surroundings: Surroundings, request: DataRequest) -> None:
        self._database = surroundings.database
        self._request = request
        self._archive = Archive()
        self._index = 0
        self._counts: dict[tuple[str, str], int] = {}

    async def run(self, now: datetime) -> None:
        """Write all files, and the page that explains them."""
        async with self._database.transaction() as tx:
            await DataExportStore(tx).clear(self._request.data_request_id)
            runs = await DataExportStore(tx).whole_runs(self._request.data_request_id)
            files = [(run, file) for run in runs for file in await DataExportStore(tx).files(self._id, run)]
        purposes: dict[str, list[Mapping[str, Any]]] = {}
        for run, file in files:
            await self._write(run, file, purposes)
        page = index_page(self._request, made=now.isoformat(), files=self._counts, purposes=_purpose_rows(purposes))
        with self._archive.open("index.html") as entry:
            entry.write(page.encode())
        self._archive.close()
        await self._keep(all_=True)

    @property
    def _id(self) -> str:
        return self._request.data_request_id

    async def _write(self, run: Run, file: str, purposes: dict[str, list[Mapping[str, Any]]]) -> None:
        """Write the rows of one file twice: as JSON and as CSV."""
        columns: dict[str, None] = {}
        count = 0
        with self._archive.open(f"{run.service}/{file}.json") as entry:
            entry.write(b"[")
            async for lines in self._parts(run, file):
                entry.write((b",\n" if count else b"\n") + b",\n".join(lines))
                count += len(lines)
                rows = [_decode(line) for line in lines]
                columns |= dict.fromkeys(name for row in rows for name in row)
                if file in _EXPLAINED:
                    purposes.setdefault(file, []).extend(rows)
                await self._keep()
            entry.write(b"\n]\n")
        writer = CsvWriter(list(columns))
        with self._archive.open(f"{run.service}/{file}.csv") as entry:
            entry.write(writer.header())
            async for lines in self._parts(run, file):
                entry.write(writer.lines(_decode(line) for line in lines))
                await self._keep()
        self._counts[run.service, file] = count

    async def _parts(self, run: Run, file: str) -> AsyncIterator[list[bytes]]:
        async with self._database.transaction() as tx:
            async for rows in DataExportStore(tx).parts(self._id, run, file):
                yield rows.splitlines()

    async def _keep(self, *, all_: bool = False) -> None:
        for piece in self._archive.pipe.take(all_=all_):
            async with self._database.transaction() as tx:
                await DataExportStore(tx).add_chunk(self._id, self._index, piece)
            self._index += 1


_EXPLAINED = frozenset({"purposes", "consents"})
"""Files whose rows the page shows: what each purpose is, and what the customer answered."""


def _purpose_rows(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    answers = {str(row.get("purpose_id", "")): str(row.get("answer", "")) for row in found.get("consents", ())}
    return [
        [
            str(row.get("purpose_id", "")),
            str(row.get("legal_basis", "")),
            str(row.get("period", "")),
            str(row.get("notice", "")),
            answers.get(str(row.get("purpose_id", "")), "—"),
        ]
        for row in found.get("purposes", ())
    ]


async def keep_parts(tx: Transaction, parts: Sequence[Part]) -> None:
    """Keep what services send."""
    for part in parts:
        await DataExportStore(tx).add_part(part)


@dataclass(frozen=True)
class Piece:
    """A piece of a finished file."""

    data: bytes
    count: int
    """Number of pieces."""
    file_bytes: int
    profile: FragmentKey | None
    """Whose file it is."""


async def download(tx: Transaction, data_request_id: str, index: int) -> Piece:
    """Return a piece of the file."""
    request = await DataRequestStore(tx).get(data_request_id)
    if request.kind is not Kind.ACCESS or request.state is not State.DONE:
        raise FailedPrecondition("only a finished access request has a file", reason="NO_EXPORT")
    count, size = await DataExportStore(tx).size(data_request_id)
    if not count:
        raise NotFound("the file has expired")
    data = await DataExportStore(tx).chunk(data_request_id, index)
    if data is None:
        raise NotFound(f"the file has {count} pieces")
    return Piece(data, count, size, request.profile)
