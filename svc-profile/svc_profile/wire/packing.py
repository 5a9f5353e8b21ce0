# SPDX-License-Identifier: Apache-2.0
"""Events of an import in messages like those of the gateway."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from zlib import crc32

from dangol.events.v1 import events_pb2

from svc_profile.domain.imports import ImportJob
from svc_profile.wire.importing import Slice

MESSAGE_EVENTS = 500
_MESSAGE_BYTES = 700 * 1024
_CACHED = 32_768
_TAG = bytes([events_pb2.EventBatch.EVENTS_FIELD_NUMBER << 3 | 2])
"""Before each event of a batch, and its length: a message within a message (Protocol Buffers, Encoding)."""


def messages_of(job: ImportJob, piece: Slice, shards: int) -> Iterator[tuple[str, str, bytes]]:
    """Pack the events of a batch as the gateway does: subject, message id, `EventBatch`. The same each time."""
    by_shard: dict[int, list[bytes]] = {}
    for customer, event in piece.events:
        by_shard.setdefault(_shard(customer, shards), []).append(event)
    for shard, events in sorted(by_shard.items()):
        for number, packed in enumerate(_packed(events)):
            name = f"{job.plan.import_id}:{piece.first_row}:{shard}:{number}"
            yield f"events.collected.{shard}", name, packed


@lru_cache(_CACHED)
def _shard(customer: str, shards: int) -> int:
    return crc32(customer.encode()) % shards


def _packed(events: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for event in events:
        if held and (len(held) == 2 * MESSAGE_EVENTS or size + len(event) > _MESSAGE_BYTES):
            yield b"".join(held)
            held, size = [], 0
        held += _head(len(event)), event
        size += len(event)
    if held:
        yield b"".join(held)


@lru_cache(_CACHED)
def _head(length: int) -> bytes:
    """Write what stands before an event of a length: a tag, and the length as a varint."""
    number, written = length, bytearray(_TAG)
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
