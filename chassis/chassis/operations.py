# SPDX-License-Identifier: Apache-2.0
"""The RPCs that every service answers alike: dead letters."""

from dangol.operations.v1 import operations_pb2 as pb
from dangol.operations.v1.operations_pb2_grpc import (
    DeadLetterServiceServicer,
    add_DeadLetterServiceServicer_to_server,
)
from grpc.aio import ServicerContext

from chassis import dead_letters
from chassis.bus import Bus
from chassis.clock import to_timestamp
from chassis.errors import Invalid
from chassis.pages import decode_token, encode_token, page_size
from chassis.rpc import Servicer


class DeadLetterRpc(DeadLetterServiceServicer):
    """Lists and replays what consumers gave up on."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: ServicerContext
    ) -> pb.ListDeadLettersResponse:
        """Answer one page, oldest first."""
        limit = page_size(request.page_size)
        after = decode_token(request.page_token).get("after", 0)
        if not isinstance(after, int):
            raise Invalid.field("page_token", "must be the next_page_token of an earlier answer")
        letters = await dead_letters.list_dead_letters(self._bus, consumer=request.consumer, after=after, limit=limit)
        full = len(letters) == limit
        return pb.ListDeadLettersResponse(
            dead_letters=[_to_proto(letter) for letter in letters],
            next_page_token=encode_token({"after": letters[-1].dead_letter_id}) if full else "",
        )

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: ServicerContext
    ) -> pb.ReplayDeadLettersResponse:
        """Hand letters to their consumer again."""
        count = await dead_letters.replay(self._bus, request.dead_letter_ids)
        return pb.ReplayDeadLettersResponse(replayed_count=count)


def dead_letter_servicer(bus: Bus) -> Servicer:
    """Return the servicer for a server."""
    return Servicer(
        "dangol.operations.v1.DeadLetterService", add_DeadLetterServiceServicer_to_server, DeadLetterRpc(bus)
    )


def _to_proto(letter: dead_letters.DeadLetter) -> pb.DeadLetter:
    return pb.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        consumer=letter.consumer,
        subject=letter.subject,
        message_id=letter.message_id,
        error=letter.error,
        deliveries=letter.deliveries,
        buried_time=to_timestamp(letter.buried_time),
        payload_bytes=letter.payload_bytes,
    )
