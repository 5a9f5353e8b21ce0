# SPDX-License-Identifier: Apache-2.0
"""What a service and the process that parses a file for it say to each other: MessagePack behind its length."""

from struct import Struct
from typing import BinaryIO

import msgspec

from svc_profile.domain.imports import ImportJob, RejectedRow

LENGTH = Struct(">I")

Message = tuple[str, str, bytes]
"""Subject, message id, `EventBatch`."""


class Task(msgspec.Struct, frozen=True):
    """To the parser, first: what to parse."""

    job: ImportJob
    identifiers: tuple[str, ...]
    """Traits that somebody can be known by."""
    shards: int


class Piece(msgspec.Struct, frozen=True):
    """To the parser, as an answer to `Want`: bytes of the file as it was sent; none when the file was forgotten."""

    first: int
    data: bytes


class Want(msgspec.Struct, frozen=True, tag=True):
    """From the parser: the piece that holds this byte, please."""

    offset: int


class Parsed(msgspec.Struct, frozen=True, tag=True):
    """From the parser: the rows of one batch."""

    first_row: int
    """Number of its first row, from 0."""
    read_rows: int
    read_bytes: int
    """Bytes of the file, as it was sent, up to the end of the batch."""
    next_offset: int
    events: int
    messages: tuple[Message, ...]
    rejected: tuple[RejectedRow, ...]


class Unreadable(msgspec.Struct, frozen=True, tag=True):
    """From the parser, last: the file cannot be read on."""

    why: str


class Finished(msgspec.Struct, frozen=True, tag=True):
    """From the parser, last: there are no more rows."""


Said = Want | Parsed | Unreadable | Finished

_encode = msgspec.msgpack.Encoder().encode
read_task = msgspec.msgpack.Decoder(Task).decode
read_piece = msgspec.msgpack.Decoder(Piece).decode
_said: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
read_said = _said.decode


def frame(message: Task | Piece | Said) -> bytes:
    """Write a message behind its length."""
    data = _encode(message)
    return LENGTH.pack(len(data)) + data


def unframe(source: BinaryIO) -> bytes:
    """Read the next message; raises `EOFError` where there is none."""
    head = source.read(LENGTH.size)
    data = source.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""
    if not data:
        raise EOFError
    return data
