# SPDX-License-Identifier: Apache-2.0
"""What every service hears about data subjects, whatever else it does."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from dangol.profile.v1 import privacy_pb2 as pb
from dangol.profile.v1.identity_pb2 import FORGET_REASON_ERASED, FragmentsForgotten

from chassis.bus import Bus, Outgoing
from chassis.database import Transaction
from chassis.ids import new_ulid
from chassis.privacy import tombstones
from chassis.privacy.personal import Erased, PersonalStore, Traces
from chassis.streams import Delivery, Subscription

PART_BYTES = 512 * 1024
"""Most bytes of rows in one part of an export; a single row may be larger."""

_MOST_ROW_BYTES = 800 * 1024
"""A message of the broker holds one MiB."""


class Privacy:
    """Erases, exports and searches all personal data of one service."""

    def __init__(self, service: str, bus: Bus, stores: Sequence[PersonalStore]) -> None:
        self._service = service
        self._bus = bus
        self._stores = stores

    def subscriptions(self) -> tuple[Subscription, ...]:
        """What is heard; each message is a transaction of its own."""
        return (
            Subscription(FragmentsForgotten, self.on_forgotten, batch_messages=1),
            Subscription(pb.ErasureRequested, self.on_erasure_requested, batch_messages=1),
            Subscription(pb.ProbeRequested, self.on_probe_requested, batch_messages=1),
            Subscription(pb.ExportRequested, self.on_export_requested, batch_messages=1, inbox=False),
            Subscription(pb.SuppressionsLifted, self.on_lifted),
        )

    async def on_forgotten(self, tx: Transaction, messages: Sequence[FragmentsForgotten]) -> None:
        """Let go of fragments: of everything, or of the data that were derived again elsewhere."""
        for message in messages:
            fragments = _uuids(message.fragment_ids)
            await tombstones.put(tx, fragments)
            if message.reason != FORGET_REASON_ERASED:
                for store in self._stores:
                    await store.forget(tx, fragments)
            elif not message.request_id:
                # An erasure with a request asks by itself, and is told what was removed.
                await self._erase(tx, fragments)

    async def on_erasure_requested(self, tx: Transaction, messages: Sequence[pb.ErasureRequested]) -> None:
        """Erase a customer, and say what was removed and what was kept."""
        for message in messages:
            fragments = _uuids(message.fragment_ids)
            await tombstones.put(tx, fragments)
            erased = await self._erase(tx, fragments)
            tx.publish(
                pb.ErasureReported(
                    data_request_id=message.data_request_id,
                    round=message.round,
                    service=self._service,
                    removed=_removed(erased.removed),
                    kept=[pb.KeptRows(what=kept.what, count=kept.count, why=kept.why) for kept in erased.kept],
                )
            )

    async def on_probe_requested(self, tx: Transaction, messages: Sequence[pb.ProbeRequested]) -> None:
        """Remove what events in flight left, then search for whatever is still there."""
        for message in messages:
            traces = Traces(_uuids(message.fragment_ids), list(message.values))
            erased = await self._erase(tx, [*traces.fragments, *_uuids(message.shared_fragment_ids)])
            found: dict[str, int] = {}
            for store in self._stores:
                found |= await store.probe(tx, traces)
            tx.publish(
                pb.ProbeReported(
                    data_request_id=message.data_request_id,
                    round=message.round,
                    service=self._service,
                    removed=_removed(erased.removed),
                    leftovers=_removed({what: count for what, count in found.items() if count}),
                    searched_columns=len(found),
                )
            )

    async def on_export_requested(self, tx: Transaction, deliveries: Sequence[Delivery[pb.ExportRequested]]) -> None:
        """Send all of a customer in parts; nothing sits whole in memory. A repeated run is a run of its own."""
        for delivery in deliveries:
            request, attempt, number = delivery.message, new_ulid(), 0
            async for file, rows, last in self._parts(tx, _uuids(request.fragment_ids)):
                part = pb.ExportPart(
                    data_request_id=request.data_request_id,
                    service=self._service,
                    attempt=attempt,
                    number=number,
                    file=file,
                    last=last,
                    rows=rows,
                )
                name = part.DESCRIPTOR.full_name
                message_id = f"export:{request.data_request_id}:{self._service}:{attempt}:{number}"
                await self._bus.publish_all([Outgoing(name, part.SerializeToString(), message_id, name)])
                number += 1

    async def on_lifted(self, tx: Transaction, messages: Sequence[pb.SuppressionsLifted]) -> None:
        """Let events of erased customers in again who asked to come back."""
        await tombstones.lift(tx, [each for message in messages for each in _uuids(message.fragment_ids)])

    async def _erase(self, tx: Transaction, fragments: Sequence[UUID]) -> Erased:
        erased = Erased()
        for store in self._stores:
            erased.add(await store.erase(tx, fragments))
        return erased

    async def _parts(self, tx: Transaction, fragments: Sequence[UUID]) -> AsyncIterator[tuple[str, bytes, bool]]:
        """Gather rows of one file into parts; the last part is empty and says so."""
        file, rows = "", bytearray()
        for store in self._stores:
            async for name, row in store.export(tx, fragments):
                line = _line(row)
                if rows and (name != file or len(rows) + len(line) > PART_BYTES):
                    yield file, bytes(rows), False
                    rows = bytearray()
                file = name
                rows += line
        if rows:
            yield file, bytes(rows), False
        yield "", b"", True


def _line(row: Mapping[str, Any]) -> bytes:
    """Write one row; one that is absurdly long is cut column by column, so that the message can be sent."""
    line = msgspec.json.encode(row)
    if len(line) > _MOST_ROW_BYTES:
        share = _MOST_ROW_BYTES // max(len(row), 1)
        line = msgspec.json.encode({name: _cut(value, share) for name, value in row.items()})
    return line + b"\n"


def _cut(value: Any, most: int) -> Any:
    encoded = msgspec.json.encode(value)
    return value if len(encoded) <= most else encoded[:most].decode(errors="ignore") + "…"


def _removed(counts: Mapping[str, int]) -> list[pb.RemovedRows]:
    return [pb.RemovedRows(what=what, count=count) for what, count in sorted(counts.items())]


def _uuids(fragment_ids: Sequence[bytes]) -> list[UUID]:
    return [UUID(bytes=each) for each in fragment_ids]
