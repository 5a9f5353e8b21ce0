# SPDX-License-Identifier: Apache-2.0
"""Events of an import in messages like those of the gateway."""

from collections.abc import Iterable, Iterator
from zlib import crc32

from svc_profile.domain.imports import ImportJob
from svc_profile.wire.importing import Slice

MESSAGE_EVENTS = 500
_MESSAGE_BYTES = 700 * 1024


def messages_of(job: ImportJob, piece: Slice, shards: int) -> Iterator[tuple[str, str, bytes]]:
    """Pack the events of a batch as the gateway does: subject, message id, `EventBatch`. The same each time."""
    by_shard: dict[int, list[bytes]] = {}
    for customer, event in piece.events:
        by_shard.setdefault(_shard(customer, shards), []).append(event)
    for shard, events in sorted(by_shard.items()):
        for number, packed in enumerate(_packed(events)):
            name = f"{job.plan.import_id}:{piece.first_row}:{shard}:{number}"
            yield f"events.collected.{shard}", name, packed


def _shard(customer: str, shards: int) -> int:
    return crc32(customer.encode()) % shards


def _packed(events: Iterable[bytes]) -> Iterator[bytes]:
    """Put batches of one event together: what follows a message is part of it (Protocol Buffers, Encoding)."""
    held: list[bytes] = []
    size = 0
    for event in events:
        if held and (len(held) == MESSAGE_EVENTS or size + len(event) > _MESSAGE_BYTES):
            yield b"".join(held)
            held, size = [], 0
        held.append(event)
        size += len(event)
    if held:
        yield b"".join(held)
