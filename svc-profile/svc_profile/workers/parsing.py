# SPDX-License-Identifier: Apache-2.0
"""Parse the file of an import in a process of its own, beside the one that learns from it.

Parsing takes no time from the service's one interpreter that way, and a file that brings its reader down (those of
Parquet and gzip are written in C) brings down nothing else. The process holds no secret, opens no connection and no
file: it asks for pieces of the file and says what it read, over two pipes, and ends when they do.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import sys
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, cast

from chassis.errors import Invalid
from chassis.garbage import collect_less

from svc_profile.wire.importing import slices
from svc_profile.wire.packing import messages_of
from svc_profile.wire.parsing import (
    LENGTH,
    Finished,
    Parsed,
    Piece,
    Said,
    Task,
    Unreadable,
    Want,
    frame,
    read_piece,
    read_said,
    read_task,
    unframe,
)
from svc_profile.workers.chunks import ChunkFile, ForgottenError

Fetch = Callable[[int], Awaitable[tuple[int, bytes] | None]]
"""Finds the piece of a file that holds a byte: where it begins, and its bytes."""

_BUFFER_BYTES = 2**18
_AHEAD_BYTES = 2**20
_SECRETS = "DANGOL_"


class ParserDied(Exception):
    """The process that parses ended without having said that it is done."""


class Parser:
    """One file, parsed a batch ahead of whoever asks."""

    def __init__(self, process: Process, fetch: Fetch) -> None:
        self._process = process
        self._fetch = fetch
        self._ahead = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, task: Task, fetch: Fetch) -> Parser:
        """Start a process for a file."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=PIPE,
            stdout=PIPE,
            limit=_AHEAD_BYTES,
            # Ctrl-C in a terminal is for the service, which ends its parser.
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)},
        )
        _tell(process, frame(task))
        return cls(process, fetch)

    async def next(self) -> Parsed | None:
        """Return the next batch, None at the end.

        Raises `Invalid` where the file cannot be read on, `ForgottenError` when it is gone, `ParserDied`.
        """
        said = await self._ahead
        if isinstance(said, Parsed):
            self._ahead = asyncio.create_task(self._read())
            return said
        if isinstance(said, Unreadable):
            raise Invalid(said.why)
        return None

    async def close(self) -> None:
        """End the process, whatever it is at."""
        self._ahead.cancel()
        with suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.gather(self._ahead, return_exceptions=True)
        await self._process.wait()

    async def _read(self) -> Said:
        """Answer what the parser wants until it says something else."""
        while True:
            said = await self._said()
            if not isinstance(said, Want):
                return said
            found = await self._fetch(said.offset)
            if found is None:
                raise ForgottenError
            _tell(self._process, frame(Piece(*found)))

    async def _said(self) -> Said:
        source = cast(asyncio.StreamReader, self._process.stdout)
        try:
            (length,) = LENGTH.unpack(await source.readexactly(LENGTH.size))
            return read_said(await source.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise ParserDied(f"the parser ended with code {await self._process.wait()}") from error


def _tell(process: Process, data: bytes) -> None:
    # A parser that is dead is found out when it is read from.
    cast(asyncio.StreamWriter, process.stdin).write(data)


def parse(source: BinaryIO, target: BinaryIO) -> None:
    """Parse one file: what is read and written are the pipes of the process."""
    task = read_task(unframe(source))

    def say(said: Said) -> None:
        target.write(frame(said))
        target.flush()

    def fetch(offset: int) -> tuple[int, bytes]:
        say(Want(offset))
        piece = read_piece(unframe(source))
        return piece.first, piece.data

    try:
        for batch in _batches(task, fetch):
            say(batch)
    except Invalid as error:
        say(Unreadable(error.message))
    else:
        say(Finished())


def _batches(task: Task, fetch: Callable[[int], tuple[int, bytes]]) -> Iterator[Parsed]:
    job = task.job
    file = cast(BinaryIO, io.BufferedReader(ChunkFile(fetch, job.progress.received_bytes), _BUFFER_BYTES))
    inflated = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if job.plan.gzip else file
    for piece in slices(job, file, inflated, task.identifiers):
        yield Parsed(
            first_row=piece.first_row,
            read_rows=piece.read_rows,
            read_bytes=piece.read_bytes,
            next_offset=piece.next_offset,
            events=len(piece.events),
            messages=tuple(messages_of(job, piece, task.shards)),
            rejected=tuple(piece.rejected),
        )


def main() -> None:
    """Parse what standard input asks for; end without a word when nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not come between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    collect_less()
    try:
        parse(sys.stdin.buffer, target)
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except Exception as error:
        # What an error says may be a value of a row, and rows are about people.
        traceback.print_tb(error.__traceback__)
        sys.exit(f"{type(error).__name__} in the parser of an import")


if __name__ == "__main__":
    main()
