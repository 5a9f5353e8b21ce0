# SPDX-License-Identifier: Apache-2.0
"""Events of an import in messages like those of the gateway."""

from collections.abc import Iterable, Iterator
from zlib import crc32

from dangol.events.v1 import events_pb2

from svc_profile.domain.imports import ImportJob
from svc_profile.wire.importing import Slice

MESSAGE_EVENTS = 500
_MESSAGE_BYTES = 700 * 1024


def messages_of(job: ImportJob, piece: Slice, shards: int) -> Iterator[tuple[str, str, events_pb2.EventBatch]]:
    """Pack the events of a batch as the gateway does: subject, message id, message. The same each time."""

    by_shard: dict[int, list[events_pb2.Event]] = {}
    for event in piece.events:
        shard = crc32((event.user_id or event.anonymous_id).encode()) % shards
        by_shard.setdefault(shard, []).append(event)
    for shard, events in sorted(by_shard.items()):
        for number, packed in enumerate(_packed(events)):
            name = f"{job.plan.import_id}:{piece.first_row}:{shard}:{number}"
            yield f"events.collected.{shard}", name, packed


def _packed(events: Iterable[events_pb2.Event]) -> Iterator[events_pb2.EventBatch]:
    held: list[events_pb2.Event] = []
    size = 0
    for event in events:
        more = event.ByteSize()
        if held and (len(held) == MESSAGE_EVENTS or size + more > _MESSAGE_BYTES):
            yield events_pb2.EventBatch(events=held)
            held, size = [], 0
        held.append(event)
        size += more
    if held:
        yield events_pb2.EventBatch(events=held)
